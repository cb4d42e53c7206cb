"""Push: what a local repository holds under a tag, to the registry that its name says."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from node.images.catalog import Catalog, Top
from node.images.errors import NothingToPush, first_failure
from node.images.image import PushResult
from node.images.progress import LayerLine, Progress
from ocispec import manifest as manifests
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.manifest import Manifest
from ocispec.reference import Reference, RepositoryName, Tag
from storage.remote.client import RemoteRegistry
from storage.remote.errors import RemoteDenied, RemoteNotFound, RemoteRefused
from storage.repository.store import ContentStore

_MOUNT_TRIES = 3  # source repositories asked for one blob


class Pusher:
    def __init__(self, content: ContentStore, uploads: int) -> None:
        self._content = content
        self._uploads = uploads

    async def push(self, remote: RemoteRegistry, reference: Reference, catalog: Catalog,
                   progress: Progress, platform: Platform | None = None) -> PushResult:
        """One tag, or every tag of the repository when the reference names none; gives the last."""
        progress.status(f"The push refers to repository [{reference.domain}/{reference.path}]")
        result = None
        for tag, top in _chosen(reference, catalog):
            top = top if platform is None else _alone(catalog, top, tag, platform)
            result = await self._push_tag(remote, reference, tag, top, catalog, progress)
        assert result is not None
        return result

    async def _push_tag(self, remote: RemoteRegistry, reference: Reference, tag: Tag, top: Top, catalog: Catalog,
                        progress: Progress) -> PushResult:
        """An index goes as it is when all of it is here; else the platform's image alone, under the tag."""
        repository = top.repository
        children = [await self._manifest(repository, digest) for digest in top.parts[1:]]
        whole = len(children) == len(top.manifest.children)
        images = [child for child in children if not child.is_index] if whole and children else [top.image_manifest]
        slots = asyncio.Semaphore(self._uploads)
        labels = _labels(images, catalog)
        blobs = {blob.digest: blob for image in images for blob in (*image.layers, image.config) if blob is not None}
        try:
            async with asyncio.TaskGroup() as group:
                for blob in blobs.values():
                    line = LayerLine(progress, labels[blob.digest]) if blob.digest in labels else None
                    sources = _sources(catalog, reference, blob)
                    group.create_task(self._blob(remote, reference, blob, line, sources, slots))
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from failures
        last, digest = (top.manifest, top.digest) if whole else (top.image_manifest, top.image)
        for child in children if whole else ():
            await remote.put_manifest(reference.path, child.digest(), child)
        await remote.put_manifest(reference.path, tag, last)
        progress.status(f"{tag}: digest: {digest} size: {len(last.raw)}")
        progress.aux({"Tag": str(tag), "Digest": str(digest), "Size": len(last.raw)})
        return PushResult(str(tag), digest, len(last.raw))

    async def _manifest(self, repository: RepositoryName, digest: Digest) -> Manifest:
        stored = await self._content.manifests.get(repository, digest)
        return manifests.parse(stored.raw, stored.media_type)

    async def _blob(self, remote: RemoteRegistry, reference: Reference, blob: Descriptor, line: LayerLine | None,
                    sources: Sequence[RepositoryName], slots: asyncio.Semaphore) -> None:
        say = line.say if line is not None else _nothing
        say("Preparing")
        if slots.locked():
            say("Waiting")
        async with slots:
            if await remote.has_blob(reference.path, blob.digest, push=True):
                say("Layer already exists")
                return
            for source in sources:
                if await _mounted(remote, reference.path, blob.digest, source):
                    say(f"Mounted from {source}")
                    return
            info = await self._content.blobs.stat(reference.repository, blob.digest)

            async def read(start: int) -> AsyncIterator[bytes]:
                position = start
                async for chunk in self._content.blobs.read(info, start):
                    position += len(chunk)
                    say("Pushing", position, info.size)
                    yield chunk

            say("Pushing", 0, info.size)
            await remote.upload(reference.path, blob, read)
            say("Pushed")


def _chosen(reference: Reference, catalog: Catalog) -> list[tuple[Tag, Top]]:
    """Raises NothingToPush with Docker's wording."""
    tags = sorted((tag, top) for (repository, tag), top in catalog.tags.items() if repository == reference.repository)
    if not tags:
        raise NothingToPush(f"An image does not exist locally with the tag: {reference.familiar_name}")
    if reference.tag is None:
        return tags
    found = [(tag, top) for tag, top in tags if tag == reference.tag]
    if not found:
        raise NothingToPush(f"tag does not exist: {reference.familiar()}")
    return found


def _alone(catalog: Catalog, top: Top, tag: Tag, platform: Platform) -> Top:
    """The platform's image as a top of its own. Raises PlatformMissing."""
    image = catalog.find(f"{top.repository}:{tag}", platform)
    only = ((image.manifest_digest, image.manifest),)
    return Top(top.repository, image.manifest_digest, image.manifest, image.manifest_digest, image.manifest,
               (image.manifest_digest,), only)


def _labels(images: Iterable[Manifest], catalog: Catalog) -> dict[Digest, str]:
    """What a layer's line is called: the diff_id's short form, as Docker does where it knows it."""
    labels: dict[Digest, str] = {}
    for manifest in images:
        image = catalog.images.get(manifest.config.digest) if manifest.config else None
        diff_ids = image.config.diff_ids if image else tuple(layer.digest for layer in manifest.layers)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=False):
            labels[layer.digest] = diff_id.short
    return labels


def _sources(catalog: Catalog, reference: Reference, blob: Descriptor) -> list[RepositoryName]:
    """Other repositories of the same registry that hold the blob as far as we know: it was pulled from there."""
    prefix = f"{reference.domain}/"
    held = sorted(name.value for name in catalog.repositories_with(blob.digest))
    others = [name.removeprefix(prefix) for name in held if name.startswith(prefix)]
    return [RepositoryName.parse(name) for name in others if name != reference.path.value][:_MOUNT_TRIES]


async def _mounted(remote: RemoteRegistry, path: RepositoryName, digest: Digest, source: RepositoryName) -> bool:
    """A registry that refuses a mount still takes an upload."""
    try:
        return await remote.mount(path, digest, source)
    except (RemoteNotFound, RemoteDenied, RemoteRefused):
        return False


def _nothing(_status: str, _current: int = 0, _total: int = 0) -> None:
    pass
