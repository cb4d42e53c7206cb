"""Bringing blobs here, each once however many ask.

Within a process whoever asks joins the `Filling`. Between processes a row says who brings it; the others read along
where they can reach the bytes (workers and replicas on one disk), else they wait. The bytes go into an upload session
like any push, so that what came before a crash or a broken upstream is not fetched twice, and so that nothing is a
blob before its digest is verified. A fill that was begun is finished though nobody waits any more: the next one will.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from ocispec.digest import Digest
from ocispec.errors import SeawallError, Unavailable
from registry.proxy.backings import KeyBacking, SpoolBacking, StoreBacking
from registry.proxy.errors import UpstreamBroken, UpstreamUnavailable, translated
from registry.proxy.filling import Filling
from registry.proxy.flights import Recent
from registry.proxy.origins import Origins
from registry.proxy.transfer import Transfer
from registry.proxy.upstreams import Place, Upstream
from storage.blobs.store import BlobReader, BytesMissing, LocalFiles
from storage.errors import BlobUnknown, StoreFull
from storage.metadata.blobs import BlobInfo
from storage.metadata.cached import FillRow
from storage.remote.errors import RemoteNotFound
from storage.remote.origin import OriginRegistry
from storage.repository.cached import FillClaims
from storage.repository.store import ContentStore
from storage.uploads.errors import UploadBusy, UploadUnknown
from storage.uploads.session import Upload

log = logging.getLogger(__name__)

RENEW_EVERY = 2.0
LOOK_EVERY = 0.05
LOOKS = 5
"""Looks at another process's bytes between two looks at its row."""


MOST = 1000
"""Blobs of one upstream on their way or waiting. Nobody need wait for a fill that was begun, so the number of clients
bounds nothing."""

HOLDERS = 100
"""Repositories that are looked at for one of the same upstream."""


@dataclass(frozen=True, slots=True)
class FillSettings:
    """`most`: bytes of the largest blob, 0: any. `spool`: folder for bytes that a store cannot give back at once."""

    most: int
    downloads: int
    spool: Path


@dataclass(slots=True)
class _Session:
    """Where the bytes of one fill go, as soon as there is such a place."""

    upload: Upload | None = None


