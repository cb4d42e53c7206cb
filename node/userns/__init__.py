"""User namespaces of containers: which of the host's ids they get, and namespaces made ahead of need.

Start with `ranges` (the ids) and `spaces` (a user namespace with the network namespace that it owns). This room knows
neither containers nor the API; who gets a user namespace is decided in `node.containers.identity`.
"""
