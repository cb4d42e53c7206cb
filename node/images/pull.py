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
from node.images.errors import NoMatchingPlatform, NotAnImage, OldManifest, PullFailed, UnsupportedLayer, first_failure
from node.images.image import LAYER_COMPRESSION, Layer
from node.images.layers import Layers, Source, Wanted
from node.images.mirrors import Place
from node.images.progress import LayerLine, Progress
from ocispec import image as images
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.errors import NotFound, PermissionDenied, Unauthenticated
from ocispec.image import ImageConfig
from ocispec.manifest import Manifest
from ocispec.reference import Reference, Tag
from storage.gc.leases import Leases
from storage.remote.client import RemoteManifest
from storage.remote.errors import RemoteOldManifest
from storage.repository.store import ContentStore

_LEASE = timedelta(hours=24)
_TAGS_AT_ONCE = 1000


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

    async def pull(self, place: Place, reference: Reference, platform: Platform, progress: Progress) -> Digest:
        """`reference` has a tag or a digest. Gives the digest that it stands for."""
        source = Source(place.remote, place.path, reference.repository, self._downloads)
        async with source.held(), self._leases.hold(f"pull {reference}", ttl=_LEASE) as lease:
            # Nothing is said before the image is known to be there: until then a failure is the whole answer.
            resolved = await resolve(place, reference, platform)
            progress.status(f"Pulling from {reference.path}", _name(reference))
            image = resolved.image.manifest
            await lease.add(*(one.digest for one in resolved.manifests), *(blob.digest for blob in image.blobs))
            config = await self._config(source, image)
            chain = config.chain_ids()
            with self._layers.pinned(chain):
                wanted = Wanted(layers_of(image, config), reference.repository, source)
                await self.layers(wanted, progress)
                await self._layers.publish(chain)
                changed = await self._record(reference, resolved)
                await self._layers.share(wanted)
        await self._say_end(reference, resolved.top.digest, progress, changed=changed)
        return resolved.top.digest

    async def tags(self, place: Place, reference: Reference) -> Sequence[Tag]:
        """Every tag that the registry has of the repository. Raises PullFailed."""
        found: list[Tag] = []
        async with place.remote:
            try:
                more, last = True, None
                while more:
                    page = await place.remote.tags(place.path, _TAGS_AT_ONCE, last)
                    found += map(Tag, page.names)
                    more, last = page.more, page.names[-1] if page.names else None
            except NotFound as error:
                raise PullFailed(f"repository {reference.familiar_name} not found: {error.message}") from error
            except (PermissionDenied, Unauthenticated) as error:
                raise PullFailed(_denied(reference, error.message)) from error
        if not found:
            raise PullFailed(f"repository {reference.familiar_name} has no tags")
        return found

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


async def resolve(place: Place, reference: Reference, platform: Platform) -> Resolved:
    """Raises PullFailed, NoMatchingPlatform, NotAnImage, OldManifest, and the remote's own errors."""
    image = top = await resolve_top(place, reference)
    if top.manifest.is_index:
        chosen = pick_platform(top.manifest.children, platform)
        if chosen is None:
            raise NoMatchingPlatform(f"no matching manifest for {platform} in the manifest list entries")
        image = await _manifest(place, reference, chosen.digest)
    if not is_image(image.manifest):
        kind = image.manifest.config.media_type if image.manifest.config else image.manifest.media_type
        raise NotAnImage(f"{reference.familiar()} is no container image: its config is {kind!r}")
    return Resolved(top, image)


async def resolve_top(place: Place, reference: Reference) -> RemoteManifest:
    """What the name stands for, with a user's words for what may go wrong."""
    name: Tag | Digest | None = reference.digest or reference.tag
    assert name is not None
    return await _manifest(place, reference, name)


async def _manifest(place: Place, reference: Reference, name: Tag | Digest) -> RemoteManifest:
    try:
        return await place.remote.manifest(place.path, name)
    except RemoteOldManifest as error:
        raise OldManifest(
            f"{reference.familiar()} has a manifest of Docker's image manifest version 2, schema 1, which is not "
            "supported: ask its publisher for an OCI image or schema 2") from error
    except NotFound as error:
        raise PullFailed(f"manifest for {reference.familiar()} not found: {error.message}") from error
    except (PermissionDenied, Unauthenticated) as error:
        # Not as Unauthenticated: upon a 401 the docker command asks for a name, and a script that has nobody to ask
        # waits for ever. Docker's daemon answers 404 with these words.
        raise PullFailed(_denied(reference, error.message)) from error


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


