"""Blobs that no repository has, and bytes that no row names."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from ocispec.errors import SeawallError
from storage.blobs.store import BlobAdmin, StorageKey
from storage.gc.leftovers import tidy
from storage.gc.report import GcReport, Item
from storage.gc.review import holding
from storage.metadata import garbage, leases, tombstones
from storage.metadata.blobs import BlobInfo
from storage.metadata.engine import Database

BLOBS = 100
BATCH = 500
AT_ONCE = 8
"""Deletions that run at the same time: on a remote store each is a round trip."""

ORPHAN_AGE = timedelta(hours=1)
"""Bytes younger than this are never orphans, whatever the grace: an upload writes before its row names the key."""


class Bytes:
    """`orphan_age`: see `ORPHAN_AGE`; shorter ages are for tests whose uploads take no time."""

    def __init__(self, database: Database, blobs: BlobAdmin, orphan_age: timedelta) -> None:
        self._database = database
        self._blobs = blobs
        self._orphan_age = orphan_age

    async def reviewed(self, grace: timedelta, report: GcReport) -> None:
        """Bury the blobs that lost their last place in a repository."""
        # One moment for all batches, and what is postponed lies behind it: or without a grace, a leased blob would be
        # looked at again and again.
        now = self._database.now()
        cutoff = now - grace
        later = cutoff + timedelta(microseconds=1)
        while True:
            async with self._database.read() as tx:
                if not await garbage.any_candidate(tx, cutoff):
                    return
            async with holding(self._database, report) as tx:
                found = await garbage.candidates(tx, cutoff, now, BLOBS)
                loose = [item for item in found if not item.held]
                dead = [item for item in loose if not item.leased and item.touched < cutoff]
                await garbage.settle(tx, [item.id for item in found if item.held])
                await garbage.postpone(tx, {item.id: max(later, now if item.leased else item.touched)
                                            for item in loose if item.leased or item.touched >= cutoff})
                await tombstones.bury_all(tx, {item.info.key: item.info.size for item in dead}, now)
                await garbage.delete_blobs(tx, [item.id for item in dead])
            _record(report, [item.info for item in dead])

    async def find_unlinked(self, grace: timedelta) -> None:
        """Have every blob looked at that no repository has, also those that nobody marked."""
        after = 0
        while True:
            now = self._database.now()
            async with self._database.read() as tx:
                found = await garbage.unlinked(tx, now - grace, now, after, BATCH)
            if not found:
                return
            after = found[-1][0]
            async with self._database.write() as tx:
                await leases.drop_expired(tx, now)
                await garbage.review(tx, [number for number, _ in found])

    async def would_remove(self, grace: timedelta, report: GcReport) -> None:
        links = Counter(item.digest for item in report.removed if item.kind == "membership" and item.digest)
        now = self._database.now()
        async with self._database.read() as tx:
            found = [info for _, info in await garbage.unlinked(tx, now - grace, now, 0, None)]
            found += await garbage.linked_only_by(tx, dict(links), now - grace, now)
        _record(report, found)

    async def finish_tombstones(self) -> None:
        """Raises the first failure of the store, after everything else was tried."""
        after, failure = StorageKey(""), None
        while True:
            async with self._database.read() as tx:
                keys = await tombstones.buried(tx, after, BATCH)
            if not keys:
                break
            after = keys[-1]
            results = await self._delete(keys)
            failure = failure or next(filter(None, results), None)
            async with self._database.write() as tx:
                await tombstones.clear(tx, [key for key, error in zip(keys, results, strict=True) if error is None])
        if failure is not None:
            raise failure

    async def _delete(self, keys: Iterable[StorageKey]) -> list[SeawallError | None]:
        slots = asyncio.Semaphore(AT_ONCE)

        async def delete(key: StorageKey) -> SeawallError | None:
            async with slots:
                try:
                    await self._blobs.delete(key)
                except SeawallError as error:
                    return error
            return None

        return await asyncio.gather(*map(delete, keys))

    async def strays(self, grace: timedelta, report: GcReport) -> None:
        """Bytes that no row names, and what unfinished writes left beside others. Lists the whole store."""
        cutoff = self._database.now() - max(grace, self._orphan_age)
        await self._orphans(cutoff, report)
        await tidy(self._database, self._blobs, cutoff, report)

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
            report.remove(Item("bytes", "no row names them (a crash left them)", found[key], key=key))


def _record(report: GcReport, found: Iterable[BlobInfo]) -> None:
    for blob in found:
        report.remove(Item("blob", "part of no repository", blob.size, digest=blob.digest, key=blob.key))
