"""Blobs of a repository."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.blobs.store import BlobReader, LocalFiles, Presigner
from storage.errors import BlobUnknown
from storage.events import Action, Event, Origin
from storage.metadata import blobs as rows
from storage.metadata import events, repositories
from storage.metadata.blobs import BlobInfo, BlobRow
from storage.metadata.engine import Database, Transaction, retried
from storage.repository.cache import Cache
from storage.repository.touches import Touches
from storage.rules.quotas import Quotas
from storage.rules.service import Rules
from storage.settings import ContentSettings

CACHE_SHARE = 8  # a blob's entry is small: an eighth of the manifests' memory holds many


@dataclass(frozen=True, slots=True)
class _Known:
    info: BlobInfo
    touched: datetime


class RepositoryBlobs:
    """A blob is reached through a repository that it is part of, and through no other."""

    def __init__(self, database: Database, blobs: BlobReader, settings: ContentSettings, rules: Rules) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._quotas = Quotas(rules)
        self._cache: Cache[_Known] = Cache(
            database.changes, settings.cache_bytes // CACHE_SHARE, database.observer.tally("cache.blobs.hit"),
            database.observer.tally("cache.blobs.miss"))
        self._touches = Touches(database, rows.touch_rows)

    async def stat(self, repo: RepositoryName, digest: Digest) -> BlobInfo:
        """Raises BlobUnknown. Whoever is answered may rely on the blob for a while (see `touches`)."""
        key = (repo.value, digest.encoded)
        known = self._cache.get(key)
        if known is not None and self._database.now() - known.touched < self._settings.touch_every:
            return known.info
        begun = self._cache.begin(key)
        row = await self._find(repo, digest)
        if self._database.now() - row.touched >= self._settings.touch_every:
            await self._touches.add(row.id)
            # The collector may have been faster than the touch; and where that failed, the next one asks again.
            row = await self._find(repo, digest)
        self._cache.put(key, _Known(row.info, row.touched), len(digest.encoded), begun)
        return row.info

    def read(self, info: BlobInfo, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Chunks of at most 1 MiB. Raises BytesMissing when the blob was collected since `stat`."""
        return self._blobs.read(info.key, start, length)

    def local_path(self, info: BlobInfo) -> Path | None:
        """The file that holds the bytes; None when the store is not on this machine."""
        return self._blobs.path(info.key) if isinstance(self._blobs, LocalFiles) else None

    async def redirect(self, info: BlobInfo, content_type: str) -> str | None:
        """Where a client may read the bytes without us; None when settings or store do not let it."""
        expires = self._settings.redirect_for
        if expires is None or not isinstance(self._blobs, Presigner):
            return None
        return await self._blobs.url(info.key, expires=expires, content_type=content_type)

    @retried
    async def mount(self, repo: RepositoryName, digest: Digest, source: RepositoryName, *,
                    origin: Origin | None = None) -> BlobInfo | None:
        """Make a blob of `source` part of `repo`. None: it is not there; the client then uploads. Raises
        QuotaExceeded."""
        async with self._database.write(beside=True) as tx:
            await self._quotas.claim(tx, repo)
            row = await rows.find_in(tx, source, digest)
            if row is None:
                return None
            if origin is not None:
                await events.record(tx, Event(Action.BLOB_MOUNT, origin, repo, digest, size=row.info.size,
                                              detail={"from": str(source)}), self._database.now())
            return await self._link(tx, repo, row)

    async def holders(self, digest: Digest, limit: int) -> Sequence[RepositoryName]:
        """Repositories that the blob is part of, at most `limit` of them, those that had it first before others. For
        whoever then asks what the caller may pull: that a blob exists is itself a secret."""
        async with self._database.read() as tx:
            return await rows.holders(tx, digest, limit)

    @retried
    async def link(self, repo: RepositoryName, digest: Digest) -> BlobInfo:
        """Make a blob that is held, in whatever repository, part of `repo`. Raises BlobUnknown, QuotaExceeded."""
        async with self._database.write(beside=True) as tx:
            await self._quotas.claim(tx, repo)
            row = await rows.find(tx, digest)
            if row is None:
                raise BlobUnknown(digest)
            return await self._link(tx, repo, row)

    async def has_any(self, digest: Digest) -> BlobInfo | None:
        """The blob, in whatever repository. It is not promised to stay: hold a lease on it first."""
        async with self._database.read() as tx:
            row = await rows.find(tx, digest)
        return row.info if row else None

    @retried
    async def delete(self, repo: RepositoryName, digest: Digest, *, origin: Origin | None = None) -> None:
        """Take it out of this repository alone; its bytes go when no repository has it. Raises BlobUnknown."""
        async with self._database.write(beside=True, about=repo.value) as tx:
            await self._quotas.claim(tx, repo)
            repository = await repositories.lock(tx, repo)
            blob = None if repository is None else await rows.unlink(tx, repository, digest)
            if repository is None or blob is None:
                raise BlobUnknown(digest)
            await self._quotas.blobs_gone(tx, repo, {blob.id: blob.info.size})
            await repositories.outdate(tx, repository)
            if origin is not None:
                await events.record(tx, Event(Action.BLOB_DELETE, origin, repo, digest), self._database.now())

    async def _find(self, repo: RepositoryName, digest: Digest) -> BlobRow:
        async with self._database.read() as tx:
            row = await rows.find_in(tx, repo, digest)
        if row is None:
            raise BlobUnknown(digest)
        return row

    async def _link(self, tx: Transaction, repo: RepositoryName, row: BlobRow) -> BlobInfo:
        now = self._database.now()
        await self._quotas.blob(tx, repo, row.id, row.info.size)
        await rows.link(tx, await repositories.ensure(tx, repo, now), row, now)
        return row.info
