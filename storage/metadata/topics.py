"""Topics: things other than repositories that processes remember (accounts, policies), marked as changed."""

from storage.metadata.dialect import next_generation, upsert
from storage.metadata.engine import Transaction
from storage.metadata.tables import topics

PREFIX = "!"
"""Begins a topic's name in `Changes.mark`; no repository's name begins with it."""


async def outdate(tx: Transaction, topic: str) -> None:
    """Whatever a process remembers about `topic` stops being true with this transaction:
    `database.changes.mark("!" + topic)` gives another number afterwards, in every process.

    Call it for what becomes true as well, if absence is remembered too.
    """
    await tx.execute(upsert(tx, topics, {"name": topic, "generation": next_generation(tx)}, ["name"]))
