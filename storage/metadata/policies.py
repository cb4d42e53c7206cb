"""Policies: which subject may do what in repositories of a pattern. Changes outdate the topic `policies`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from storage.metadata import topics
from storage.metadata.dialect import upsert
from storage.metadata.engine import Transaction
from storage.metadata.tables import policies

TOPIC = "policies"


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """`actions`: words, sorted and joined with commas; none is a rule as well, which closes a pattern."""

    pattern: str
    subject: str
    actions: str


async def all_rows(tx: Transaction) -> Sequence[PolicyRow]:
    query = sa.select(policies.c.pattern, policies.c.subject, policies.c.actions).order_by(
        policies.c.pattern, policies.c.subject)
    return [PolicyRow(*row) for row in await tx.execute(query)]


async def put(tx: Transaction, row: PolicyRow, now: datetime) -> None:
    values = {"pattern": row.pattern, "subject": row.subject, "actions": row.actions, "created": now}
    await tx.execute(upsert(tx, policies, values, ["pattern", "subject"]))
    await topics.outdate(tx, TOPIC)


async def delete(tx: Transaction, pattern: str, subject: str | None) -> int:
    """Of one subject, or of all; gives how many there were."""
    where = policies.c.pattern == pattern
    if subject is not None:
        where = sa.and_(where, policies.c.subject == subject)
    gone = await tx.execute(sa.delete(policies).where(where))
    await topics.outdate(tx, TOPIC)
    return gone.rowcount


async def replace(tx: Transaction, rows: Iterable[PolicyRow], now: datetime) -> None:
    """These and no others."""
    await tx.execute(sa.delete(policies))
    for row in rows:
        await tx.execute(sa.insert(policies).values(
            pattern=row.pattern, subject=row.subject, actions=row.actions, created=now))
    await topics.outdate(tx, TOPIC)
