"""What unfinished writes left beside bytes that are content by now: in a bucket, parts and tails take room.

Keys that nothing names are the sweep's own business. Those of uploads that go on are left alone.
"""

from datetime import datetime

from storage.blobs.store import BlobAdmin, Leftovers, StorageKey
from storage.gc.report import GcReport, Item
from storage.metadata import tombstones
from storage.metadata.engine import Database

BATCH = 500


async def tidy(database: Database, blobs: BlobAdmin, cutoff: datetime, report: GcReport) -> None:
    """Leaves alone what is younger than `cutoff`: a commit seals before its row says so."""
    if not isinstance(blobs, Leftovers):
        return
    found: dict[StorageKey, int] = {}
    async for stored in blobs.leftovers():
        if stored.modified < cutoff:
            found[stored.key] = found.get(stored.key, 0) + stored.size
        if len(found) >= BATCH:
            await _tidy(database, blobs, found, report)
            found = {}
    await _tidy(database, blobs, found, report)


async def _tidy(database: Database, blobs: Leftovers, found: dict[StorageKey, int], report: GcReport) -> None:
    async with database.read() as tx:
        sealed = await tombstones.content(tx, found)
    for key in sealed:
        if not report.dry_run:
            await blobs.tidy(key)
        report.remove(Item("bytes", "an unfinished write left them beside a blob", found[key], key=key))
