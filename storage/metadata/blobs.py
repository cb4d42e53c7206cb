"""Blobs: which key holds a digest, and which repositories it is part of."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.blobs.store import StorageKey
from storage.metadata import repositories as repository_rows
from storage.metadata import tombstones
from storage.metadata.dialect import insert_or_ignore, locked
from storage.metadata.engine import Transaction
from storage.metadata.tables import EPOCH, blob_reviews, blobs, repositories, repository_blobs

T = TypeVar("T")

A_MOMENT = timedelta(minutes=1)
"""Far below every grace of a collector."""

BATCH = 500  # bound parameters a statement; SQLite's floor is 999


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A stored blob: `key` says where its `size` bytes lie."""

    digest: Digest
    size: int
    key: StorageKey


@dataclass(frozen=True, slots=True)
class BlobRow:
    id: int
    info: BlobInfo
    touched: datetime


async def find(tx: Transaction, digest: Digest) -> BlobRow | None:
    """In any repository, or in none yet."""
    return await _first(tx, sa.select(*_COLUMNS).where(blobs.c.digest == digest, _SOUND))


async def find_in(tx: Transaction, name: RepositoryName, digest: Digest) -> BlobRow | None:
    query = (sa.select(*_COLUMNS).join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
             .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
             .where(blobs.c.digest == digest, repositories.c.name == name.value, _SOUND))
    return await _first(tx, query)


async def holders(tx: Transaction, digest: Digest, limit: int | None = None) -> Sequence[RepositoryName]:
    """Repositories that the blob is part of, the oldest first."""
    query = (sa.select(repositories.c.name)
             .join(repository_blobs, repository_blobs.c.repository_id == repositories.c.id)
             .join(blobs, blobs.c.id == repository_blobs.c.blob_id)
             .where(blobs.c.digest == digest).order_by(repositories.c.id).limit(limit))
    return [RepositoryName(name) for name in await tx.scalars(query)]


async def insert(tx: Transaction, info: BlobInfo, now: datetime, *, lost: StorageKey | None = None) -> BlobRow:
    """The row that holds `info.digest` afterwards: another key than `info.key` means that it was stored already.

    A row that is quarantined, or whose key is `lost` (its bytes are gone), is healed: it takes our key, in every
    repository that has the blob.
    """
    await tx.execute(insert_or_ignore(tx, blobs, {
        "digest": info.digest, "key": info.key, "size": info.size, "created": now, "touched": now}))
    query = sa.select(*_COLUMNS, blobs.c.quarantined).where(blobs.c.digest == info.digest)
    row = (await tx.execute(query)).first()
    assert row is not None
    found = _row(row)
    if found.info.key == info.key or (row.quarantined is None and found.info.key != lost):
        return found
    await tombstones.bury(tx, found.info.key, found.info.size, now)
    await tx.execute(sa.update(blobs).where(blobs.c.id == found.id).values(
        key=info.key, size=info.size, touched=now, verified=None, quarantined=None))
    await outdate_holders(tx, found.id)
    return BlobRow(found.id, info, now)


async def outdate_holders(tx: Transaction, blob: int) -> None:
    """What processes remember of the blob, in whatever repository, stops being true."""
    holders = sa.select(repository_blobs.c.repository_id).where(repository_blobs.c.blob_id == blob)
    for repository in (await tx.scalars(holders)).all():
        await repository_rows.outdate(tx, repository, since=None)


async def link(tx: Transaction, repository: int, blob: BlobRow, now: datetime) -> None:
    """Make the blob part of the repository, and believe it wanted from now on."""
    linked = await tx.execute(insert_or_ignore(tx, repository_blobs, {
        "repository_id": repository, "blob_id": blob.id, "linked": now}))
    if linked.rowcount:
        await tx.execute(sa.update(repositories).where(repositories.c.id == repository, repositories.c.dirty.is_(None))
                         .values(dirty=now))
    if blob.touched != now:  # else it was made just now
        await tx.execute(sa.update(blobs).where(blobs.c.id == blob.id).values(touched=now))


async def unlink(tx: Transaction, repository: int, digest: Digest) -> BlobRow | None:
    """The blob, if it was part of the repository; it may be part of none now."""
    query = (sa.select(*_COLUMNS).join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
             .where(blobs.c.digest == digest, repository_blobs.c.repository_id == repository))
    blob = await _first(tx, query)
    if blob is not None:
        await unlink_rows(tx, repository, [blob.id])
    return blob


async def unlink_rows(tx: Transaction, repository: int, numbers: Collection[int]) -> None:
    """Take blobs out of a repository; whether another has them is then to be looked at."""
    for some in batches(numbers):
        await tx.execute(sa.delete(repository_blobs).where(repository_blobs.c.repository_id == repository,
                                                           repository_blobs.c.blob_id.in_(some)))
        await tx.execute(insert_or_ignore(tx, blob_reviews, None), [
            {"blob_id": number, "since": EPOCH} for number in some])


async def touch(tx: Transaction, digests: Collection[Digest], now: datetime) -> None:
    """For a manifest that names them and so keeps them by itself: not again what was touched a moment ago. A base
    layer that every push names would be a row that all of them wait for."""
    stale = now if tx.dialect.name == "sqlite" else now - A_MOMENT  # one writer waits for no row
    for some in batches(sorted(digests, key=str)):
        await touch_where(tx, blobs, sa.and_(blobs.c.digest.in_(some), blobs.c.touched < stale), now)


async def touch_rows(tx: Transaction, numbers: Collection[int], now: datetime) -> None:
    for some in batches(sorted(numbers)):
        await touch_where(tx, blobs, blobs.c.id.in_(some), now)


async def touch_where(tx: Transaction, table: sa.Table, where: sa.ColumnElement[bool], now: datetime) -> None:
    """Takes the rows in the order of their ids: two transactions that touch the same ones must not each wait for the
    other."""
    rows = locked(tx, sa.select(table.c.id).where(where).order_by(table.c.id))
    await tx.execute(sa.update(table).where(table.c.id.in_(rows)).values(touched=now))


async def sizes_in(tx: Transaction, repository: int, digests: Collection[Digest]) -> dict[Digest, int]:
    """Sizes of those `digests` that are blobs of the repository."""
    found: dict[Digest, int] = {}
    for some in batches(digests):
        query = (sa.select(blobs.c.digest, blobs.c.size)
                 .join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
                 .where(repository_blobs.c.repository_id == repository, blobs.c.digest.in_(some), _SOUND))
        found.update((row[0], row[1]) for row in await tx.execute(query))
    return found


def batches(values: Collection[T]) -> Iterator[Sequence[T]]:
    """What one statement binds at a time."""
    listed = list(values)
    for first in range(0, len(listed), BATCH):
        yield listed[first : first + BATCH]


_SOUND = blobs.c.quarantined.is_(None)
_COLUMNS = (blobs.c.id, blobs.c.digest, blobs.c.size, blobs.c.key, blobs.c.touched)


async def _first(tx: Transaction, query: sa.Select[Any]) -> BlobRow | None:
    row = (await tx.execute(query)).first()
    return None if row is None else _row(row)


def _row(row: Any) -> BlobRow:
    number, digest, size, key, touched = row[:5]
    return BlobRow(number, BlobInfo(digest, size, StorageKey(key)), touched)
