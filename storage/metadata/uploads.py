"""Upload sessions: where the bytes go and how many of them are durable."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.blobs.store import StorageKey
from storage.metadata.engine import Transaction
from storage.metadata.tables import repositories, uploads


@dataclass(frozen=True, slots=True)
class UploadRow:
    """`key` is None until something durable has arrived; `offset` is in bytes. `digest`, when it is known, is that of
    the first `offset` bytes, by `algorithm`. `mark` is the store's (see BlobWriter); `writer` the claim of a process
    that writes, or died while it did; `owner` who began it, empty for nobody in particular; `state` that of the hash
    whose digest `digest` is."""

    id: str
    repository_id: int
    repository: RepositoryName
    key: StorageKey | None
    algorithm: str
    offset: int
    digest: Digest | None = None
    mark: str = ""
    writer: str | None = None
    owner: str = ""
    state: bytes | None = None


async def insert(tx: Transaction, row: UploadRow, now: datetime) -> None:
    await tx.execute(sa.insert(uploads).values(
        id=row.id, repository_id=row.repository_id, key=row.key, algorithm=row.algorithm, offset=row.offset,
        started=now, touched=now, owner=row.owner or None))


async def find(tx: Transaction, name: RepositoryName, upload_id: str) -> UploadRow | None:
    """Only through the repository it was begun in."""
    found = await _rows(tx, sa.and_(uploads.c.id == upload_id, repositories.c.name == name.value))
    return found[0] if found else None


async def advance(tx: Transaction, row: UploadRow, after: UploadRow, now: datetime) -> bool:
    """Record that the session is as `after` says. False when the row is no longer as `row` says."""
    changed = await tx.execute(sa.update(uploads).where(_unchanged(row)).values(
        key=after.key, offset=after.offset, digest=after.digest, mark=after.mark, writer=after.writer,
        state=after.state, touched=now))
    return changed.rowcount > 0


async def delete(tx: Transaction, row: UploadRow, *, idle_since: datetime | None = None) -> bool:
    """False when the row is no longer as `row` says, or, where that is given, somebody added to it since."""
    idle = sa.true() if idle_since is None else uploads.c.touched < idle_since
    return (await tx.execute(sa.delete(uploads).where(_unchanged(row), idle))).rowcount > 0


async def count(tx: Transaction) -> int:
    return await tx.scalar(sa.select(sa.func.count()).select_from(uploads)) or 0


async def idle_since(tx: Transaction, cutoff: datetime) -> Sequence[UploadRow]:
    return await _rows(tx, uploads.c.touched < cutoff)


async def of_owner(tx: Transaction, owner: str) -> Sequence[UploadRow]:
    return await _rows(tx, uploads.c.owner == owner)


def _unchanged(row: UploadRow) -> sa.ColumnElement[bool]:
    key = uploads.c.key.is_(None) if row.key is None else uploads.c.key == row.key
    writer = uploads.c.writer.is_(None) if row.writer is None else uploads.c.writer == row.writer
    return sa.and_(uploads.c.id == row.id, uploads.c.offset == row.offset, key, writer)


async def _rows(tx: Transaction, where: sa.ColumnElement[bool]) -> list[UploadRow]:
    query = (sa.select(uploads.c.id, uploads.c.repository_id, repositories.c.name, uploads.c.key,
                       uploads.c.algorithm, uploads.c.offset, uploads.c.digest, uploads.c.mark, uploads.c.writer,
                       uploads.c.owner, uploads.c.state)
             .join(repositories, repositories.c.id == uploads.c.repository_id).where(where))
    return [UploadRow(row[0], row[1], RepositoryName(row[2]), StorageKey(row[3]) if row[3] else None, row[4], row[5],
                      row[6], row[7], row[8], row[9] or "", row[10])
            for row in await tx.execute(query)]
