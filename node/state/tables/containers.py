"""Containers."""

from sqlalchemy import Column, String, Table, Text

from node.state.tables.naming import metadata

containers = Table(
    "containers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("created", String(40), nullable=False),
    # What only an update changes after create, and what every transition rewrites: apart, so that those stay small.
    Column("spec", Text, nullable=False),
    Column("state", Text, nullable=False),
)
