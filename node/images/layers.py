"""Getting layers: download, verify, unpack, each byte once, as many at a time as make sense.

    download ──▶ content store (hash, write)
        └─ pipe ─▶ unpack worker (decompress, hash, write)    while it downloads, when a worker is free; else afterwards
    the layers below settled ──▶ adopt attributes, or unpack again upon the merged tree ──▶ settled

Nothing here makes a layer visible: a pull publishes the settled chain at its end.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from node.images.errors import DiffIdMismatch
from node.images.flights import Flight, Flights, Listener
from node.images.image import Layer
from node.images.shared import SharedLayers
from node.images.unpack.pool import Feed, NeedsMergedTree, Unpacked, UnpackJob, UnpackPool, make_feed
from node.snapshots.store import LayerTarget, Snapshotter
from node.state.snapshots import Download, DownloadRows, LayerSizeRows
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import NotFound
from ocispec.reference import RepositoryName
from storage.blobs.store import CannotShare
from storage.errors import DigestMismatch
from storage.metadata.blobs import BlobInfo
from storage.remote.client import RemoteRegistry
from storage.repository.store import ContentStore
from storage.uploads.session import Upload


class Source:
    """Where a pull gets its bytes. Shared by the pull and by its downloads, which may outlive it when another pull
    waits for them: the connection closes with the last one."""

    def __init__(self, remote: RemoteRegistry, path: RepositoryName, repository: RepositoryName,
                 downloads: int) -> None:
        self.remote = remote
        self.path = path
        self.repository = repository
        self.slots = asyncio.Semaphore(downloads)
        self._holders = 0

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        if self._holders == 0:
            await self.remote.__aenter__()
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._holders == 0:
                await self.remote.__aexit__(None, None, None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The layers of one image, bottom first, for one repository; `source` is None when every blob must be here."""

    layers: Sequence[Layer]
    repository: RepositoryName
    source: Source | None