class Fills:
    """For one event loop."""

    def __init__(self, origins: Origins, content: ContentStore, store: BlobReader, claims: FillClaims,
                 settings: FillSettings) -> None:
        self._origins = origins
        self._content = content
        self._store = store
        self._readable = isinstance(store, LocalFiles)
        self._claims = claims
        self._settings = settings
        # Each upstream its own: one that is slow on purpose must not keep the others' content from coming.
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(settings.downloads))
        self._running: dict[tuple[str, str], tuple[Filling, asyncio.Task[None]]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._missing: Recent[bool] = Recent()

    def open(self, place: Place, digest: Digest) -> Filling:
        """The blob, on its way. Raises BlobUnknown when the upstream said so a moment ago, UpstreamUnavailable
        when there are too many."""
        key = (place.repo.value, str(digest))
        running = self._running.get(key)
        if running is not None:
            return running[0]
        if self._missing.get(key):
            raise BlobUnknown(digest)
        if len(self._running) >= MOST and self.running(place.upstream) >= MOST:
            raise UpstreamUnavailable(place.upstream.name, f"{MOST} blobs are on their way already", RENEW_EVERY)
        filling = Filling()
        self._running[key] = (filling, asyncio.create_task(self._run(place, digest, filling)))
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return filling

    async def size(self, place: Place, digest: Digest) -> int:
        """Without fetching it, where the upstream tells. Raises BlobUnknown and the errors of registry.proxy.errors."""
        key = (place.repo.value, str(digest))
        if key not in self._running and not self._missing.get(key):
            try:
                size = await self._told(place, digest)
            except RemoteNotFound as error:
                raise self._absent(place, digest) from error
            if size is not None:
                return size
        filling = self.open(place, digest)
        size = await filling.wait_begun()
        return size if size is not None else (await filling.wait_done()).size

    def running(self, upstream: Upstream) -> int:
        """How many blobs of it this process is bringing."""
        return sum(repo.startswith(f"{upstream.name}/") for repo, _ in self._running)

    async def close(self) -> None:
        tasks = [task for _, task in self._running.values()]
        if self._renewing is not None:
            tasks.append(self._renewing)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- one fill

    async def _run(self, place: Place, digest: Digest, filling: Filling) -> None:
        name = place.upstream.name
        try:
            while filling.info is None:
                row = await self._claims.claim(place.repo, digest)
                if row.owner == self._claims.owner:
                    async with self._slots[name]:
                        await self._bring(place, digest, filling, row)
                else:
                    await self._follow(place, digest, filling)
        except RemoteNotFound:
            filling.fail(self._absent(place, digest))
        except UploadBusy:  # its claim ran out, and it lives: a process that was stopped for a while
            filling.fail(UpstreamUnavailable(name, "another process is still fetching it", RENEW_EVERY))
        except SeawallError as error:
            log.warning("%s@%s: %s", place.repo, digest, error.message)
            filling.fail(translated(name, error))
        except asyncio.CancelledError:
            filling.fail(UpstreamUnavailable(name, "this registry is shutting down"))
            raise
        except Exception:
            log.exception("%s@%s", place.repo, digest)
            filling.fail(UpstreamUnavailable(name, "a fault of this registry; its log has the reason"))
        finally:
            del self._running[(place.repo.value, str(digest))]

    def _absent(self, place: Place, digest: Digest) -> BlobUnknown:
        self._missing.put((place.repo.value, str(digest)), True, place.upstream.missing_ttl)
        return BlobUnknown(digest)

    async def _bring(self, place: Place, digest: Digest, filling: Filling, row: FillRow) -> None:
        if (held := await self._held(place, digest)) is not None:  # another brought it between our look and our claim
            self._finish(filling, held)
            await self._claims.release(place.repo, digest, resumable=False)
            return
        resumable, session = False, _Session()
        try:
            if (linked := await self._beside(place, digest)) is not None:
                self._finish(filling, linked)
                return
            session.upload = await self._unfinished(place, row)
            if session.upload is not None and row.size is not None and session.upload.offset == row.size:
                filling.announce(row.size)  # it all came; only the commit did not
                upload = session.upload
            else:
                upload = await self._receive(place, digest, filling, session)
            self._finish(filling, await upload.commit(digest))
        except (UpstreamUnavailable, UploadBusy, StoreFull, asyncio.CancelledError):
            resumable = True
            raise
        except SeawallError:
            if session.upload is not None:  # what came was wrong: nobody shall go on from it
                with contextlib.suppress(SeawallError):
                    await session.upload.abort()
            raise
        finally:
            await self._claims.release(place.repo, digest, resumable=resumable)

    async def _beside(self, place: Place, digest: Digest) -> BlobInfo | None:
        """The blob, where another repository of the same upstream holds it and the upstream says that this one does
        too: a base image's layers come once for all that stand on them. Of another upstream or of our own it is not
        taken: whoever runs an upstream could name the digest of private content and have it read."""
        prefix = f"{place.upstream.name}/"
        holders = await self._content.blobs.holders(digest, HOLDERS)
        if not any(holder.value.startswith(prefix) for holder in holders):
            return None
        size, held = await self._told(place, digest), await self._content.blobs.has_any(digest)
        if held is None:
            return None
        if size is not None and size != held.size:
            raise UpstreamBroken(place.upstream.name, f"{digest} has {held.size} bytes, not {size}")
        try:
            return await self._content.blobs.link(place.repo, digest)
        except BlobUnknown:
            return None  # collected since we looked

    async def _told(self, place: Place, digest: Digest) -> int | None:
        async def ask(registry: OriginRegistry) -> int | None:
            return await registry.blob_size(place.path, digest)

        return await self._origins.at(place).ask(ask)

    async def _receive(self, place: Place, digest: Digest, filling: Filling, session: "_Session") -> Upload:
        start = session.upload.offset if session.upload is not None else 0
        filling.start_at(start)
        transfer = Transfer(self._origins.at(place), place, digest, filling, self._settings.most)
        async with aclosing(transfer.run(start)) as chunks:
            # The first bytes before the session: an upstream that has no such blob leaves nothing behind here, and
            # whoever waits need not wait for our database.
            first = await anext(chunks, b"")
            if first:
                filling.add(first)
            upload = session.upload or await self._content.uploads.start(place.repo, digest.algorithm)
            session.upload = upload
            if start + len(first) != filling.size:  # else it is here before anybody could follow or go on with it
                await self._claims.publish(place.repo, digest, upload_id=upload.id, key=None, size=filling.size)
            if self._readable:
                filling.back(StoreBacking(self._store, upload))
                await upload.append(self._shared(place, digest, filling, upload, first, chunks))
            else:
                spool = SpoolBacking(self._settings.spool)
                filling.back(spool)
                await upload.append(self._spooled(filling, spool, first, chunks))
            filling.tell()
            return upload

    async def _shared(self, place: Place, digest: Digest, filling: Filling, upload: Upload, first: bytes,
                      chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """All chunks, while readers get them too, and other processes hear where to find them."""
        published = False
        if first:
            yield first
        async for chunk in chunks:
            filling.add(chunk)
            yield chunk
            if not published and upload.written is not None:
                published = True
                await self._claims.publish(place.repo, digest, upload_id=upload.id, key=upload.written[0],
                                           size=filling.size)

    async def _spooled(self, filling: Filling, spool: SpoolBacking, first: bytes,
                       chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        if first:
            await spool.write(first)
            yield first
        async for chunk in chunks:
            filling.add(chunk)
            await spool.write(chunk)
            yield chunk

    async def _unfinished(self, place: Place, row: FillRow) -> Upload | None:
        """The session that an earlier try left. Where its bytes cannot be read back before they are a blob, readers
        could not have the beginning: then it begins anew."""
        if row.upload_id is None:
            return None
        try:
            upload = await self._content.uploads.get(place.repo, row.upload_id)
            if self._readable:
                return upload
            await upload.abort()
        except (UploadUnknown, UploadBusy):
            pass
        return None

    # -- what another process brings

    async def _follow(self, place: Place, digest: Digest, filling: Filling) -> None:
        """Returns when it is here, or the other gave up."""
        backing: KeyBacking | None = None
        while (row := await self._claims.find(place.repo, digest)) is not None:
            if row.upload_id is not None and row.size is not None:
                filling.announce(row.size)
            if row.key is not None and self._readable and (backing is None or backing.key != row.key):
                backing = KeyBacking(self._store, row.key)
                filling.back(backing)
            for _ in range(LOOKS if backing and backing.stored != row.size else 1):
                if backing is not None:
                    with contextlib.suppress(BytesMissing):
                        await backing.look()
                    filling.tell()
                await asyncio.sleep(LOOK_EVERY)
        if (held := await self._held(place, digest)) is not None:
            self._finish(filling, held)

    async def _held(self, place: Place, digest: Digest) -> BlobInfo | None:
        try:
            return await self._content.blobs.stat(place.repo, digest)
        except BlobUnknown:
            return None

    def _finish(self, filling: Filling, info: BlobInfo) -> None:
        filling.finish(info, KeyBacking(self._store, info.key, info.size))

    async def _renew(self) -> None:
        while self._running:
            await asyncio.sleep(RENEW_EVERY)
            try:
                await self._claims.renew()
            except Unavailable as error:  # the claims run out, and another process may begin the same
                log.warning("cannot renew what is being fetched: %s", error.message)
