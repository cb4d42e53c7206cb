"""Logins of browsers."""

from sqlalchemy import Boolean, Column, String, Table, Text

from storage.metadata.tables.base import Instant, metadata

sessions = Table(
    "sessions",
    metadata,
    # SHA-256 of the secret that the browser has: who reads the database cannot become anybody.
    Column("id", String(64), primary_key=True),
    Column("subject", String(512), nullable=False, index=True),
    Column("stamp", String(255), nullable=False),
    Column("memberships", Text, nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("created", Instant, nullable=False),
    Column("expires", Instant, nullable=False, index=True),
)
