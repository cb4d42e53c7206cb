"""The node: pulls images, runs containers, and answers the Docker Engine API on a unix socket.

It must not know: anything of `registry`, which it meets over HTTP only. Start reading at `daemon.py`, which assembles
the rooms; `containers/manager.py` is where most requests end up.
"""
