"""Keys whose rows are gone: their bytes may go as soon as the transaction that wrote the tombstone is durable."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from storage.blobs.store import StorageKey
from storage.metadata.dialect import insert_or_ignore
from storage.metadata.engine import Transaction
from storage.metadata.tables import blobs, tombstones, uploads

BATCH = 500


async def bury(tx: Transaction, key: StorageKey, size: int, now: datetime) -> None:
    await tx.execute(insert_or_ignore(tx, tombstones, {"key": key, "size": size, "created": now}))


async def bury_all(tx: Transaction, sizes: Mapping[StorageKey, int], now: datetime) -> None:
    if sizes:
        await tx.execute(insert_or_ignore(tx, tombstones, None), [
            {"key": key, "size": size, "created": now} for key, size in sizes.items()])


async def buried(tx: Transaction, after: StorageKey, limit: int) -> Sequence[StorageKey]:
    """By key."""
    query = sa.select(tombstones.c.key).where(tombstones.c.key > after).order_by(tombstones.c.key).limit(limit)
    return [StorageKey(key) for key in await tx.scalars(query)]


async def clear(tx: Transaction, keys: Sequence[StorageKey]) -> None:
    """The bytes are gone."""
    for first in range(0, len(keys), BATCH):
        await tx.execute(sa.delete(tombstones).where(tombstones.c.key.in_(keys[first : first + BATCH])))


async def content(tx: Transaction, keys: Collection[StorageKey]) -> set[StorageKey]:
    """Those of `keys` that hold a blob."""
    found: set[StorageKey] = set()
    listed = list(keys)
    for first in range(0, len(listed), BATCH):
        some = listed[first : first + BATCH]
        found.update(map(StorageKey, await tx.scalars(sa.select(blobs.c.key).where(blobs.c.key.in_(some)))))
    return found


async def unclaimed(tx: Transaction, keys: Collection[StorageKey]) -> set[StorageKey]:
    """Those of `keys` that no blob, upload or tombstone names."""
    left = set(keys)
    listed = list(keys)
    for first in range(0, len(listed), BATCH):
        some = listed[first : first + BATCH]
        for table in (blobs, uploads, tombstones):
            claimed = await tx.scalars(sa.select(table.c.key).where(table.c.key.in_(some)))
            left.difference_update(map(StorageKey, claimed))
    return left
