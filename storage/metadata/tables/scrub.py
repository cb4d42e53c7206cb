"""Passes of the scrub over all stored bytes."""

from sqlalchemy import Column, Table

from storage.metadata.tables.base import ROW_ID, Instant, metadata

scrub_passes = Table(
    "scrub_passes",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("started", Instant, nullable=False),
    # Without it the pass was interrupted: the next run goes on with it.
    Column("finished", Instant, nullable=True),
)
