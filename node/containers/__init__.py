"""Containers: made, started, watched, stopped, removed; their logs, attached streams and execs.

It must not know: HTTP, Docker's JSON (that is `node.api.types`), system calls (that is `node.runtime`, in processes of
its own, reached through `launcher.py` and `monitor.py`). Start reading at `model.py` for the words and `manager.py` for
the verbs; `bundle/` turns a container into an OCI config.json.
"""
