"""Events on disk, so that a new daemon knows what happened before it: a line of JSON each, two files of bounded size.

Written behind: a daemon that is killed loses what it told in its last DELAY seconds, and nobody waits for a disk.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from node.events import Event

MAX_SIZE = 2 * 1024 * 1024
DELAY = 0.2
MAX_UNWRITTEN = 20_000
"""Events that wait for the disk; one that hangs costs the newest."""


class Journal:
    """PATH and, when that was full, PATH.1. Made by `open_journal`."""

    def __init__(self, path: Path, max_size: int = MAX_SIZE) -> None:
        self._path = path
        self._max_size = max_size
        self._unwritten: list[Event] = []
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()

    def append(self, event: Event) -> None:
        if len(self._unwritten) < MAX_UNWRITTEN:
            self._unwritten.append(event)
        self._news.set()

    async def read(self, since: int, before: int) -> Sequence[Event]:
        """Those told from `since` on and before `before` (nanoseconds), oldest first."""
        await self.flush()
        return await asyncio.to_thread(self._read, since, before)

    async def flush(self) -> None:
        async with self._writing:
            batch, self._unwritten = self._unwritten, []
            self._news.clear()
            if batch:
                await asyncio.to_thread(self._write, batch)

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(DELAY)
            await self.flush()

    def _write(self, batch: Sequence[Event]) -> None:
        data = b"".join(_line(event) for event in batch)
        # A full disk costs the record of events, not the node.
        with suppress(OSError), self._path.open("ab") as file:
            if file.tell() and file.tell() + len(data) > self._max_size:
                self._path.replace(self._older)
                with self._path.open("wb") as fresh:
                    fresh.write(data)
            else:
                file.write(data)

    def _read(self, since: int, before: int) -> list[Event]:
        found = []
        for path in (self._older, self._path):
            with suppress(OSError), path.open("rb") as file:
                for line in file:
                    event = _event(line)
                    if event is not None and since <= event.time_ns < before:
                        found.append(event)
        return found

    @property
    def _older(self) -> Path:
        return self._path.with_name(f"{self._path.name}.1")


@asynccontextmanager
async def open_journal(path: Path) -> AsyncIterator[Journal]:
    """What was told inside the block is on disk when it ends."""
    journal = Journal(path)
    keeping = asyncio.create_task(journal.keep(), name="keep events")
    try:
        yield journal
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await journal.flush()


def _line(event: Event) -> bytes:
    values = [event.time_ns, event.type, event.action, event.actor_id, dict(event.attributes)]
    return json.dumps(values).encode() + b"\n"


def _event(line: bytes) -> Event | None:
    """None for a line that a kill tore."""
    try:
        time_ns, kind, action, actor, attributes = json.loads(line)
        return Event(kind, action, actor, attributes, time_ns) if isinstance(time_ns, int) else None
    except (ValueError, TypeError, RecursionError):
        return None