class Layers:
    """All work on layers of this node. Close it before the snapshotter and the content store go."""

    def __init__(self, content: ContentStore, snapshots: Snapshotter, pool: UnpackPool,
                 sizes: LayerSizeRows, downloads: DownloadRows, shared: SharedLayers | None = None) -> None:
        self._content = content
        self._snapshots = snapshots
        self._pool = pool
        self._sizes = sizes
        self._downloads = downloads
        self._shared = shared
        self._fetches: Flights[Digest, BlobInfo] = Flights()
        self._unpacks: Flights[Digest, None] = Flights()
        self._pinned: Counter[Digest] = Counter()

    async def close(self) -> None:
        await self._unpacks.close()
        await self._fetches.close()

    @contextlib.contextmanager
    def pinned(self, chain: Sequence[Digest]) -> Iterator[None]:
        """Keep these layers while they are worked with, whatever images are removed meanwhile."""
        self._pinned.update(chain)
        try:
            yield
        finally:
            self._pinned.subtract(chain)

    async def forget_all_but(self, kept: set[Digest]) -> list[Digest]:
        """Remove the layers that no image has and nobody works with; gives their chain ids."""
        published = self._snapshots.chains()
        gone = [chain_id for chain_id in published if chain_id not in kept and not self._pinned[chain_id]]
        for chain_id in gone:
            await self._snapshots.forget(chain_id)
        return gone

    async def ensure(self, wanted: Wanted, number: int, listener: Listener) -> bool:
        """Have layer `number` as blob of the repository and as settled snapshot. True when there was nothing to do."""
        layer = wanted.layers[number]
        if self._snapshots.has(layer.chain_id):
            if await self._held_blob(wanted.repository, layer.descriptor.digest) is not None:
                return True
            await self._fetch(wanted, layer.descriptor, None, listener)
            return False
        await self._unpacks.run(layer.chain_id, lambda flight: self._make(wanted, number, flight), listener)
        await self._held_blob(wanted.repository, layer.descriptor.digest)
        return False

    async def fetch(self, wanted: Wanted, descriptor: Descriptor, listener: Listener) -> None:
        """Have a blob in the repository without unpacking it."""
        await self._fetch(wanted, descriptor, None, listener)

    async def adopt(self, container_id: str, chain: Sequence[Digest], diff_id: Digest, size: int) -> bool:
        """What a container wrote becomes the last layer of the chain, of `size` bytes, without being unpacked again.
        False: not with this snapshotter."""
        if self._snapshots.has(chain[-1]):
            return True
        if not await self._snapshots.adopt(container_id, chain):
            return False
        await self._sizes.put(diff_id, size)
        return True

    async def publish(self, chain: Sequence[Digest]) -> None:
        await self._snapshots.publish(chain)

    async def share(self, wanted: Wanted) -> None:
        """Give the image's layers, which are published, to the machine's other nodes."""
        if self._shared is None or not self._snapshots.bare:
            return
        sizes = await self._sizes.get(layer.diff_id for layer in wanted.layers)
        for layer in wanted.layers:
            info = await self._held_blob(wanted.repository, layer.descriptor.digest)
            path = self._content.blobs.local_path(info) if info else None
            if path is not None and layer.diff_id in sizes:
                tree = self._snapshots.tree(layer.chain_id)
                await self._shared.give(layer.chain_id, tree, sizes[layer.diff_id], layer.descriptor.digest, path)

    async def _take_shared(self, wanted: Wanted, number: int, flight: Flight[None]) -> bool:
        """Whether the layer came from another node of this machine, without a byte copied."""
        layer = wanted.layers[number]
        if self._shared is None or not await self._shared_blob(self._shared, wanted.repository, layer.descriptor):
            return False
        target = await self._snapshots.prepare(layer.chain)
        try:
            size = await self._shared.take(layer.chain_id, target.directory)
            if size is None:
                await self._snapshots.discard(target)
                return False
            await self._below(wanted, number)
            await self._sizes.put(layer.diff_id, size)
            await self._snapshots.settle(target)
        except BaseException:
            await self._snapshots.discard(target)
            raise
        flight.tell("Pull complete")
        return True

    async def _shared_blob(self, shared: SharedLayers, repository: RepositoryName, descriptor: Descriptor) -> bool:
        """Have the blob in the repository, if it is here already or shared."""
        if await self._held_blob(repository, descriptor.digest) is not None:
            return True
        if self._fetches.active(descriptor.digest):
            return False
        file = await shared.open_blob(descriptor.digest)
        if file is None:
            return False
        try:
            if os.fstat(file).st_size != descriptor.size:
                return False
            info = await self._content.intake.share(file, descriptor.digest, descriptor.size)
            await self._content.intake.record(repository, info)
        except CannotShare:
            return False
        finally:
            os.close(file)
        return True

    # -- blobs

    async def _held_blob(self, repository: RepositoryName, digest: Digest) -> BlobInfo | None:
        """A blob that is here, made part of the repository."""
        if await self._content.blobs.has_any(digest) is None:
            return None
        with contextlib.suppress(NotFound):
            return await self._content.blobs.stat(repository, digest)
        with contextlib.suppress(NotFound):
            return await self._content.blobs.link(repository, digest)
        return None

    async def _fetch(self, wanted: Wanted, descriptor: Descriptor, feed: Feed | None, listener: Listener) -> BlobInfo:
        held = await self._held_blob(wanted.repository, descriptor.digest)
        if held is not None:
            return held
        source = wanted.source
        if source is None:
            # Unpacking again needs the blob; it can only be missing when somebody took it from under us.
            return await self._content.blobs.stat(wanted.repository, descriptor.digest)
        info = await self._fetches.run(
            descriptor.digest, lambda flight: self._download(source, descriptor, feed, flight), listener)
        return await self._held_blob(wanted.repository, descriptor.digest) or info

    async def _download(self, source: Source, descriptor: Descriptor, feed: Feed | None,
                        flight: Flight[BlobInfo]) -> BlobInfo:
        async with source.held(), source.slots:
            upload = await self._begin(source.repository, descriptor.digest)
            resumed = upload.offset > 0
            try:
                info = await self._receive(source, descriptor, upload, feed, flight)
            except DigestMismatch:
                await self._give_up(descriptor.digest, upload)
                if not resumed:
                    raise
                # The beginning came from an earlier try, perhaps from another registry: once more, all of it from here.
                upload = await self._begin(source.repository, descriptor.digest)
                info = await self._receive(source, descriptor, upload, feed, flight)
            await self._downloads.drop(descriptor.digest)
            flight.tell("Download complete")
            return info

    async def _receive(self, source: Source, descriptor: Descriptor, upload: Upload, feed: Feed | None,
                       flight: Flight[BlobInfo]) -> BlobInfo:
        flight.tell("Downloading", upload.offset, descriptor.size)
        if upload.offset > descriptor.size:
            await self._give_up(descriptor.digest, upload)
            upload = await self._begin(source.repository, descriptor.digest)
        async with aclosing(source.remote.blob(source.path, descriptor, upload.offset)) as stream:
            await upload.append(_split(stream, upload.offset, descriptor.size, feed, flight))
        flight.tell("Verifying Checksum")
        return await upload.commit(descriptor.digest)

    async def _begin(self, repository: RepositoryName, digest: Digest) -> Upload:
        """The upload session of an earlier try, where it broke off, or a new one."""
        earlier = await self._downloads.get(digest)
        if earlier is not None:
            with contextlib.suppress(NotFound):
                return await self._content.uploads.get(earlier.repository, earlier.upload_id)
        upload = await self._content.uploads.start(repository, digest.algorithm)
        await self._downloads.put(digest, Download(repository, upload.id))
        return upload

    async def _give_up(self, digest: Digest, upload: Upload) -> None:
        await self._downloads.drop(digest)
        await upload.abort()

    # -- snapshots

    async def _make(self, wanted: Wanted, number: int, flight: Flight[None]) -> None:
        layer = wanted.layers[number]
        with self.pinned(layer.chain):
            if self._snapshots.bare:
                if await self._take_shared(wanted, number, flight):
                    return
                await self._make_bare(wanted, number, flight)
            else:
                info = await self._fetch(wanted, layer.descriptor, None, flight.tell)
                await self._below(wanted, number)
                await self._make_upon(layer, info, flight)
            flight.tell("Pull complete")

    async def _below(self, wanted: Wanted, number: int) -> None:
        """Wait until the layers below are settled; makes them when nobody else does."""
        if number and not self._snapshots.has(wanted.layers[number - 1].chain_id):
            chain_id = wanted.layers[number - 1].chain_id
            await self._unpacks.run(chain_id, lambda flight: self._make(wanted, number - 1, flight))

    async def _make_bare(self, wanted: Wanted, number: int, flight: Flight[None]) -> None:
        layer = wanted.layers[number]
        target = await self._snapshots.prepare(layer.chain)
        try:
            info, unpacked = await self._fetch_and_unpack(wanted, layer, target, flight)
            await self._below(wanted, number)
            if unpacked is None or not await self._fits(target, unpacked):
                await self._snapshots.discard(target)
                await self._make_upon(layer, info, flight)
                return
            _check(layer, unpacked)
            await self._settle(layer, target, unpacked, inherit_root="" in unpacked.implied)
        except BaseException:
            await self._snapshots.discard(target)
            raise

    async def _fits(self, target: LayerTarget, unpacked: Unpacked) -> bool:
        """Give implied directories the attributes they have below; False when that shows that bare does not do."""
        lower = self._snapshots.lower(target)
        if lower is None or not (any(unpacked.implied) or unpacked.whiteouts):
            return True
        try:
            await self._pool.adopt(str(target.directory), lower, unpacked)
        except NeedsMergedTree:
            return False
        return True

    async def _make_upon(self, layer: Layer, info: BlobInfo, flight: Flight[None]) -> None:
        """Unpack upon the tree of the layers below, which are settled."""
        target = await self._snapshots.prepare(layer.chain)
        try:
            job = replace(self._job(layer, target), bare=False, mount=self._snapshots.merged(target))
            unpacked = await self._unpack_held(layer, job, info, flight)
            assert unpacked is not None, "the whole tree is there: nothing lower can be missing"
            _check(layer, unpacked)
            await self._settle(layer, target, unpacked, inherit_root=False)
        except BaseException:
            await self._snapshots.discard(target)
            raise

    async def _settle(self, layer: Layer, target: LayerTarget, unpacked: Unpacked, *, inherit_root: bool) -> None:
        await self._sizes.put(layer.diff_id, unpacked.size)
        await self._snapshots.settle(target, inherit_root=inherit_root)

    def _job(self, layer: Layer, target: LayerTarget) -> UnpackJob:
        return UnpackJob(str(target.directory), layer.compression, target.bare, not target.below,
                         algorithm=layer.diff_id.algorithm)

    async def _fetch_and_unpack(self, wanted: Wanted, layer: Layer, target: LayerTarget,
                                flight: Flight[None]) -> tuple[BlobInfo, Unpacked | None]:
        """At the same time, when the blob comes as a whole, now, and a worker is free; else one after the other."""
        digest = layer.descriptor.digest
        job = self._job(layer, target)
        if wanted.source is not None and await self._comes_whole(wanted.repository, digest):
            with self._pool.fed() as free:
                if free and not self._fetches.active(digest):
                    return await self._unpack_fed(wanted, layer, job, flight)
        info = await self._fetch(wanted, layer.descriptor, None, flight.tell)
        return info, await self._unpack_held(layer, job, info, flight)

    async def _comes_whole(self, repository: RepositoryName, digest: Digest) -> bool:
        """Neither here already nor begun earlier."""
        return await self._held_blob(repository, digest) is None and await self._downloads.get(digest) is None

    async def _unpack_fed(self, wanted: Wanted, layer: Layer, job: UnpackJob,
                          flight: Flight[None]) -> tuple[BlobInfo, Unpacked | None]:
        reading, feed = make_feed()
        extracting = _Extracting(layer.descriptor.size, flight)
        worker = asyncio.ensure_future(self._pool.unpack(job, reading, extracting.read))
        try:
            info = await self._fetch(wanted, layer.descriptor, feed, flight.tell)
            feed.close()
            extracting.show()
            # Only now does the worker's verdict count: bytes with a wrong digest are that first, a broken layer second.
            return info, await _unless_lower(worker)
        finally:
            feed.close()
            if not worker.done():
                worker.cancel()
            await asyncio.wait({worker})
            _ = worker.cancelled() or worker.exception()

    async def _unpack_held(self, layer: Layer, job: UnpackJob, info: BlobInfo, flight: Flight[None]) -> Unpacked | None:
        extracting = _Extracting(layer.descriptor.size, flight)
        extracting.show()
        path = self._content.blobs.local_path(info)
        if path is not None:
            descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
            return await _unless_lower(self._pool.unpack_file(job, descriptor, extracting.read))
        reading, feed = make_feed()
        worker = asyncio.ensure_future(self._pool.unpack_file(job, reading, extracting.read))
        try:
            async for chunk in self._content.blobs.read(info):
                await feed.write(chunk)
            feed.close()
            return await _unless_lower(worker)
        finally:
            feed.close()
            worker.cancel()
            await asyncio.wait({worker})


