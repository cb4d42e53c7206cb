"""Networks that users made."""

from sqlalchemy import Column, String, Table, Text

from node.state.tables.naming import metadata

networks = Table(
    "networks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("document", Text, nullable=False),
)
