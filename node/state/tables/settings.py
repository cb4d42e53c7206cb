"""What the node remembers by key."""

from sqlalchemy import Column, String, Table, Text

from node.state.tables.naming import metadata

settings = Table(
    "settings",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)
