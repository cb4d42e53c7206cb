"""What processes tell each other."""

from sqlalchemy import BigInteger, Column, String, Table

from storage.metadata.tables.base import metadata

topics = Table(
    "topics",
    metadata,
    Column("name", String(64), primary_key=True),
    # As in `repositories`, and numbered together with it.
    Column("generation", BigInteger, nullable=False, index=True),
)
