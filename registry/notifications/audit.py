"""The audit log: the log of events, with what was refused, searched and exported."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from ocispec.errors import SeawallError
from storage.events import Action, Event, Origin, Result
from storage.metadata import events
from storage.metadata.engine import Database
from storage.metadata.events import LoggedEvent, Wanted
from storage.observation import Tally

log = logging.getLogger(__name__)

PAGE = 500
SYSTEM = Origin("", "")


@dataclass(frozen=True, slots=True)
class Page:
    """The newest first; `before` leads to the next page, None at the end."""

    entries: Sequence[LoggedEvent]
    before: int | None


class AuditLog:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: Wanted, limit: int = 100) -> Page:
        """At most PAGE entries."""
        limit = max(1, min(limit, PAGE))
        async with self._database.read() as tx:
            found = await events.latest(tx, wanted, limit + 1)
        more = len(found) > limit
        return Page(found[:limit], found[limit - 1].number if more else None)

    async def export(self, wanted: Wanted) -> AsyncIterator[LoggedEvent]:
        """All of it, the newest first; a page is in memory at a time."""
        while True:
            page = await self.page(wanted, PAGE)
            for entry in page.entries:
                yield entry
            if page.before is None:
                return
            wanted = replace(wanted, before=page.before)


def line(entry: LoggedEvent) -> str:
    """The entry as one line of JSON."""
    return json.dumps(document(entry), separators=(",", ":"))


def document(entry: LoggedEvent) -> dict[str, Any]:
    event, origin = entry.event, entry.event.origin
    found = {
        "number": entry.number, "id": entry.uid, "time": entry.at.isoformat(timespec="milliseconds"),
        "action": event.action.value, "result": event.result.value, "actor": origin.actor, "remote": origin.remote,
        "request": origin.request_id, "method": origin.method, "host": origin.host, "agent": origin.agent,
        "repository": str(event.repository) if event.repository else "", "tag": str(event.tag) if event.tag else "",
        "digest": str(event.digest) if event.digest else "", "mediaType": event.media_type, "size": event.size,
        "detail": dict(event.detail),
    }
    return {name: value for name, value in found.items() if value or name == "actor"}


class Refusals:
    """Writes down who was refused. Whoever asks ten thousand times a second must not fill the disk nor keep others
    from writing: entries are gathered and written together, and beyond `rate` a second only their number is."""

    def __init__(self, database: Database, rate: float, dropped: Tally, every: float = 0.5) -> None:
        self._database = database
        self._rate = rate
        self._every = every
        self._dropped = dropped
        self._waiting: list[Event] = []
        self._beyond = 0
        self._room = max(rate, 1.0)
        self._filled = asyncio.get_running_loop().time()

    def note(self, event: Event) -> None:
        """Returns at once."""
        now = asyncio.get_running_loop().time()
        burst = max(self._rate * 10, 1.0)
        self._room = min(burst, self._room + (now - self._filled) * self._rate)
        self._filled = now
        if self._room < 1:
            self._beyond += 1
            self._dropped.add()
            return
        self._room -= 1
        self._waiting.append(event)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Writes what is noted during the block, and what is left at its end."""
        running = asyncio.create_task(self._run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])
            await self.flush()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.flush()

    async def flush(self) -> None:
        waiting, beyond = self._waiting, self._beyond
        self._waiting, self._beyond = [], 0
        if beyond:
            waiting = [*waiting, Event(Action.EVENTS_DROPPED, SYSTEM, result=Result.DENIED, detail={"count": beyond})]
        if not waiting:
            return
        try:
            async with self._database.write() as tx:
                await events.record_all(tx, waiting, self._database.now())
        except SeawallError as error:
            log.warning("%d entries are missing in the audit log: %s", len(waiting), error.message)
