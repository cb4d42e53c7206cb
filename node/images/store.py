"""Images: what the API and the containers ask for. Build it with `opening.open_images`."""

import asyncio
import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from node.images.catalog import Catalog, CatalogReader, NamedBy
from node.images.history import history
from node.images.image import HistoryEntry, Image, PushResult, Removal, host_platform
from node.images.layers import Layers, Wanted
from node.images.progress import Progress, Silent
from node.images.pull import Puller, layers_of
from node.images.push import Pusher
from node.images.removal import Users, plan
from node.images.unpack.pool import UnpackLimits
from node.state.snapshots import LayerSizeRows
from ocispec import manifest as manifests
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.errors import NotFound
from ocispec.manifest import Manifest
from ocispec.reference import Reference, RepositoryName, Tag
from storage.gc.sweep import Collector
from storage.remote.auth import Credentials
from storage.remote.client import RemoteRegistry
from storage.remote.transport import RemoteSettings
from storage.repository.store import ContentStore


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

    def insecure(self, host: str) -> bool:
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
                 sizes: LayerSizeRows, collector: Collector, settings: ImageSettings) -> None:
        self._content = content
        self._puller = puller
        self._pusher = pusher
        self._layers = layers
        self._reader = reader
        self._sizes = sizes
        self._collector = collector
        self._settings = settings
        self._catalog: Catalog | None = None
        self._changes = 0
        self._changing = asyncio.Lock()

    # -- pull and push

    async def pull(self, reference: Reference, *, platform: Platform | None = None, auth: Credentials | None = None,
                   progress: Progress | None = None) -> Image:
        """Cancelling it leaves the store as it was, and what was downloaded for the next try."""
        reference = reference.with_default_tag()
        try:
            digest = await self._puller.pull(self._remote(reference, auth), reference,
                                             platform or self._settings.platform, progress or Silent())
        finally:
            self._changed()
        return (await self._read()).find(f"{reference.domain}/{reference.path}@{digest}")

    async def push(self, reference: Reference, *, auth: Credentials | None = None,
                   progress: Progress | None = None) -> PushResult:
        """Raises NothingToPush."""
        catalog = await self._read()
        async with self._remote(reference, auth) as remote:
            return await self._pusher.push(remote, reference, catalog, progress or Silent())

    async def check_login(self, host: str, credentials: Credentials) -> None:
        """`docker login`. Raises RemoteUnauthorized, RemoteUnavailable."""
        async with RemoteRegistry(host, insecure=self._settings.insecure(host), credentials=credentials,
                                  settings=self._settings.remote) as remote:
            await remote.ping()

    def _remote(self, reference: Reference, auth: Credentials | None) -> RemoteRegistry:
        return RemoteRegistry(reference.domain, insecure=self._settings.insecure(reference.domain), credentials=auth,
                              settings=self._settings.remote)

    # -- reading

    async def get(self, name_or_id: str) -> Image:
        """Raises ImageNotFound, AmbiguousImage."""
        return (await self._read()).find(name_or_id)

    async def list(self) -> Sequence[Image]:
        """Newest first."""
        catalog = await self._read()
        return sorted(catalog.images.values(), key=lambda image: (image.created, str(image.id)), reverse=True)

    async def history(self, name_or_id: str) -> Sequence[HistoryEntry]:
        image = await self.get(name_or_id)
        return history(image, await self._sizes.get(image.config.diff_ids))

    async def ensure_unpacked(self, image: Image) -> tuple[Digest, ...]:
        """The image's chain ids, its layers unpacked again where a snapshot is gone."""
        with self._layers.pinned(image.chain):
            wanted = Wanted(layers_of(image.manifest, image.config), image.repository, None)
            await self._puller.layers(wanted, Silent())
            await self._layers.publish(image.chain)
        return image.chain

    async def _read(self) -> Catalog:
        """The catalog, read again after a change. This process is the store's only writer."""
        while self._catalog is None:
            before = self._changes
            catalog = await self._reader.read()
            if self._changes == before:
                self._catalog = catalog
        return self._catalog

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
            tag = target.with_default_tag().tag or Tag("latest")
            for digest in (*(part for part in top.parts if part != top.digest), top.digest):
                tags = (tag,) if digest == top.digest else ()
                await self._copy(top.repository, digest, target.repository, tags)
            self._changed()

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
                lines += [Removal("Deleted", str(chain_id)) for chain_id in await self.prune()]
            return lines

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

    async def prune(self) -> Sequence[Digest]:
        """Remove the layers and bytes that no image names; gives the chain ids of the layers that went."""
        kept = {chain_id for image in (await self._read()).images.values() for chain_id in image.chain}
        gone = await self._layers.forget_all_but(kept)
        await self._collector.run(grace=timedelta(0))
        return gone