class _Extracting:
    """Turns a worker's position into lines, once the download's own are over."""

    def __init__(self, total: int, flight: Flight[None]) -> None:
        self._total = total
        self._flight = flight
        self._position = 0
        self._shown = False

    def show(self) -> None:
        self._shown = True
        self._flight.tell("Extracting", self._position, self._total)

    def read(self, position: int) -> None:
        self._position = min(position, self._total)
        if self._shown:
            self._flight.tell("Extracting", self._position, self._total)


async def _split(stream: AsyncIterator[bytes], offset: int, total: int, feed: Feed | None,
                 flight: Flight[BlobInfo]) -> AsyncIterator[bytes]:
    """The downloaded chunks for the store, and on the way for the worker."""
    async for chunk in stream:
        offset += len(chunk)
        flight.tell("Downloading", offset, total)
        if feed is not None:
            await feed.write(chunk)
        yield chunk


async def _unless_lower(work: "asyncio.Future[Unpacked] | Coroutine[object, object, Unpacked]") -> Unpacked | None:
    """None when the layer needs those below it to be unpacked."""
    try:
        return await work
    except NeedsMergedTree:
        return None


def _check(layer: Layer, unpacked: Unpacked) -> None:
    if unpacked.diff_id != layer.diff_id:
        raise DiffIdMismatch(layer.descriptor.digest, layer.diff_id, unpacked.diff_id)
