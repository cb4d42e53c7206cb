"""The history of the node's state.db, run by `node.state.database` when the file is opened."""
