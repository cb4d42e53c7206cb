"""Docker's Engine API on a unix socket: parse, one call into a room below, render.

It must not know: SQL, mounts, processes, how an image is stored. Start reading at `routes.py` (every operation of the
API on one screen) and `dispatch.py` (a request's way); `streams.py` is the only code that takes a connection over,
`types/` the only code that knows the wire's JSON, `parts.py` says what this room needs of its neighbours.
"""
