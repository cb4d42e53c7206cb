"""Content that comes by the thousand, from a store instead of a client: bytes first, then rows, a batch a transaction.

The caller decides what is taken and answers for it: nobody's rights are asked here. Everything may run beside clients
that push, delete and collect; hold a lease on what is coming (`gc.leases`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ocispec.digest import Digest
from ocispec.errors import PermissionDenied, SeawallError
from ocispec.reference import RepositoryName, Tag
from storage.blobs.store import BlobStore, BlobWriter, CannotShare, SharedFiles, StorageKey
from storage.errors import DigestMismatch
from storage.metadata import blobs as blob_rows
from storage.metadata import intake as rows
from storage.metadata import manifests as manifest_rows
from storage.metadata import repositories, tombstones
from storage.metadata import tags as tag_rows
from storage.metadata.blobs import BlobInfo
from storage.metadata.engine import Database, Transaction
from storage.repository.pointing import point
from storage.rules.quotas import Quotas
from storage.rules.service import Rules
from storage.settings import ContentSettings
from storage.uploads.batch import Shares
from storage.uploads.hashing import Hashed
from storage.uploads.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Tagging:
    digest: Digest
    updated: datetime


@dataclass(slots=True)
class Tagged:
    """`moved`: how many tags were made or moved. `kept`: those that name something else and still do."""

    moved: int = 0
    kept: dict[Tag, Digest] = field(default_factory=dict)


class Intake:
    def __init__(self, database: Database, blobs: BlobStore, settings: ContentSettings, rules: Rules) -> None:
        self._rules = rules
        self._quotas = Quotas(rules)
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._shares = Shares(settings.upload_memory, settings.upload_batch)
        self._waiting: list[tuple[RepositoryName, BlobInfo, asyncio.Future[None]]] = []
        self._turn = asyncio.Lock()

    async def sizes(self, repo: RepositoryName, digests: Collection[Digest]) -> dict[Digest, int]:
        """Of those that are blobs of the repository."""
        async with self._database.read() as tx:
            repository = await repositories.find(tx, repo)
            return {} if repository is None else await blob_rows.sizes_in(tx, repository, digests)

    async def manifests(self, repo: RepositoryName, digests: Collection[Digest]) -> dict[Digest, int]:
        """Sizes of those that are manifests of the repository."""
        async with self._database.read() as tx:
            repository = await repositories.find(tx, repo)
            return {} if repository is None else await manifest_rows.sizes_in(tx, repository, digests)

    async def tags(self, repo: RepositoryName, names: Collection[Tag]) -> dict[Tag, Digest]:
        """What those of them name that exist."""
        async with self._database.read() as tx:
            return await rows.tags_named(tx, repo, names)

    async def stored(self, digests: Collection[Digest]) -> dict[Digest, int]:
        """Sizes of those that are stored, for whatever repository."""
        async with self._database.read() as tx:
            return {digest: row.info.size for digest, row in (await rows.stored(tx, digests)).items()}

    async def held(self, repo: RepositoryName, digests: Collection[Digest]) -> dict[Digest, int]:
        """Make those that are stored, for whatever repository, part of this one; gives their sizes. What a quota
        refuses is not among them."""
        async with self._database.read() as tx:
            stored = await rows.stored(tx, digests)
        if not stored:
            return {}
        now = self._database.now()
        async with self._database.write() as tx:
            repository = await repositories.ensure(tx, repo, now)
            found = {}
            for digest, row in (await rows.stored(tx, stored)).items():
                with contextlib.suppress(PermissionDenied):
                    async with tx.begin_nested():
                        await self._quotas.blob(tx, repo, row.id, row.info.size)
                        await blob_rows.link(tx, repository, row, now)
                    found[digest] = row.info.size
        return found

    async def copy(self, chunks: AsyncIterator[bytes], digest: Digest, *, verify: bool) -> BlobInfo:
        """Store what `chunks` yields; it is no blob until it is recorded. Raises DigestMismatch, what `chunks` raises,
        and StoreFull, and then nothing is kept."""
        writer = await self._blobs.create()
        try:
            if verify:
                hashed = Hashed.nothing(digest.algorithm)
                with self._shares.receiving():
                    await Pipeline(writer, hashed, self._settings, self._shares, _no_checkpoint).run(chunks)
                if hashed.digest() != digest:
                    raise DigestMismatch(digest, hashed.digest())
            else:
                async for chunk in chunks:
                    await writer.write([chunk])
            return BlobInfo(digest, await writer.seal(), writer.key)
        except BaseException:
            await writer.close()
            await self._blobs.delete(writer.key)
            raise
        finally:
            await writer.close()

    async def share(self, file: int, digest: Digest, size: int, *, clone: bool = False) -> BlobInfo:
        """Hold an open file of this machine, whose content the caller knows, without a second copy of its bytes.
        Raises CannotShare."""
        if not isinstance(self._blobs, SharedFiles):
            raise CannotShare("cannot link the file: the store is not on this machine")
        key = await (self._blobs.clone(file) if clone else self._blobs.link(file))
        return BlobInfo(digest, size, key)

    async def record(self, repo: RepositoryName, info: BlobInfo) -> None:
        """Make stored bytes a blob of the repository. Those who wait share a transaction. Raises QuotaExceeded."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((repo, info, done))
        async with self._turn:
            if not done.done():
                await self._record_all()
        await done

    async def _record_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        surplus: list[StorageKey] = []
        refused: dict[StorageKey, SeawallError] = {}
        try:
            async with self._database.write() as tx:
                for repo, info, _ in waiting:
                    try:
                        async with tx.begin_nested():
                            surplus += await self._insert(tx, repo, info)
                    except PermissionDenied as error:
                        refused[info.key] = error
        except asyncio.CancelledError:
            self._waiting = waiting + self._waiting  # whoever comes next writes for those that were not cancelled
            raise
        except SeawallError as error:
            for *_, done in waiting:
                _fail(done, error)
            return  # the bytes stay: whether the rows were written, a broken connection does not tell
        for _, info, done in waiting:
            if info.key in refused:
                _fail(done, refused[info.key])
            else:
                _succeed(done)
        for key in (*surplus, *refused):
            await self._blobs.delete(key)
        if surplus:
            async with self._database.write() as tx:
                await tombstones.clear(tx, surplus)

    async def _insert(self, tx: Transaction, repo: RepositoryName, info: BlobInfo) -> list[StorageKey]:
        """Our key when a client was faster with the same content."""
        now = self._database.now()
        row = await blob_rows.insert(tx, info, now)
        await self._quotas.blob(tx, repo, row.id, row.info.size)
        await blob_rows.link(tx, await repositories.ensure(tx, repo, now), row, now)
        if row.info.key == info.key:
            return []
        await tombstones.bury(tx, info.key, info.size, now)
        return [info.key]

    async def put_tags(self, repo: RepositoryName, tags: Mapping[Tag, Tagging], *, overwrite: bool) -> Tagged:
        """Point tags at manifests of the repository. Without `overwrite`, or where it is immutable, a tag that exists
        stays, whoever made it and however shortly ago."""
        outcome, moved, now = Tagged(), False, self._database.now()
        async with self._database.write() as tx:
            repository = await repositories.ensure(tx, repo, now)
            book = await self._rules.book(tx)
            for tag, wanted in tags.items():
                number = await manifest_rows.find_id(tx, repository, wanted.digest)
                present = await tag_rows.target(tx, repository, tag)
                if number is None or (present is not None and present[0] == number):
                    continue  # deleted by somebody meanwhile, or as it should be
                if present is None:
                    await tag_rows.put(tx, repository, tag, number, wanted.updated)
                else:
                    try:
                        await point(tx, repo, repository, tag, number, now, book=book, overwrite=overwrite)
                    except PermissionDenied:
                        outcome.kept[tag] = present[1]
                        continue
                    moved = True
                outcome.moved += 1
            if moved:
                await repositories.outdate(tx, repository, since=now)
        return outcome

    async def backdate(self, repo: RepositoryName, pushed: Mapping[Digest, datetime]) -> None:
        """When the manifests came, for rules that go by age."""
        async with self._database.write() as tx:
            await rows.backdate(tx, repo, pushed)


async def _no_checkpoint(writer: BlobWriter, hashed: Hashed, *, last: bool) -> None:
    """Nothing is recorded before all is there, and sealing makes it durable."""




def _fail(done: asyncio.Future[None], error: SeawallError) -> None:
    if not done.done():  # its waiter may have been cancelled
        done.set_exception(error)


def _succeed(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
