"""Images: what the API and the containers ask for. Build it with `opening.open_images`."""

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from logging import getLogger

from node.images.archive.intake import Intake
from node.images.catalog import Catalog, CatalogReader, NamedBy
from node.images.census import Census, descriptor_of, parts
from node.images.distribution import Distributed, inspect
from node.images.errors import ImageInUse
from node.images.history import history
from node.images.image import (
    UNNAMED,
    HistoryEntry,
    Image,
    ImageUsage,
    Part,
    Pruned,
    PushResult,
    Removal,
    host_platform,
)
from node.images.layers import Layers, Wanted
from node.images.mirrors import Place, Rules
from node.images.progress import Progress, Silent
from node.images.pull import Puller, layers_of
from node.images.push import Pusher
from node.images.removal import Plan, Users, plan
from node.images.unpack.pool import UnpackLimits
from node.state.images import ImageUseRows
from node.state.snapshots import LayerSizeRows
from ocispec import manifest as manifests
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.errors import NotFound, ResourceExhausted, SeawallError
from ocispec.manifest import Manifest
from ocispec.reference import Reference, RepositoryName, Tag
from storage.gc.sweep import Collector
from storage.remote.auth import Credentials
from storage.remote.origin import OriginRegistry
from storage.remote.transport import RemoteSettings
from storage.repository.store import ContentStore

log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """`insecure_registries`: HOST, HOST:PORT or a network in CIDR form. `downloads` and `uploads`: at once, for each
    pull and push (Docker's numbers). `workers`: unpack processes at once, of each kind (see UnpackPool)."""

    insecure_registries: tuple[str, ...] = ()
    downloads: int = 3
    uploads: int = 5
    workers: int = 2
    unpack: UnpackLimits = field(default_factory=UnpackLimits)
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    platform: Platform = field(default_factory=host_platform)
    registries: Rules = field(default_factory=Rules)

    def insecure(self, host: str) -> bool:
        if self.registries.of(host).insecure:
            return True
        bare = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if host in self.insecure_registries or bare in self.insecure_registries:
            return True
        try:
            address = ipaddress.ip_address(bare.strip("[]"))
        except ValueError:
            return False
        return any(address in network for network in _networks(self.insecure_registries))


