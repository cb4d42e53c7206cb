"""The history of both schemas: `storage` (content, used by registry and node) and `node` (the daemon's state)."""
