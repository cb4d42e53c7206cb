"""Collecting: a turn for what changed, a pass over everything as a safety net.

A turn costs what changed since the last: repositories marked as dirty (`metadata.repositories`), blobs that lost a
place, tombstones. A pass looks at every repository, finds what nobody marked (content of an earlier version, a lost
mark), and lists the store for bytes that no row names. Both hold the writer lock for a few rows at a time.
"""

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from ocispec.errors import SeawallError
from storage.blobs.store import BlobAdmin
from storage.gc.bytes import ORPHAN_AGE, Bytes
from storage.gc.report import GcReport, GcStats
from storage.gc.review import Reviewer
from storage.metadata import pulls, repositories, reviews
from storage.metadata.engine import Database
from storage.rules.service import Rules

log = logging.getLogger(__name__)

TAKEN = 50
"""Repositories that are taken by one transaction."""

REST = 20
"""A repository whose review took t is not reviewed again within 20 t: one of 100,000 manifests in which somebody
deletes all the time shall not keep a core busy."""

LONG = 0.5
"""Seconds; shorter reviews need no rest."""


class Collector:
    """Removes what nobody needs. May run beside everything else and beside another collector.

    `keep_untagged`: an untagged manifest lives as long as it is pinned (a node: pulled by digest). Otherwise it lives
    for the grace (a registry). Rules may say otherwise for a repository. `stats` are this object's own.
    """

    def __init__(self, database: Database, blobs: BlobAdmin, *, keep_untagged: bool = False,
                 rules: Rules | None = None, orphan_age: timedelta = ORPHAN_AGE) -> None:
        self._database = database
        self._reviewer = Reviewer(database, rules or Rules(database), keep_untagged=keep_untagged)
        self._bytes = Bytes(database, blobs, orphan_age)
        self._resting: dict[int, float] = {}
        self.stats = GcStats()

    async def run(self, *, dry_run: bool = False, grace: timedelta, detailed: bool = True) -> GcReport:
        """A pass. Whatever was touched within `grace` lives. A store that clients push to needs a grace longer than
        `ContentSettings.touch_every`; zero is for stores whose every user holds a lease."""
        report, began = GcReport(dry_run, detailed), time.perf_counter()
        async with self._database.read() as tx:
            numbers = await repositories.all_ids(tx)
        for first in range(0, len(numbers), TAKEN):
            await self._review(numbers[first : first + TAKEN], grace, report)
            if not dry_run:
                await self._forget_pulls(numbers[first : first + TAKEN])
        if dry_run:
            await self._bytes.would_remove(grace, report)
        else:
            await self._bytes.find_unlinked(grace)
            await self._bytes.reviewed(grace, report)
            await self._bytes.finish_tombstones()
        await self._bytes.strays(grace, report)
        if not dry_run:
            self.stats.passes += 1
            self.stats.add(report, time.perf_counter() - began, self._database.now())
        return report

    async def _forget_pulls(self, numbers: Sequence[int]) -> None:
        async with self._database.read() as tx:
            stale = [number for number in numbers if await pulls.stale(tx, number)]
        for number in stale:
            async with self._database.write() as tx:
                await pulls.forget(tx, number)

    async def turn(self, *, grace: timedelta, detailed: bool = False) -> GcReport:
        """What changed and is a grace old."""
        report, began = GcReport(detailed=detailed), time.perf_counter()
        # Those that a dead collector took come first, and once: what fails again waits for the next turn.
        async with self._database.read() as tx:
            left = await reviews.unfinished(tx, TAKEN)
        await self._review(left, grace, report)
        while numbers := await self._take(grace):
            await self._review(numbers, grace, report)
        await self._bytes.reviewed(grace, report)
        await self._bytes.finish_tombstones()
        async with self._database.read() as tx:
            self.stats.waiting = await reviews.waiting(tx)
        self.stats.turns += 1
        self.stats.add(report, time.perf_counter() - began, self._database.now())
        return report

    async def _take(self, grace: timedelta) -> Sequence[int]:
        now = time.monotonic()
        self._resting = {number: until for number, until in self._resting.items() if until > now}
        cutoff = self._database.now() - grace
        async with self._database.read() as tx:
            due = await reviews.due(tx, cutoff, TAKEN + len(self._resting))
        numbers = [number for number in due if number not in self._resting][:TAKEN]
        if numbers:
            async with self._database.write() as tx:
                await reviews.take(tx, numbers)
        return numbers

    async def _review(self, numbers: Sequence[int], grace: timedelta, report: GcReport) -> None:
        looks: dict[int, datetime | None] = {}
        for number in numbers:
            began = time.monotonic()
            try:
                looks[number] = await self._reviewer.review(number, grace, report)
            except SeawallError:
                raise  # the database is away: those that were taken stay so, and are looked at again
            except Exception:
                self.stats.failures += 1
                log.exception("repository %d cannot be collected", number)  # the others can
            took = time.monotonic() - began
            if took > LONG:
                self._resting[number] = began + took * (1 + REST)
        if looks and not report.dry_run:
            async with self._database.write() as tx:
                await reviews.finish(tx, looks)