def _networks(entries: Collection[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(entry, strict=False) for entry in entries if "/" in entry]


class Images:
    """Pull, push and everything in between. Methods raise the errors of node.images.errors and of the rooms below."""

    def __init__(self, content: ContentStore, puller: Puller, pusher: Pusher, layers: Layers, reader: CatalogReader,
                 sizes: LayerSizeRows, collector: Collector, census: Census, uses: ImageUseRows, intake: Intake,
                 settings: ImageSettings) -> None:
        self._content = content
        self._puller = puller
        self._pusher = pusher
        self._layers = layers
        self._reader = reader
        self._sizes = sizes
        self._collector = collector
        self._census = census
        self._uses = uses
        self._settings = settings
        self.intake = intake
        self._catalog: Catalog | None = None
        self._changes = 0
        self._changing = asyncio.Lock()

    # -- pull and push

    async def pull(self, reference: Reference, *, platform: Platform | None = None, auth: Credentials | None = None,
                   progress: Progress | None = None) -> Image:
        """Cancelling it leaves the store as it was, and what was downloaded for the next try."""
        reference = reference.with_default_tag()
        try:
            digest = await self._pull(reference, platform or self._settings.platform, auth, progress or Silent())
        finally:
            self._changed()
        name = f"{reference.domain}/{reference.path}@{digest}"
        image = (await self._read()).find(name, platform)
        await self._used(image)
        await self._named(await self._read(), image)
        return image

    async def _pull(self, reference: Reference, platform: Platform, auth: Credentials | None,
                    progress: Progress) -> Digest:
        places = self._places(reference, auth)
        for place in places[:-1]:
            try:
                return await self._puller.pull(place, reference, platform, progress)
            except ResourceExhausted:
                raise  # our own disk: the next place would find it as full
            except SeawallError as error:
                log.warning("mirror %s does not give %s: %s", place.remote.address, reference, error.message)
        return await self._puller.pull(places[-1], reference, platform, progress)

    async def pull_all(self, reference: Reference, *, platform: Platform | None = None,
                       auth: Credentials | None = None, progress: Progress | None = None) -> Sequence[Image]:
        """Every tag of the repository. Raises PullFailed when there is none."""
        tags = await self._puller.tags(Place(self._remote(reference, auth), reference.path), reference)
        return [await self.pull(replace(reference, tag=tag), platform=platform, auth=auth, progress=progress)
                for tag in tags]

    async def distribution(self, reference: Reference, *, auth: Credentials | None = None) -> Distributed:
        reference = reference.with_default_tag()
        return await inspect(Place(self._remote(reference, auth), reference.path), reference)

    async def push(self, reference: Reference, *, platform: Platform | None = None, auth: Credentials | None = None,
                   progress: Progress | None = None) -> PushResult:
        """With `platform` its image alone, without an index around it. Raises NothingToPush, PlatformMissing."""
        catalog = await self._read()
        async with self._remote(reference, auth) as remote:
            return await self._pusher.push(remote, reference, catalog, progress or Silent(), platform)

    async def check_login(self, host: str, credentials: Credentials) -> None:
        """`docker login`. Raises RemoteUnauthorized, RemoteUnavailable."""
        async with OriginRegistry(host, insecure=self._settings.insecure(host), credentials=credentials,
                                  settings=self._settings.remote) as remote:
            await remote.ping()

    def _remote(self, reference: Reference, auth: Credentials | None) -> OriginRegistry:
        return OriginRegistry(reference.domain, insecure=self._settings.insecure(reference.domain), credentials=auth,
                              settings=self._settings.remote)

    def _places(self, reference: Reference, auth: Credentials | None) -> Sequence[Place]:
        return self._settings.registries.places(reference, self._remote(reference, auth), self._settings.remote)

    # -- reading

    async def get(self, name_or_id: str, platform: Platform | None = None) -> Image:
        """Raises ImageNotFound, AmbiguousImage, PlatformMissing."""
        return (await self._read()).find(name_or_id, platform)

    async def holds(self, image: Digest) -> bool:
        """Whether an image has this id."""
        catalog = await self._read()
        return image in catalog.images or image in catalog.others

    async def catalog(self) -> Catalog:
        """Everything that is here now."""
        return await self._read()

    async def parts(self, name_or_id: str) -> Sequence[Part]:
        """The manifests under a name. Raises ImageNotFound, AmbiguousImage."""
        catalog = await self._read()
        return parts(catalog, catalog.top_of(name_or_id))

    async def target(self, name_or_id: str) -> Descriptor:
        """What the name stands for at a registry: the image, or its index."""
        top = (await self._read()).top_of(name_or_id)
        return descriptor_of(top.manifest, top.digest)

    async def usage(self) -> ImageUsage:
        return await self._census.usage(await self._read())

    async def list(self) -> Sequence[Image]:
        """Newest first."""
        catalog = await self._read()
        return sorted(catalog.images.values(), key=lambda image: (image.created, str(image.id)), reverse=True)

    async def history(self, name_or_id: str, platform: Platform | None = None) -> Sequence[HistoryEntry]:
        image = await self.get(name_or_id, platform)
        return history(image, await self._sizes.get(image.config.diff_ids))

    async def ensure_unpacked(self, image: Image) -> tuple[Digest, ...]:
        """The image's chain ids, its layers unpacked again where a snapshot is gone."""
        with self._layers.pinned(image.chain):
            wanted = Wanted(layers_of(image.manifest, image.config), image.repository, None)
            await self._puller.layers(wanted, Silent())
            await self._layers.publish(image.chain)
        await self._used(image)
        return image.chain

    async def _used(self, image: Image) -> None:
        """Under the id by which it is listed, whatever platform's it is."""
        catalog = await self._read()
        listed = [one for one in (image.id, *image.variants) if one in catalog.images]
        await self._uses.touch(listed, datetime.now(UTC))

    async def _read(self) -> Catalog:
        """The catalog, read again after a change. This process is the store's only writer."""
        while self._catalog is None:
            before = self._changes
            catalog = await self._reader.read()
            if self._changes == before:
                self._catalog = catalog
        return self._catalog

    def changed(self) -> None:
        """Somebody of this room wrote to the store."""
        self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._catalog = None

    # -- changing

    async def tag(self, source: str, target: Reference) -> None:
        """Raises ImageNotFound."""
        async with self._changing:
            catalog = await self._read()
            image = catalog.find(source)
            named = catalog.named(source)
            name = named or catalog.references[image.id][0]
            top = catalog.top(name)
            await self._used(image)
            tag = target.with_default_tag().tag or Tag("latest")
            for digest in (*(part for part in top.parts if part != top.digest), top.digest):
                tags = (tag,) if digest == top.digest else ()
                await self._copy(top.repository, digest, target.repository, tags)
            await self._named(catalog, image)
            self._changed()

    async def _named(self, catalog: Catalog, image: Image) -> None:
        """An image that was made here without a name has one now."""
        for name in catalog.references.get(image.id, ()):
            if name.repository == UNNAMED:
                await self._untag(catalog, name)

    async def _copy(self, source: RepositoryName, digest: Digest, target: RepositoryName,
                    tags: tuple[Tag, ...]) -> None:
        stored = await self._content.manifests.get(source, digest)
        manifest: Manifest = manifests.parse(stored.raw, stored.media_type)
        if source != target:
            for blob in manifest.blobs:
                await self._content.blobs.link(target, blob.digest)
        await self._content.manifests.put(target, manifest, digest=digest, tags=tags, require_children=False,
                                          pinned=bool(tags))

    async def remove(self, name_or_id: str, *, force: bool = False, prune: bool = True,
                     in_use: Mapping[str, Sequence[str]] | None = None,
                     running: Collection[str] = ()) -> Sequence[Removal]:
        """`in_use`: container ids by image id; `running`: those of them that run. With `prune` off the layers and blobs
        stay until the next removal that prunes. Raises ImageNotFound, AmbiguousImage, ImageInUse."""
        async with self._changing:
            decided = plan(await self._read(), name_or_id, Users(in_use or {}, running), force=force)
            catalog = await self._read()
            for name in decided.names:
                await self._untag(catalog, name)
            self._changed()
            lines = decided.lines()
            if decided.deletes and prune:
                lines += [Removal("Deleted", str(chain_id)) for chain_id in await self._collect()]
            return lines

    async def prune(self, wanted: Callable[[Image], bool], in_use: Mapping[str, Sequence[str]]) -> Pruned:
        """Remove the images that are `wanted` gone and that no container was made from, and whatever nothing needs."""
        async with self._changing:
            catalog = await self._read()
            before = (await self._census.usage(catalog)).total()
            users, lines = Users(in_use, ()), list[Removal]()
            for image in catalog.images.values():
                if wanted(image) and not users.of(image):
                    names = catalog.references[image.id]
                    for name in names:
                        await self._untag(catalog, name)
                    lines += Plan(image, tuple(names), deletes=True).lines()
            self._changed()
            lines += [Removal("Deleted", str(chain_id)) for chain_id in await self._collect()]
            after = (await self._census.usage(await self._read())).total()
            return Pruned(tuple(lines), max(before - after, 0))

    async def remove_platforms(self, name_or_id: str, platforms: Sequence[Platform],
                               in_use: Mapping[str, Sequence[str]]) -> Sequence[Removal]:
        """Take the images for these platforms from under a name that keeps others. Raises ImageNotFound,
        PlatformMissing, ImageInUse."""
        async with self._changing:
            catalog = await self._read()
            top = catalog.top_of(name_or_id)
            found = [catalog.find(name_or_id, platform) for platform in platforms]
            going = {image.id: image for image in found}
            if len(going) == len(top.images):
                raise ImageInUse(f"conflict: {name_or_id} has no other platform: remove the image itself")
            lines = []
            for image in going.values():
                if users := in_use.get(str(image.id)):
                    raise ImageInUse(f"conflict: unable to delete {image.id.short} ({image.platform}) - container "
                                     f"{users[0][:12]} was made from it")
                lines.append(Removal("Deleted", str(image.manifest_digest)))
            for image in going.values():
                await self._content.manifests.delete(top.repository, image.manifest_digest)
            self._changed()
            return [*lines, *(Removal("Deleted", str(chain_id)) for chain_id in await self._collect())]

    async def _untag(self, catalog: Catalog, name: NamedBy) -> None:
        top = catalog.top(name)
        try:
            if isinstance(name.name, Tag):
                await self._content.tags.delete(name.repository, name.name)
                return
            kept = {part for other in catalog.tops.values() if other is not top and other.repository == name.repository
                    for part in other.parts}
            for digest in (top.digest, *(part for part in top.parts if part != top.digest and part not in kept)):
                await self._content.manifests.delete(name.repository, digest)
        except NotFound:
            return  # gone with its tag already

    async def tidy(self, older_than: timedelta) -> None:
        """Give up downloads that nobody went on with for so long, and remove what nothing needs."""
        async with self._changing:
            if await self._content.uploads.expire(older_than):
                log.info("downloads that nobody went on with for %s were given up", older_than)
            await self._collect()

    async def _collect(self) -> Sequence[Digest]:
        """Remove the layers and bytes that no image names; gives the chain ids of the layers that went."""
        gone = await self._layers.forget_all_but((await self._read()).chains())
        await self._collector.run(grace=timedelta(0))
        return gone
