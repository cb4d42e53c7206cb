"""The administration API, `/api/v1/`: what an operator does besides pushing and pulling.

Operations are data (`operation.Operation`): dispatching, checking, the OpenAPI document and the command line all come
from the same table. Nothing here but `endpoints` knows HTTP's server side, so the commands can call the same operations
in their own process. Start at `administration`.
"""
