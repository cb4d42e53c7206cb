"""Who was pulled, and when: noted in memory, written in groups.

A pull costs one dictionary update. What was noted is written every `EVERY` seconds by `run` and at a clean end; kill -9
loses what came since (a count, and up to so many seconds of a last pull's time). "Last" is when the group was written,
so a retention that keeps what was pulled within a time errs on the side of keeping.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ocispec.digest import Digest
from ocispec.errors import SeawallError
from ocispec.reference import RepositoryName, Tag, parse_tag_or_digest
from storage.events import Action, Event, Origin
from storage.metadata import events
from storage.metadata import pulls as rows
from storage.metadata.engine import Database

log = logging.getLogger(__name__)

EVERY = 10.0
MOST = 20_000
"""References in memory (about 4 MB); those that come when it is full, before the next writing, are not counted."""

GROUP = 500
"""References one transaction writes: the writer lock is held for a few milliseconds."""

Key = tuple[str, str]
"""Repository and reference."""


def key(repo: RepositoryName, reference: Tag | Digest) -> Key:
    return repo.value, reference.value if isinstance(reference, Tag) else str(reference)


class Pulls:
    """For one event loop."""

    def __init__(self, database: Database, *, tell: bool = False) -> None:
        """`tell`: the event log hears of them as well."""
        self.database = database
        self._tell = tell
        self._counts: dict[Key, int] = {}
        self._full = asyncio.Event()

    def note(self, repo: RepositoryName, reference: Tag | Digest) -> None:
        """It was pulled, now."""
        self.count(key(repo, reference))

    def count(self, pulled: Key) -> None:
        """`note` for those who made the key before: 0.1 µs."""
        counts = self._counts
        if pulled in counts:
            counts[pulled] += 1
        elif len(counts) < MOST:
            counts[pulled] = 1
        else:
            self._full.set()

    async def flush(self) -> None:
        """Write down what was noted. What cannot be written now is kept for the next time."""
        noted, self._counts = self._counts, {}
        self._full.clear()
        listed = list(noted.items())
        written = 0
        try:
            while written < len(listed):
                group = dict(listed[written : written + GROUP])
                async with self.database.write() as tx:
                    await rows.add(tx, group, self.database.now())
                    if self._tell:
                        await events.record_all(tx, map(_event, group.items()), self.database.now())
                written += GROUP
        except SeawallError as error:
            log.warning("pulls are not written down yet: %s", error.message)
        finally:
            for pulled, times in listed[written:]:
                self._counts[pulled] = self._counts.get(pulled, 0) + times

    @asynccontextmanager
    async def flushing(self, every: float = EVERY) -> AsyncIterator[None]:
        """Writes down what is noted during the block, and at its end."""
        running = asyncio.create_task(self._run(every))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])
            await self.flush()

    async def _run(self, every: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), every)
            await self.flush()


def _event(noted: tuple[Key, int]) -> Event:
    """Of nobody: who pulled is not kept, because thousands do."""
    (repo, reference), times = noted
    named = parse_tag_or_digest(reference)
    digest, tag = (named, None) if isinstance(named, Digest) else (None, named)
    return Event(Action.MANIFEST_PULL, Origin("", ""), RepositoryName(repo), digest, tag, detail={"count": times})
