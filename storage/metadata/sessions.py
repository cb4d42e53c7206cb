"""Sessions of browsers, by the hash of their secret."""

import json
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from storage.metadata.engine import Transaction
from storage.metadata.tables import sessions

TOPIC = "sessions"


@dataclass(frozen=True, slots=True)
class SessionRow:
    """`groups` and `admin` are as they were at the login; a new login makes a new row, so nothing is ever added to
    them (zot's CVE-2025-23208). `stamp` is the account's at that time."""

    id: str
    subject: str
    stamp: str
    groups: frozenset[str]
    admin: bool
    created: datetime
    expires: datetime


async def insert(tx: Transaction, row: SessionRow) -> None:
    await tx.execute(sa.insert(sessions).values(
        id=row.id, subject=row.subject, stamp=row.stamp, memberships=json.dumps(sorted(row.groups)), admin=row.admin,
        created=row.created, expires=row.expires))


async def find(tx: Transaction, name: str, now: datetime) -> SessionRow | None:
    """None also when it is over."""
    row = (await tx.execute(sa.select(sessions).where(sessions.c.id == name, sessions.c.expires > now))).first()
    if row is None:
        return None
    return SessionRow(row.id, row.subject, row.stamp, frozenset(json.loads(row.memberships)), row.admin, row.created,
                      row.expires)


async def delete(tx: Transaction, name: str) -> bool:
    return (await tx.execute(sa.delete(sessions).where(sessions.c.id == name))).rowcount > 0


async def delete_of(tx: Transaction, subject: str) -> int:
    """All of one account."""
    return (await tx.execute(sa.delete(sessions).where(sessions.c.subject == subject))).rowcount


async def drop_expired(tx: Transaction, now: datetime) -> int:
    return (await tx.execute(sa.delete(sessions).where(sessions.c.expires <= now))).rowcount
