"""The log of events: the audit trail and the outbox of webhooks at once.

On Postgres some transactions run beside each other, so an event may become visible after one with a higher id. Hence
the order of the log is the pair (number of the transaction, id), and a reader that moves a `Position` through it sees
only what nothing older can still appear before (`dialect.settled`).
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
from storage.metadata.dialect import settled, transaction_number
from storage.metadata.engine import Transaction
from storage.metadata.tables import events, webhook_cursors

MAX_DETAIL = 4000


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the log: everything up to it, in the log's order, is done with."""

    written: int
    number: int


START = Position(-1, 0)


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """`uid` names the event for ever, to whoever is told of it twice."""

    position: Position
    uid: str
    at: datetime
    event: Event

    @property
    def number(self) -> int:
        return self.position.number


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
        await tx.execute(sa.insert(events).values(written=transaction_number(tx)), rows)


async def after(tx: Transaction, position: Position, limit: int) -> Sequence[LoggedEvent]:
    """The next ones after `position`, in the log's order."""
    return await _read(tx, _SELECT.where(_later(position), settled(tx, events.c.written))
                       .order_by(events.c.written, events.c.id).limit(limit))


async def numbered(tx: Transaction, numbers: Sequence[int]) -> Sequence[LoggedEvent]:
    return await _read(tx, _SELECT.where(events.c.id.in_(numbers)).order_by(events.c.id))


async def latest(tx: Transaction, wanted: Wanted, limit: int) -> Sequence[LoggedEvent]:
    """The newest first."""
    return await _read(tx, _SELECT.where(*_conditions(wanted)).order_by(events.c.id.desc()).limit(limit))


async def newest(tx: Transaction) -> Position:
    """Where the log ends now; START when it is empty."""
    row = (await tx.execute(sa.select(events.c.written, events.c.id).where(settled(tx, events.c.written))
                            .order_by(events.c.written.desc(), events.c.id.desc()).limit(1))).first()
    return START if row is None else Position(row[0], row[1])


async def since(tx: Transaction, position: Position, most: int) -> tuple[int, datetime | None]:
    """How many there are after `position`, counted up to `most`, and when the first of them happened."""
    later = (sa.select(events.c.at).where(_later(position)).order_by(events.c.written, events.c.id).limit(most)
             .subquery())
    row = (await tx.execute(sa.select(sa.func.count(), sa.func.min(later.c.at)).select_from(later))).one()
    return row[0], row[1]


async def prune(tx: Transaction, before: datetime, up_to: Position | None, limit: int) -> int:
    """Remove at most `limit` events that happened before then and do not lie after `up_to`; how many."""
    old = sa.select(events.c.id).where(events.c.at < before).order_by(events.c.at).limit(limit)
    if up_to is not None:
        old = old.where(sa.not_(_later(up_to)))
    return (await tx.execute(sa.delete(events).where(events.c.id.in_(old)))).rowcount


async def mend(tx: Transaction) -> None:
    """Restored into a younger Postgres, transactions are numbered from lower on: what the log has comes before them."""
    ahead = events.c.written > transaction_number(tx)
    if await tx.scalar(sa.select(events.c.id).where(ahead).limit(1)) is not None:
        await tx.execute(sa.update(events).where(ahead).values(written=0))
        await tx.execute(sa.update(webhook_cursors).values(written=0))


def _later(position: Position) -> sa.ColumnElement[bool]:
    return sa.or_(events.c.written > position.written,
                  sa.and_(events.c.written == position.written, events.c.id > position.number))


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
    return LoggedEvent(Position(row["written"], row["id"]), row["uid"], row["at"], Event(
        Action(row["action"]), origin, RepositoryName(row["repository"]) if row["repository"] else None,
        row["digest"], Tag(row["tag"]) if row["tag"] else None, row["media_type"], row["size"],
        Result(row["result"]), json.loads(row["detail"])))
