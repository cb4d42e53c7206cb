"""Webhooks: the endpoints that are told of events, and how far each has been told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from storage.metadata import events
from storage.metadata.dialect import insert_or_ignore, upsert
from storage.metadata.engine import Transaction
from storage.metadata.events import Position
from storage.metadata.tables import events as event_rows
from storage.metadata.tables import webhook_cursors, webhook_dead, webhooks

MAX_ERROR = 500
COUNTED = 10_000
"""A backlog is counted no further."""


@dataclass(frozen=True, slots=True)
class HookRow:
    """An endpoint of the database; others stand in the settings. `secret` signs what is sent."""

    name: str
    url: str
    secret: str
    format: str
    actions: tuple[str, ...]
    repositories: tuple[str, ...]
    enabled: bool


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to `position` everything is done with. `attempts`: failures since the last success."""

    position: Position
    attempts: int
    retry_at: datetime | None
    error: str
    delivered: int
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Dead:
    """An event that was given up for an endpoint; `again`: it will be tried once more."""

    number: int
    at: datetime
    attempts: int
    error: str
    again: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    """`waiting` is counted up to COUNTED, whether or not the endpoint wants to hear of the events."""

    name: str
    waiting: int
    oldest: datetime | None
    dead: int


async def hooks(tx: Transaction) -> Sequence[HookRow]:
    rows = (await tx.execute(sa.select(webhooks).order_by(webhooks.c.name))).mappings()
    return [HookRow(row["name"], row["url"], row["secret"], row["format"], tuple(json.loads(row["actions"])),
                    tuple(json.loads(row["repositories"])), row["enabled"]) for row in rows]


async def put(tx: Transaction, hook: HookRow, now: datetime) -> None:
    values = {"name": hook.name, "url": hook.url, "secret": hook.secret, "format": hook.format,
              "actions": json.dumps(hook.actions), "repositories": json.dumps(hook.repositories),
              "enabled": hook.enabled, "created": now}
    await tx.execute(upsert(tx, webhooks, values, ["name"]))


async def delete(tx: Transaction, name: str) -> bool:
    """With all that is known of it. Whether it was there."""
    await forget(tx, name)
    return (await tx.execute(sa.delete(webhooks).where(webhooks.c.name == name))).rowcount > 0


async def forget(tx: Transaction, name: str) -> None:
    """How far it was told and what was given up."""
    for table in (webhook_cursors, webhook_dead):
        await tx.execute(sa.delete(table).where(table.c.name == name))


async def claim(tx: Transaction, name: str, owner: str, now: datetime, until: datetime) -> Cursor | None:
    """Take or keep the right to deliver to an endpoint; None while somebody else has it. A new endpoint hears of what
    happens from now on."""
    if await cursor(tx, name) is None:
        end = await events.newest(tx)
        await tx.execute(insert_or_ignore(tx, webhook_cursors, {
            "name": name, "written": end.written, "number": end.number, "attempts": 0, "error": "", "delivered": 0,
            "owner": "", "lease": None}))
    free = sa.or_(webhook_cursors.c.owner.in_(["", owner]), webhook_cursors.c.lease < now)
    taken = await tx.execute(sa.update(webhook_cursors).where(webhook_cursors.c.name == name, free)
                             .values(owner=owner, lease=until))
    return await cursor(tx, name) if taken.rowcount else None


async def cursor(tx: Transaction, name: str) -> Cursor | None:
    row = (await tx.execute(sa.select(webhook_cursors).where(webhook_cursors.c.name == name))).mappings().first()
    if row is None:
        return None
    return Cursor(Position(row["written"], row["number"]), row["attempts"], row["retry_at"], row["error"],
                  row["delivered"], row["delivered_at"])


async def move(tx: Transaction, name: str, owner: str, to: Cursor, lease: datetime) -> bool:
    """False when somebody else has the endpoint now: then nothing is written."""
    moved = await tx.execute(sa.update(webhook_cursors).where(_mine(name, owner)).values(
        written=to.position.written, number=to.position.number, attempts=to.attempts, retry_at=to.retry_at,
        error=to.error[:MAX_ERROR], delivered=to.delivered, delivered_at=to.delivered_at, lease=lease))
    return moved.rowcount > 0


async def release(tx: Transaction, name: str, owner: str) -> None:
    """Another may go on at once."""
    await tx.execute(sa.update(webhook_cursors).where(_mine(name, owner)).values(owner="", lease=None))


async def bury(tx: Transaction, name: str, number: int, attempts: int, error: str, now: datetime) -> None:
    await tx.execute(upsert(tx, webhook_dead, {
        "name": name, "event_id": number, "at": now, "attempts": attempts, "error": error[:MAX_ERROR], "again": False},
        ["name", "event_id"]))


async def dead(tx: Transaction, name: str, limit: int, *, again: bool = False) -> Sequence[Dead]:
    """The oldest first; with `again` those alone that are to be tried once more."""
    query = sa.select(webhook_dead).where(webhook_dead.c.name == name).order_by(webhook_dead.c.event_id).limit(limit)
    if again:
        query = query.where(webhook_dead.c.again)
    return [Dead(row["event_id"], row["at"], row["attempts"], row["error"], row["again"])
            for row in (await tx.execute(query)).mappings()]


async def revive(tx: Transaction, name: str) -> int:
    """Have everything that was given up tried once more; how many."""
    marked = await tx.execute(sa.update(webhook_dead).where(webhook_dead.c.name == name).values(again=True))
    await tx.execute(sa.update(webhook_cursors).where(webhook_cursors.c.name == name).values(retry_at=None))
    return marked.rowcount


async def exhume(tx: Transaction, name: str, number: int) -> None:
    """It was delivered after all, or is gone from the log."""
    await tx.execute(sa.delete(webhook_dead).where(webhook_dead.c.name == name, webhook_dead.c.event_id == number))


async def backlogs(tx: Transaction) -> Sequence[Backlog]:
    found = []
    for name, written, number in await tx.execute(sa.select(
            webhook_cursors.c.name, webhook_cursors.c.written, webhook_cursors.c.number)):
        waiting, oldest = await events.since(tx, Position(written, number), COUNTED)
        buried = await tx.scalar(sa.select(sa.func.count()).where(webhook_dead.c.name == name)) or 0
        found.append(Backlog(name, waiting, oldest, buried))
    return found


async def slowest(tx: Transaction) -> Position | None:
    """What every endpoint is done with; None when there is no endpoint."""
    query = (sa.select(webhook_cursors.c.written, webhook_cursors.c.number)
             .order_by(webhook_cursors.c.written, webhook_cursors.c.number).limit(1))
    row: Any = (await tx.execute(query)).first()
    return None if row is None else Position(row[0], row[1])


async def drop_abandoned(tx: Transaction, before: datetime) -> int:
    """Forget endpoints that nobody has claimed since then: they are configured nowhere any more, or switched off."""
    abandoned = sa.or_(webhook_cursors.c.lease < before, webhook_cursors.c.lease.is_(None))
    unused = sa.and_(abandoned, webhook_cursors.c.name.not_in(
        sa.select(webhooks.c.name).where(webhooks.c.enabled)))
    return (await tx.execute(sa.delete(webhook_cursors).where(unused))).rowcount


async def drop_dead_without_event(tx: Transaction) -> None:
    gone = webhook_dead.c.event_id.not_in(sa.select(event_rows.c.id))
    await tx.execute(sa.delete(webhook_dead).where(gone))


def _mine(name: str, owner: str) -> sa.ColumnElement[bool]:
    return sa.and_(webhook_cursors.c.name == name, webhook_cursors.c.owner == owner)
