"""Pull: copy one image of a remote repository into ours, and its layers into snapshots.

Order: lease → manifests → config → layers (blobs committed, snapshots settled) → snapshots published (one syncfs) →
manifests and tag in the store. Broken off anywhere before the last step, there is no new image, and what was downloaded
is taken up again by the next pull.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from node.images.catalog import check_image, is_image, pick_platform
from node.images.errors import NoMatchingPlatform, NotAnImage, PullFailed, UnsupportedLayer, first_failure
from node.images.image import LAYER_COMPRESSION, Layer
from node.images.layers import Layers, Source, Wanted
from node.images.progress import LayerLine, Progress
from ocispec import image as images
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.errors import NotFound, PermissionDenied, Unauthenticated
from ocispec.image import ImageConfig
from ocispec.manifest import Manifest
from ocispec.reference import Reference, Tag
from storage.gc.leases import Leases
from storage.remote.client import RemoteManifest, RemoteRegistry
from storage.repository.store import ContentStore

_LEASE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for at the registry: the top (an index, or the image itself) and the platform's image."""

    top: RemoteManifest
    image: RemoteManifest

    @property
    def manifests(self) -> tuple[RemoteManifest, ...]:
        """Children before what refers to them."""
        return (self.image,) if self.top is self.image else (self.image, self.top)


class Puller:
    def __init__(self, content: ContentStore, leases: Leases, layers: Layers, downloads: int) -> None:
        self._content = content
        self._leases = leases
        self._layers = layers
        self._downloads = downloads

    async def pull(self, remote: RemoteRegistry, reference: Reference, platform: Platform,
                   progress: Progress) -> Digest:
        """`reference` has a tag or a digest. Gives the digest that it stands for."""
        source = Source(remote, reference.path, reference.repository, self._downloads)
        async with source.held(), self._leases.hold(f"pull {reference}", ttl=_LEASE) as lease:
            # Nothing is said before the image is known to be there: until then a failure is the whole answer.
            resolved = await resolve(remote, reference, platform)
            progress.status(f"Pulling from {reference.path}", _name(reference))
            image = resolved.image.manifest
            await lease.add(*(one.digest for one in resolved.manifests), *(blob.digest for blob in image.blobs))
            config = await self._config(source, image)
            chain = config.chain_ids()
            with self._layers.pinned(chain):
                await self.layers(Wanted(layers_of(image, config), reference.repository, source), progress)
                await self._layers.publish(chain)
                changed = await self._record(reference, resolved)
        await self._say_end(reference, resolved.top.digest, progress, changed=changed)
        return resolved.top.digest

    async def _config(self, source: Source, image: Manifest) -> ImageConfig:
        """The config is small: read whole and verified, then stored like any blob."""
        assert image.config is not None
        if image.config.size > images.MAX_BYTES:
            raise NotAnImage(f"the image's config has {image.config.size} bytes, more than {images.MAX_BYTES}")
        await self._layers.fetch(Wanted((), source.repository, source), image.config, _nothing)
        info = await self._content.blobs.stat(source.repository, image.config.digest)
        config = ImageConfig.parse(b"".join([chunk async for chunk in self._content.blobs.read(info)]))
        check_image(image, config)
        return config

    async def layers(self, wanted: Wanted, progress: Progress) -> None:
        """Every layer as blob and settled snapshot. Raises the first failure as it is, not as a group."""
        lines = [LayerLine(progress, layer.descriptor.digest.short) for layer in wanted.layers]
        try:
            async with asyncio.TaskGroup() as group:
                for number, line in enumerate(lines):
                    line.say("Pulling fs layer")
                    group.create_task(self._layer(wanted, number, line))
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from failures

    async def _layer(self, wanted: Wanted, number: int, line: LayerLine) -> None:
        if number >= self._downloads and wanted.source is not None:
            line.say("Waiting")
        if await self._layers.ensure(wanted, number, line.say):
            line.say("Already exists")
        else:
            line.say("Pull complete")

    async def _record(self, reference: Reference, resolved: Resolved) -> bool:
        """One transaction a manifest; the tag comes with the last. Whether the name stands for something new."""
        repository = reference.repository
        known = await self._known(reference)
        for one in resolved.manifests:
            tags = (reference.tag,) if one is resolved.top and reference.tag and not reference.digest else ()
            await self._content.manifests.put(repository, one.manifest, digest=one.digest, tags=tags,
                                              require_children=False, pinned=one is resolved.top)
        return known != resolved.top.digest

    async def _known(self, reference: Reference) -> Digest | None:
        name = reference.digest or reference.tag
        assert name is not None
        try:
            return (await self._content.manifests.get(reference.repository, name)).digest
        except NotFound:
            return None

    async def _say_end(self, reference: Reference, digest: Digest, progress: Progress, *, changed: bool) -> None:
        progress.status(f"Digest: {digest}")
        what = "Downloaded newer image for" if changed else "Image is up to date for"
        progress.status(f"Status: {what} {reference.familiar()}")


async def resolve(remote: RemoteRegistry, reference: Reference, platform: Platform) -> Resolved:
    """Raises PullFailed, NoMatchingPlatform, NotAnImage, and the remote's own errors."""
    name: Tag | Digest | None = reference.digest or reference.tag
    assert name is not None
    try:
        top = await remote.manifest(reference.path, name)
        image = top
        if top.manifest.is_index:
            chosen = pick_platform(top.manifest.children, platform)
            if chosen is None:
                raise NoMatchingPlatform(f"no matching manifest for {platform} in the manifest list entries")
            image = await remote.manifest(reference.path, chosen.digest)
    except NoMatchingPlatform:
        raise
    except NotFound as error:
        raise PullFailed(f"manifest for {reference.familiar()} not found: {error.message}") from error
    except (PermissionDenied, Unauthenticated) as error:
        # Not as Unauthenticated: upon a 401 the docker command asks for a name, and a script that has nobody to ask
        # waits for ever. Docker's daemon answers 404 with these words.
        raise PullFailed(_denied(reference, error.message)) from error
    if not is_image(image.manifest):
        kind = image.manifest.config.media_type if image.manifest.config else image.manifest.media_type
        raise NotAnImage(f"{reference.familiar()} is no container image: its config is {kind!r}")
    return Resolved(top, image)


def _denied(reference: Reference, message: str) -> str:
    return (f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {message}")


def layers_of(manifest: Manifest, config: ImageConfig) -> Sequence[Layer]:
    """Raises UnsupportedLayer."""
    chain = config.chain_ids()
    found = []
    for number, (descriptor, diff_id) in enumerate(zip(manifest.layers, config.diff_ids, strict=True)):
        compression = LAYER_COMPRESSION.get(descriptor.media_type)
        if compression is None:
            raise UnsupportedLayer(f"layer {descriptor.digest} has media type {descriptor.media_type[:200]!r}, "
                                   "which cannot be unpacked")
        found.append(Layer(descriptor, diff_id, chain[:number + 1], compression))
    return found


def _name(reference: Reference) -> str:
    return str(reference.digest or reference.tag)


def _nothing(_status: str, _current: int, _total: int) -> None:
    pass


