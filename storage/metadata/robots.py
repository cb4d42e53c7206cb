"""Robots: named tokens. Whatever changes here outdates the topic `accounts`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from storage.metadata import topics
from storage.metadata.accounts import TOPIC
from storage.metadata.dialect import insert_or_ignore
from storage.metadata.engine import Transaction
from storage.metadata.tables import robots


@dataclass(frozen=True, slots=True)
class RobotRow:
    """`key` finds the row, `secret` is the hash that proves the token; `owner` is a subject, `scope` JSON."""

    name: str
    key: str = field(repr=False)
    secret: str = field(repr=False)
    owner: str | None
    scope: str | None
    admin: bool
    created: datetime
    expires: datetime | None


async def insert(tx: Transaction, row: RobotRow) -> bool:
    """False when the name is taken."""
    made = await tx.execute(insert_or_ignore(tx, robots, {
        "name": row.name, "key": row.key, "secret": row.secret, "owner": row.owner, "scope": row.scope,
        "admin": row.admin, "created": row.created, "expires": row.expires}))
    await topics.outdate(tx, TOPIC)
    return made.rowcount > 0


async def by_key(tx: Transaction, key: str) -> RobotRow | None:
    return await _first(tx, robots.c.key == key)


async def by_name(tx: Transaction, name: str) -> RobotRow | None:
    return await _first(tx, robots.c.name == name)


async def listed(tx: Transaction, limit: int, after: str, owner: str | None = None) -> Sequence[RobotRow]:
    """By name, after `after`; those of `owner` when it is given."""
    query = _QUERY.where(robots.c.name > after).order_by(robots.c.name).limit(limit)
    if owner is not None:
        query = query.where(robots.c.owner == owner)
    return [RobotRow(*row) for row in await tx.execute(query)]


async def delete(tx: Transaction, name: str) -> bool:
    """False when there is none."""
    gone = await tx.execute(sa.delete(robots).where(robots.c.name == name))
    await topics.outdate(tx, TOPIC)
    return gone.rowcount > 0


async def delete_of(tx: Transaction, owner: str) -> None:
    """All of one owner's."""
    await tx.execute(sa.delete(robots).where(robots.c.owner == owner))
    await topics.outdate(tx, TOPIC)


async def administrators(tx: Transaction, now: datetime) -> int:
    """How many tokens administer and have not expired."""
    valid = sa.or_(robots.c.expires.is_(None), robots.c.expires > now)
    return await tx.scalar(sa.select(sa.func.count()).where(robots.c.admin, valid)) or 0


_QUERY = sa.select(robots.c.name, robots.c.key, robots.c.secret, robots.c.owner, robots.c.scope, robots.c.admin,
                   robots.c.created, robots.c.expires)


async def _first(tx: Transaction, where: sa.ColumnElement[bool]) -> RobotRow | None:
    row = (await tx.execute(_QUERY.where(where))).first()
    return None if row is None else RobotRow(*row)
