"""Folders that outlive containers, named or anonymous, under the node's home. Start at `store`."""
