"""One collection: repository by repository, then blobs that none holds, then bytes that no row names."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from storage.blobs.store import BlobAdmin, StorageKey
from storage.gc.leftovers import tidy
from storage.gc.mark import Marked, Rules, mark
from storage.gc.report import GcReport, Item
from storage.metadata import garbage, leases, repositories, tombstones
from storage.metadata.blobs import BlobInfo
from storage.metadata.engine import Database, Transaction
from storage.metadata.garbage import RepositoryContent

BATCH = 500
ORPHAN_AGE = timedelta(hours=1)
"""Bytes younger than this are never orphans, whatever the grace: an upload writes before its row names the key."""


class Collector:
    """Removes what nobody needs. May run beside everything else and beside another collector.

    `keep_untagged`: an untagged manifest lives as long as it is pinned (a node: pulled by digest). Otherwise it lives
    for the grace (a registry).
    """

    def __init__(self, database: Database, blobs: BlobAdmin, *, keep_untagged: bool = False) -> None:
        self._database = database
        self._blobs = blobs
        self._keep_untagged = keep_untagged

    async def run(self, *, dry_run: bool = False, grace: timedelta) -> GcReport:
        """Whatever was touched within `grace` lives. A store that clients push to needs a grace longer than
        `ContentSettings.touch_every`; zero is for stores whose every user holds a lease."""
        report = GcReport(dry_run)
        cutoff = self._database.now() - grace
        async with self._database.read() as tx:
            numbers = await repositories.all_ids(tx)
        for number in numbers:
            await self._repository(number, cutoff, report)
        if dry_run:
            await self._would_remove_blobs(cutoff, report)
        else:
            await self._remove_blobs(cutoff, report)
            await self._finish_tombstones()
        old = self._database.now() - max(grace, ORPHAN_AGE)
        await self._orphans(old, report)
        await tidy(self._database, self._blobs, old, report)
        return report

    async def _repository(self, number: int, cutoff: datetime, report: GcReport) -> None:
        async with self._database.read() as tx:
            content, marked = await self._mark(tx, number, cutoff)
        if (marked.dead_manifests or marked.dead_blobs) and not report.dry_run:
            # Marked again inside the transaction that deletes: since the first look a tag, an index or a lease may
            # have come. The first look keeps repositories without garbage, which are most, from the write lock.
            async with self._database.write() as tx:
                content, marked = await self._mark(tx, number, cutoff)
                await garbage.delete_manifests(tx, number, marked.dead_manifests)
                await garbage.unlink(tx, number, marked.dead_blobs)
                if marked.dead_manifests or marked.dead_blobs:
                    await repositories.outdate(tx, number)
        _record(content, marked, report)

    async def _mark(self, tx: Transaction, number: int, cutoff: datetime) -> tuple[RepositoryContent, Marked]:
        leased = await leases.leased(tx, self._database.now())
        content = await garbage.content(tx, number)
        # In a thread: a repository of many thousand manifests takes longer than the event loop should be away.
        return content, await asyncio.to_thread(mark, content, Rules(cutoff, leased, self._keep_untagged))

    async def _remove_blobs(self, cutoff: datetime, report: GcReport) -> None:
        while True:
            now = self._database.now()
            async with self._database.write() as tx:
                await leases.drop_expired(tx, now)
                found = await garbage.unlinked(tx, cutoff, now, BATCH)
                for blob in found:
                    await tombstones.bury(tx, blob.key, blob.size, now)
                await garbage.delete_blobs(tx, [blob.digest for blob in found])
            report.removed += _blobs(found)
            if not found:
                return

    async def _would_remove_blobs(self, cutoff: datetime, report: GcReport) -> None:
        links = Counter(item.digest for item in report.removed if item.kind == "membership" and item.digest)
        now = self._database.now()
        async with self._database.read() as tx:
            found = [*await garbage.unlinked(tx, cutoff, now, None),
                     *await garbage.linked_only_by(tx, dict(links), cutoff, now)]
        report.removed += _blobs(found)

    async def _finish_tombstones(self) -> None:
        async with self._database.read() as tx:
            keys = await tombstones.buried(tx)
        for first in range(0, len(keys), BATCH):
            some = keys[first : first + BATCH]
            for key in some:
                await self._blobs.delete(key)
            async with self._database.write() as tx:
                await tombstones.clear(tx, some)

    async def _orphans(self, cutoff: datetime, report: GcReport) -> None:
        found: dict[StorageKey, int] = {}
        async for stored in self._blobs.list():
            if stored.modified < cutoff:
                found[stored.key] = stored.size
            if len(found) >= BATCH:
                await self._remove_orphans(found, report)
                found = {}
        await self._remove_orphans(found, report)

    async def _remove_orphans(self, found: dict[StorageKey, int], report: GcReport) -> None:
        async with self._database.read() as tx:
            orphans = await tombstones.unclaimed(tx, found)
        for key in orphans:
            if not report.dry_run:
                await self._blobs.delete(key)
            report.removed.append(Item("bytes", "no row names them (a crash left them)", found[key], key=key))


def _blobs(found: Iterable[BlobInfo]) -> Sequence[Item]:
    return [Item("blob", "part of no repository", blob.size, digest=blob.digest, key=blob.key) for blob in found]


def _record(content: RepositoryContent, marked: Marked, report: GcReport) -> None:
    for manifest in content.manifests:
        verdict = marked.manifests[manifest.digest]
        _count(Item("manifest", verdict.why, manifest.size, content.name, manifest.digest), verdict.lives, report)
    for blob in content.blobs:
        verdict = marked.blobs[blob.digest]
        _count(Item("membership", verdict.why, blob.size, content.name, blob.digest), verdict.lives, report)


def _count(item: Item, lives: bool, report: GcReport) -> None:
    if not lives:
        report.removed.append(item)
        return
    report.kept += 1
    if report.dry_run:
        report.lives.append(item)
