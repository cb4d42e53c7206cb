"""Images that are made here instead of pulled: bytes into the store, layers unpacked and verified, then the name.

The order is a pull's: blobs (held by a lease), snapshots, manifest and tag last. Broken off anywhere before, there is
no image, and what it left is collected.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from node.images.catalog import check_image
from node.images.layers import Layers, Wanted
from node.images.progress import Progress
from node.images.pull import Puller, layers_of
from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import SeawallError
from ocispec.image import ImageConfig
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from storage.gc.leases import Lease, Leases
from storage.repository.store import ContentStore

_LEASE = timedelta(hours=24)

OWNER = "intake"
"""Of uploads that nobody goes on with: what a killed daemon left is thrown away by the next."""

_TYPES = {"plain": mediatype.OCI_LAYER, "gzip": mediatype.OCI_LAYER_GZIP, "zstd": mediatype.OCI_LAYER_ZSTD}


@dataclass(frozen=True, slots=True)
class Made:
    """An image whose blobs are in `repository` already."""

    repository: RepositoryName
    manifest: Manifest
    config: ImageConfig


class Taking:
    """One intake under way: its bytes are safe from collection until it ends."""

    def __init__(self, content: ContentStore, puller: Puller, layers: Layers, lease: Lease) -> None:
        self._content = content
        self._puller = puller
        self._layers = layers
        self._lease = lease

    async def stream(self, repository: RepositoryName, chunks: AsyncIterator[bytes],
                     digest: Callable[[], Any]) -> Digest:
        """Bytes whose digest is known when they have all come (`digest`, awaited). Raises DigestMismatch."""
        upload = await self._content.uploads.start(repository, owner=OWNER)
        try:
            await upload.append(chunks)
            name: Digest = await digest()
            await self._lease.add(name)
            await upload.commit(name)
        except BaseException:
            with contextlib.suppress(SeawallError):
                await upload.abort()
            raise
        return name

    async def blob(self, repository: RepositoryName, digest: Digest,
                   chunks: Callable[[], AsyncIterator[bytes]]) -> None:
        """Bytes of a known digest, which are only read when the store does not have them."""
        await self._lease.add(digest)
        if await self._content.blobs.has_any(digest) is not None:
            await self._content.blobs.link(repository, digest)
            return

        async def known() -> Digest:
            return digest

        await self.stream(repository, chunks(), known)

    async def document(self, repository: RepositoryName, raw: bytes) -> Digest:
        digest = Digest.of(raw)

        async def chunks() -> AsyncIterator[bytes]:
            yield raw

        await self.blob(repository, digest, chunks)
        return digest

    async def link(self, repository: RepositoryName, blobs: Sequence[Descriptor]) -> None:
        """Blobs of another image that is here. Raises BlobUnknown."""
        await self._lease.add(*(blob.digest for blob in blobs))
        for blob in blobs:
            await self._content.blobs.link(repository, blob.digest)

    async def unpack(self, made: Made, progress: Progress) -> None:
        """Raises NotAnImage, DiffIdMismatch, and what is wrong with a layer."""
        check_image(made.manifest, made.config)
        chain = made.config.chain_ids()
        with self._layers.pinned(chain):
            wanted = Wanted(layers_of(made.manifest, made.config), made.repository, None)
            await self._puller.layers(wanted, progress)
            await self._layers.publish(chain)
            await self._content.manifests.put(made.repository, made.manifest, require_children=False, pinned=False)

    async def adopt(self, container_id: str, chain: Sequence[Digest], diff_id: Digest, size: int) -> bool:
        """Before `unpack`, which then finds the layer there. See `Layers.adopt`."""
        return await self._layers.adopt(container_id, chain, diff_id, size)

    async def name(self, repository: RepositoryName, manifest: Manifest, tags: Sequence[Tag],
                   digest: Digest | None = None) -> None:
        await self._content.manifests.put(repository, manifest, digest=digest, tags=tags, require_children=False)


class Intake:
    def __init__(self, content: ContentStore, leases: Leases, puller: Puller, layers: Layers) -> None:
        self._content = content
        self._leases = leases
        self._puller = puller
        self._layers = layers

    async def clear(self) -> None:
        """Drop what a killed daemon was taking in. Before anything is taken."""
        await self._content.uploads.drop(OWNER)

    @asynccontextmanager
    async def taking(self, what: str) -> AsyncIterator[Taking]:
        async with self._leases.hold(what, ttl=_LEASE) as lease:
            yield Taking(self._content, self._puller, self._layers, lease)


def layer_type(compression: str, like: Manifest | None = None) -> str:
    """The media type of a layer in a manifest of the same family as `like`."""
    if like is not None and like.media_type == mediatype.DOCKER_MANIFEST and compression == "gzip":
        return mediatype.DOCKER_LAYER_GZIP
    return _TYPES[compression]


def manifest_of(config: Descriptor, layers: Sequence[Descriptor], *, docker: bool = False) -> Manifest:
    """The manifest of an image made here. `docker`: with Docker's media types, as the layers below have them."""
    media_type = mediatype.DOCKER_MANIFEST if docker else mediatype.OCI_MANIFEST
    document = {"schemaVersion": 2, "mediaType": media_type, "config": config.to_json(),
                "layers": [layer.to_json() for layer in layers]}  # fmt: skip
    return manifests.parse(json.dumps(document, separators=(",", ":")).encode(), media_type)


def config_type(*, docker: bool) -> str:
    return mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG
