"""The session itself.

What is durable, and in which order:

1. bytes are written to a private key that no row of `blobs` names;
2. a checkpoint makes them durable, then moves the row's offset to them (`advance`, conditional on the offset that it
   started from, so that of two writers only one gets on);
3. commit hashes, seals (file and folder durable), then one transaction makes the blob and link and drops the session.

Killed between any two: bytes beyond the row's offset are cut off by the next append; a key without a row is removed
by the collector; a sealed key whose commit did not happen is committed by the next attempt.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from ocispec.digest import Digest, new_hasher
from ocispec.errors import SeawallError
from ocispec.reference import RepositoryName
from storage.blobs.store import BlobStore, BlobWriter, BytesMissing, KeyBusy, KeySealed, StorageKey
from storage.errors import DigestMismatch, StoreFull
from storage.events import Action, Event, Origin
from storage.metadata import blobs as blob_rows
from storage.metadata import events, repositories, tombstones
from storage.metadata import uploads as rows
from storage.metadata.blobs import BlobInfo
from storage.metadata.engine import Database, retried
from storage.metadata.uploads import UploadRow
from storage.rules.quotas import Quotas
from storage.rules.refusals import QuotaExceeded
from storage.settings import ContentSettings
from storage.uploads.batch import Shares
from storage.uploads.errors import OffsetMismatch, UploadBusy, UploadUnknown
from storage.uploads.hashing import HashCache, Hashed
from storage.uploads.pipeline import Pipeline

ID_LENGTH = 36


class _HeldAlready(Exception):
    """Another key than the upload's holds the content."""

    def __init__(self, info: BlobInfo) -> None:
        self.info = info


class Uploads:
    """Begins sessions and finds them again."""

    def __init__(self, database: Database, blobs: BlobStore, settings: ContentSettings, quotas: Quotas) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._quotas = quotas
        self._hashes = HashCache()
        self._shares = Shares(settings.upload_memory, settings.upload_batch)
        self._busy: set[str] = set()

    async def start(self, repo: RepositoryName, algorithm: str = "sha256", *, owner: str = "") -> "Upload":
        """A new session; `algorithm` is the one its bytes are hashed with as they come, `owner` the one who may go on
        with it (see `get`). Raises InvalidDigest, and QuotaExceeded when not one byte more may be kept."""
        new_hasher(algorithm)
        now = self._database.now()
        async with self._database.write(beside=True) as tx:
            await self._quotas.room(tx, repo, 1)
            repository = await repositories.ensure(tx, repo, now)
            row = UploadRow(str(uuid.uuid4()), repository, repo, None, algorithm, 0, owner=owner)
            await rows.insert(tx, row, now)
        return self._upload(row)

    async def get(self, repo: RepositoryName, upload_id: str, *, owner: str = "") -> "Upload":
        """Raises UploadUnknown, also for a session of another repository or another owner: knowing an id is not
        enough to write into somebody's upload (Quay's CVE-2026-32589)."""
        row = None
        if len(upload_id) == ID_LENGTH:
            async with self._database.read() as tx:
                row = await rows.find(tx, repo, upload_id)
        if row is None or row.owner != owner:
            raise UploadUnknown(upload_id)
        return self._upload(row)

    async def expire(self, older_than: timedelta) -> int:
        """Abort the sessions that nothing was added to for so long; gives how many."""
        cutoff = self._database.now() - older_than
        async with self._database.read() as tx:
            idle = await rows.idle_since(tx, cutoff)
        expired = 0
        for row in idle:
            with contextlib.suppress(UploadUnknown, UploadBusy):
                await self._upload(row).abort(idle_since=cutoff)
                expired += 1
        return expired

    async def drop(self, owner: str) -> int:
        """Abort every session of this owner; gives how many. For an owner that never goes on with one."""
        async with self._database.read() as tx:
            held = await rows.of_owner(tx, owner)
        for row in held:
            with contextlib.suppress(UploadUnknown, UploadBusy):
                await self._upload(row).abort()
        return len(held)

    def _upload(self, row: UploadRow) -> "Upload":
        return Upload(self._database, self._blobs, self._settings, self._quotas, self._hashes, self._shares,
                      self._busy, row)


class Upload:
    """One session as a request sees it. `offset` is what is durable, in bytes.

    One writer at a time: within the process `_busy` says so, between processes the key's lock and the conditional
    update of the row. Every method raises UploadBusy then, and UploadUnknown when the session is over.

    A bucket has no locks. Where the writer's mark says so, whoever is about to write first puts a token into the row
    (a claim), and takes it out with the last checkpoint: then whoever comes next goes on with the same parts. A claim
    that is found there is of a process that died, or of one that still writes for a client that gave it up: the new
    one takes over at once, and what the old one does afterwards can neither be recorded nor harm (see
    `storage.blobs.s3.writing`).
    """

    def __init__(self, database: Database, blobs: BlobStore, settings: ContentSettings, quotas: Quotas,
                 hashes: HashCache, shares: Shares, busy: set[str], row: UploadRow) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._quotas = quotas
        self._hashes = hashes
        self._shares = shares
        self._busy = busy
        self._row = row
        self._writing: BlobWriter | None = None
        self._token = str(uuid.uuid4())
        self._contested = False
        self._unrecorded = False

    @property
    def id(self) -> str:
        return self._row.id

    @property
    def repo(self) -> RepositoryName:
        return self._row.repository

    @property
    def offset(self) -> int:
        return self._row.offset

    @property
    def written(self) -> tuple[StorageKey, int] | None:
        """Where the bytes are and how many can be read there now, durable or not; for who reads them while they come
        (they are no blob before `commit`, and may yet be cut off). None: nothing is anywhere."""
        if self._writing is not None:
            return self._writing.key, self._writing.readable
        return (self._row.key, 0 if self._row.mark else self.offset) if self._row.key is not None else None

    async def append(self, chunks: AsyncIterator[bytes], *, at: int | None = None) -> int:
        """Add what `chunks` yields; gives the new offset.

        `at` must be the offset, else OffsetMismatch. When `chunks` raises, what had arrived is kept and the error
        goes on. Raises StoreFull and QuotaExceeded: then the session is where its last checkpoint was, and may be
        continued later.
        """
        with self._claimed():
            await self._refresh()
            if at is not None and at != self.offset:
                raise OffsetMismatch(self.offset, at)
            await self._claim()
            hashed = await self._hashed(self._row.algorithm)
            writer = self._writing = await self._writer()
            try:
                with self._shares.receiving():
                    pipeline = Pipeline(writer, hashed, self._settings, self._shares, self._checkpoint)
                    await pipeline.run(chunks)
            except (StoreFull, UploadBusy, QuotaExceeded):
                await writer.close()
                await self._cut_back(writer.key)
                raise
            finally:
                self._writing = None
                await writer.close()
            if self._row.key is None:  # nothing arrived, and no row names what `create` made
                await self._cut_back(writer.key)
            return self.offset

    async def finish(self, chunks: AsyncIterator[bytes], digest: Digest, *, at: int | None = None,
                     origin: Origin | None = None) -> BlobInfo:
        """`append` and `commit` in one: what came since the last checkpoint becomes durable with the commit and not
        before it, which spares small blobs a transaction and a sync. When the bytes are not those of `digest`, or
        `chunks` raises, they are kept as `append` keeps them. Raises what both do."""
        if self._row.key is not None or digest.algorithm != self._row.algorithm:
            await self.append(chunks, at=at)
            return await self.commit(digest, origin=origin)
        with self._claimed():
            await self._refresh()
            if self.offset or (at is not None and at != 0):
                raise OffsetMismatch(self.offset, at or 0)
            hashed, sealed = await self._hashed(self._row.algorithm), False
            writer = self._writing = await self._writer()
            try:
                with self._shares.receiving():
                    await Pipeline(writer, hashed, self._settings, self._shares, self._checkpoint_later).run(chunks)
                if hashed.digest() != digest:
                    raise DigestMismatch(digest, hashed.digest())
                size, sealed = await writer.seal(), True
                stored = await self._keep(BlobInfo(digest, size, writer.key), origin)
            except BaseException as error:
                # What arrived is kept, unless the store took no more; a sealed key that no row names is garbage.
                if self._unrecorded and not sealed:
                    await self._checkpoint(writer, hashed, last=True)
                elif isinstance(error, StoreFull | UploadBusy | QuotaExceeded):
                    await writer.close()
                    await self._cut_back(writer.key)
                raise
            finally:
                self._writing, self._unrecorded = None, False
                await writer.close()
            self._hashes.forget(self.id)
            for unneeded in {writer.key, self._row.key or writer.key} - {stored.key}:
                await self._remove(unneeded)
            return stored

    async def commit(self, digest: Digest, *, origin: Origin | None = None) -> BlobInfo:
        """Make the bytes a blob of the repository. Raises DigestMismatch and QuotaExceeded, which leave the session as
        it was."""
        with self._claimed():
            await self._refresh()
            actual = await self._digest(digest.algorithm)
            if actual != digest:
                raise DigestMismatch(digest, actual)
            await self._claim()
            key = await self._seal()
            stored = await self._keep(BlobInfo(digest, self.offset, key), origin)
            self._hashes.forget(self.id)
            for unneeded in {key, self._row.key or key} - {stored.key}:
                await self._remove(unneeded)
            return stored

    async def abort(self, *, idle_since: datetime | None = None) -> None:
        """End the session and drop its bytes; where that is given, only if nobody added to it since."""
        with self._claimed():
            await self._refresh()
            async with self._database.write(beside=True) as tx:
                if not await rows.delete(tx, self._row, idle_since=idle_since):
                    raise UploadBusy(self.id)
                if self._row.key:
                    await tombstones.bury(tx, self._row.key, self.offset, self._database.now())
            self._hashes.forget(self.id)
            if self._row.key:
                await self._remove(self._row.key)

    async def _checkpoint(self, writer: BlobWriter, hashed: Hashed, *, last: bool) -> None:
        """What the writer holds becomes durable, then the row says so."""
        offset = await writer.flush()
        before, claim = self._row, self._token if writer.mark and not last else None
        if (offset, claim) == (before.offset, before.writer) and before.key in (None, writer.key):
            return
        after = replace(before, key=writer.key, offset=offset, digest=hashed.digest(), mark=writer.mark, writer=claim,
                        state=hashed.state())
        left = before.key if before.key != writer.key else None
        async with self._database.write(beside=True) as tx:
            await self._quotas.room(tx, self.repo, offset)
            if not await rows.advance(tx, before, after, self._database.now()):
                raise UploadBusy(self.id)
            if left:
                await tombstones.bury(tx, left, before.offset, self._database.now())
        self._row = after
        self._hashes.put(self.id, hashed)
        if left:
            with contextlib.suppress(SeawallError):  # the collector tries again
                await self._remove(left)

    async def _checkpoint_later(self, writer: BlobWriter, hashed: Hashed, *, last: bool) -> None:
        """Leaves the last one to a commit that is about to come."""
        self._unrecorded = last
        if not last:
            await self._checkpoint(writer, hashed, last=False)

    async def _claim(self) -> None:
        if not self._row.mark or self._row.writer == self._token:
            return
        self._contested = self._row.writer is not None
        claimed = replace(self._row, writer=self._token)
        async with self._database.write(beside=True) as tx:
            if not await rows.advance(tx, self._row, claimed, self._database.now()):
                raise UploadBusy(self.id)
        self._row = claimed

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        if self.id in self._busy:
            raise UploadBusy(self.id)
        self._busy.add(self.id)
        try:
            yield
        except KeyBusy:
            raise UploadBusy(self.id) from None
        finally:
            self._busy.discard(self.id)

    async def _refresh(self) -> None:
        """Another process may have moved the session on since this object was made."""
        async with self._database.read() as tx:
            row = await rows.find(tx, self.repo, self.id)
        if row is None:
            raise UploadUnknown(self.id)
        self._row = row

    async def _writer(self) -> BlobWriter:
        try:
            return await self._resumed()
        except KeySealed:
            return await self._copied()

    async def _resumed(self) -> BlobWriter:
        if self._row.key is None:
            return await self._blobs.create()
        return await self._blobs.resume(self._row.key, self.offset, self._row.mark, contested=self._contested)

    async def _copied(self) -> BlobWriter:
        """An earlier `finish` sealed more than the row counts, and its commit did not happen: what the row counts goes
        on under a new key."""
        assert self._row.key is not None
        writer = await self._blobs.create()
        try:
            async for chunk in self._blobs.read(self._row.key, 0, self.offset):
                await writer.write([chunk])
            if writer.offset != self.offset:
                raise BytesMissing(self._row.key)
        except BaseException:
            await writer.close()
            await self._cut_back(writer.key)
            raise
        return writer

    async def _digest(self, algorithm: str) -> Digest:
        """Of the bytes up to the offset: the row has it when they were hashed with this algorithm as they came."""
        known = self._row.digest
        if known is not None and known.algorithm == algorithm:
            return known
        return (await self._hashed(algorithm)).digest()

    async def _hashed(self, algorithm: str) -> Hashed:
        """The hash at the offset: remembered, recorded, or computed from the stored bytes."""
        known = self._hashes.take(self.id, self.offset)
        if known is not None and known.algorithm == algorithm:
            return known
        if self._row.key is None:
            return Hashed.nothing(algorithm)
        if self._row.state and self._row.digest and self._row.digest.algorithm == algorithm:
            restored = Hashed.restored(self._row.state, self._row.digest, self.offset)
            if restored is not None:
                return restored
        await self._claim()
        await self._blobs.settle(self._row.key, self.offset, self._row.mark)
        hashed = await Hashed.of(self._blobs.read(self._row.key, 0, self.offset), algorithm)
        if hashed.offset != self.offset:
            raise BytesMissing(self._row.key)
        return hashed

    async def _seal(self) -> StorageKey:
        try:
            writer = await self._resumed()
        except KeySealed:  # an earlier commit came this far, or an earlier `finish` further
            assert self._row.key is not None
            if await self._blobs.size(self._row.key) == self.offset:
                return self._row.key
            writer = await self._copied()
        try:
            await writer.seal()
        finally:
            await writer.close()
        return writer.key

    async def _keep(self, info: BlobInfo, origin: Origin | None) -> BlobInfo:
        """Another key than ours comes back when the content was stored already and is still there: whoever uploads
        what was lost, heals it."""
        seen, there = None, True
        while True:
            try:
                return await self._record(info, origin, seen, there=there)
            except _HeldAlready as held:
                seen, there = held.info.key, await self._is_there(held.info)

    async def _is_there(self, info: BlobInfo) -> bool:
        try:
            return await self._blobs.size(info.key) == info.size
        except BytesMissing:
            return False

    @retried
    async def _record(self, info: BlobInfo, origin: Origin | None, seen: StorageKey | None, *,
                      there: bool) -> BlobInfo:
        """The transaction of a commit. `seen` is a key that holds the content already, if its bytes are `there`.
        Raises _HeldAlready for a key that nobody looked at: not within a transaction."""
        now = self._database.now()
        async with self._database.write(beside=True) as tx:
            await self._quotas.claim(tx, self.repo)
            if not await rows.delete(tx, self._row):
                raise UploadBusy(self.id)
            blob = await blob_rows.insert(tx, info, now, lost=None if there else seen)
            if blob.info.key not in (info.key, seen):
                raise _HeldAlready(blob.info)
            for unneeded in {info.key, self._row.key or info.key} - {blob.info.key}:
                await tombstones.bury(tx, unneeded, info.size, now)
            await self._quotas.blob(tx, self.repo, blob.id, blob.info.size)
            await blob_rows.link(tx, self._row.repository_id, blob, now)
            if origin is not None:
                await events.record(tx, Event(Action.BLOB_PUSH, origin, self.repo, info.digest, size=info.size), now)
        return blob.info

    async def _remove(self, key: StorageKey) -> None:
        """Bytes that a committed tombstone names. If we die here, the collector finishes it."""
        await self._blobs.delete(key)
        async with self._database.write(beside=True) as tx:
            await tombstones.clear(tx, [key])

    async def _cut_back(self, key: StorageKey) -> None:
        """Give back, as far as that works, the bytes that the session does not count on."""
        with contextlib.suppress(SeawallError):
            if self._row.key != key:
                await self._blobs.delete(key)
            elif not self._row.mark:
                await (await self._blobs.resume(key, self.offset)).close()
