"""Volumes."""

from sqlalchemy import Column, String, Table, Text

from node.state.tables.naming import metadata

volumes = Table(
    "volumes",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("created", String(40), nullable=False),
    Column("labels", Text, nullable=False),
    Column("options", Text, nullable=False, server_default="{}"),
)
