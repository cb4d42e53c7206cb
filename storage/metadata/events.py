"""The log of events: the audit trail and the outbox of webhooks at once.

Every writer holds the database's one write lock until its commit is done (`dialect`), so ids become visible in
their order: what a reader sees after a cursor is everything there will ever be up to the last id seen. Whoever
gives up that lock must give webhooks another order to stand on.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ocispec.reference import RepositoryName, Tag
from storage.events import Action, Event, Origin, Result
from storage.metadata.engine import Transaction
from storage.metadata.tables import events

MAX_DETAIL = 4000


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """`number` orders the log; `uid` names the event for ever, to whoever is told of it twice."""

    number: int
    uid: str
    at: datetime
    event: Event


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: None means whichever. `since` is in it, `until` is not; `before` is a `number`."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    repository: RepositoryName | None = None
    action: Action | None = None
    result: Result | None = None
    before: int | None = None


async def record(tx: Transaction, event: Event, now: datetime) -> None:
    """Part of the change that it tells of."""
    await record_all(tx, [event], now)


async def record_all(tx: Transaction, several: Iterable[Event], now: datetime) -> None:
    rows = [_row(event, now) for event in several]
    if rows:
        await tx.execute(sa.insert(events), rows)


async def after(tx: Transaction, number: int, limit: int) -> Sequence[LoggedEvent]:
    """The next ones after `number`, in order."""
    return await _read(tx, _SELECT.where(events.c.id > number).order_by(events.c.id).limit(limit))


async def numbered(tx: Transaction, numbers: Sequence[int]) -> Sequence[LoggedEvent]:
    return await _read(tx, _SELECT.where(events.c.id.in_(numbers)).order_by(events.c.id))


async def latest(tx: Transaction, wanted: Wanted, limit: int) -> Sequence[LoggedEvent]:
    """The newest first."""
    return await _read(tx, _SELECT.where(*_conditions(wanted)).order_by(events.c.id.desc()).limit(limit))


async def newest(tx: Transaction) -> int:
    """The last number, 0 when the log is empty. Numbers may have been given and removed since."""
    return await tx.scalar(sa.select(sa.func.coalesce(sa.func.max(events.c.id), 0))) or 0


async def since(tx: Transaction, number: int) -> tuple[int, datetime | None]:
    """How many there are after `number`, and when the oldest of them happened."""
    row = (await tx.execute(sa.select(sa.func.count(), sa.func.min(events.c.at)).where(events.c.id > number))).one()
    return row[0], row[1]


async def prune(tx: Transaction, before: datetime, up_to: int | None, limit: int) -> int:
    """Remove at most `limit` events that happened before then and whose number is not above `up_to`; how many."""
    old = sa.select(events.c.id).where(events.c.at < before).order_by(events.c.at).limit(limit)
    if up_to is not None:
        old = old.where(events.c.id <= up_to)
    return (await tx.execute(sa.delete(events).where(events.c.id.in_(old)))).rowcount


_SELECT = sa.select(events)


def _conditions(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    equal = {"actor": wanted.actor, "action": wanted.action, "result": wanted.result,
             "repository": wanted.repository.value if wanted.repository else None}
    conditions = [events.c[name] == value for name, value in equal.items() if value is not None]
    if wanted.since is not None:
        conditions.append(events.c.at >= wanted.since)
    if wanted.until is not None:
        conditions.append(events.c.at < wanted.until)
    if wanted.before is not None:
        conditions.append(events.c.id < wanted.before)
    return conditions


def _row(event: Event, now: datetime) -> dict[str, Any]:
    origin = event.origin
    detail = json.dumps(dict(event.detail), separators=(",", ":")) if event.detail else "{}"
    assert len(detail) <= MAX_DETAIL, f"the detail of {event.action} is no detail"
    return {
        "uid": str(uuid.uuid4()), "at": now, "action": event.action.value, "result": event.result.value,
        "actor": origin.actor, "request_id": origin.request_id, "remote": origin.remote, "agent": origin.agent,
        "method": origin.method, "host": origin.host,
        "repository": event.repository.value if event.repository else None, "digest": event.digest,
        "tag": event.tag.value if event.tag else None, "media_type": event.media_type, "size": event.size,
        "detail": detail,
    }


async def _read(tx: Transaction, query: sa.Select[Any]) -> Sequence[LoggedEvent]:
    return [_event(row) for row in (await tx.execute(query)).mappings()]


def _event(row: Any) -> LoggedEvent:
    origin = Origin(row["actor"], row["request_id"], row["remote"], row["agent"], row["method"], row["host"])
    return LoggedEvent(row["id"], row["uid"], row["at"], Event(
        Action(row["action"]), origin, RepositoryName(row["repository"]) if row["repository"] else None,
        row["digest"], Tag(row["tag"]) if row["tag"] else None, row["media_type"], row["size"],
        Result(row["result"]), json.loads(row["detail"])))
