"""Secrets and configs."""

from sqlalchemy import Column, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from node.state.tables.naming import metadata

secrets = Table(
    "secrets",
    metadata,
    Column("id", String(25), primary_key=True),
    Column("kind", String(6), nullable=False),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("created", String(40), nullable=False),
    Column("updated", String(40), nullable=False),
    Column("labels", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("kind", "name", name="uq_secrets_kind_name"),
)
