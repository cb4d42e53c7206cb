"""From a container to an OCI bundle: config.json as the runtime-spec 1.2 has it, and the users its image knows.

It must not know: how a container is run, or the network's and snapshots' stores; it gets their results as values.
Start reading at `config.py`.
"""
