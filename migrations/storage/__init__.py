"""History of the content schema (`storage.metadata.tables`); the registry and the node both run it."""
