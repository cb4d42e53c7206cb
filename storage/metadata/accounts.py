"""Users, and the groups they are in. Whatever changes here outdates the topic `accounts`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from storage.metadata import topics
from storage.metadata.dialect import insert_or_ignore
from storage.metadata.engine import Transaction
from storage.metadata.tables import memberships, users

TOPIC = "accounts"


@dataclass(frozen=True, slots=True)
class UserRow:
    """`password` is a hash, None for one who cannot log in with a password; `stamp` changes with it."""

    name: str
    password: str | None = field(repr=False)
    stamp: str = field(repr=False)
    created: datetime
    admin: bool = False
    enabled: bool = True
    groups: frozenset[str] = frozenset()


async def find(tx: Transaction, name: str) -> UserRow | None:
    found = await _rows(tx, users.c.name == name)
    return found[0] if found else None


async def listed(tx: Transaction, limit: int, after: str) -> Sequence[UserRow]:
    """By name, after `after`."""
    return await _rows(tx, users.c.name > after, limit)


async def insert(tx: Transaction, row: UserRow) -> bool:
    """False when the name is taken."""
    made = await tx.execute(insert_or_ignore(tx, users, {
        "name": row.name, "password": row.password, "admin": row.admin, "enabled": row.enabled, "stamp": row.stamp,
        "created": row.created}))
    if made.rowcount < 1:
        return False
    await set_groups(tx, row.name, row.groups)
    return True


async def update(tx: Transaction, name: str, **values: Any) -> bool:
    """Set columns of a user; False when there is none."""
    changed = await tx.execute(sa.update(users).where(users.c.name == name).values(**values))
    await topics.outdate(tx, TOPIC)
    return changed.rowcount > 0


async def set_groups(tx: Transaction, name: str, groups: Collection[str]) -> bool:
    """Exactly these: what is not named is left (zot's CVE-2025-23208 only ever added). False: no such user."""
    number: int | None = await tx.scalar(sa.select(users.c.id).where(users.c.name == name))
    if number is None:
        return False
    await tx.execute(sa.delete(memberships).where(memberships.c.user_id == number))
    for group in sorted(groups):
        await tx.execute(sa.insert(memberships).values(user_id=number, group_name=group))
    await topics.outdate(tx, TOPIC)
    return True


async def delete(tx: Transaction, name: str) -> bool:
    """False when there is none."""
    gone = await tx.execute(sa.delete(users).where(users.c.name == name))
    await topics.outdate(tx, TOPIC)
    return gone.rowcount > 0


async def administrators(tx: Transaction) -> int:
    """How many users may administer."""
    return await tx.scalar(sa.select(sa.func.count()).where(users.c.admin, users.c.enabled)) or 0


async def _rows(tx: Transaction, where: sa.ColumnElement[bool], limit: int | None = None) -> list[UserRow]:
    query = (sa.select(users.c.id, users.c.name, users.c.password, users.c.stamp, users.c.created, users.c.admin,
                       users.c.enabled).where(where).order_by(users.c.name).limit(limit))
    found = (await tx.execute(query)).all()
    groups = await _groups(tx, [row[0] for row in found])
    return [UserRow(row[1], row[2], row[3], row[4], row[5], row[6], frozenset(groups.get(row[0], ()))) for row in found]


async def _groups(tx: Transaction, numbers: Sequence[int]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    if numbers:
        query = sa.select(memberships.c.user_id, memberships.c.group_name).where(
            memberships.c.user_id.between(min(numbers), max(numbers)))
        for number, group in await tx.execute(query):
            groups.setdefault(number, []).append(group)
    return groups
