"""What is here, counted: the manifests under a name, and bytes on disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from node.images.catalog import Catalog, Top, is_image
from node.images.image import Image, ImageUsage, Part
from node.state.snapshots import LayerSizeRows
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, InvalidDigest
from ocispec.manifest import Manifest
from storage.blobs.store import BlobAdmin

_SUBJECT = "vnd.docker.reference.digest"
"""Annotation of an attestation in an index: which image of the index it is about (BuildKit)."""


class MeasuresLayers(Protocol):
    """Part of node.snapshots.store.Snapshotter."""

    def chains(self) -> Sequence[Digest]: ...
    async def layers_usage(self, known: Mapping[Digest, int]) -> tuple[Mapping[Digest, int], int]: ...


class Census:
    def __init__(self, blobs: BlobAdmin, snapshots: MeasuresLayers, sizes: LayerSizeRows) -> None:
        self._blobs = blobs
        self._snapshots = snapshots
        self._sizes = sizes

    async def usage(self, catalog: Catalog) -> ImageUsage:
        images = [*catalog.images.values(), *catalog.others.values()]
        known = await self._known(images)
        layers, strays = await self._snapshots.layers_usage(known)
        content = 0
        async for stored in self._blobs.list():
            content += stored.size
        blobs = {image.id: {blob.digest: blob.size for blob in image.manifest.blobs} for image in images}
        return ImageUsage(layers, strays, content, blobs)

    async def sizes_of(self, chains: Sequence[Digest], catalog: Catalog) -> int:
        """Bytes of these layers, while an image still has them."""
        known = await self._known([*catalog.images.values(), *catalog.others.values()])
        return sum(known.get(chain_id, 0) for chain_id in chains)

    async def _known(self, images: Sequence[Image]) -> Mapping[Digest, int]:
        diff_ids = {chain_id: diff_id for image in images
                    for chain_id, diff_id in zip(image.chain, image.config.diff_ids, strict=True)}
        sizes: dict[Digest, int] = {}
        wanted = sorted(set(diff_ids.values()))
        for first in range(0, len(wanted), 1000):
            sizes |= await self._sizes.get(wanted[first:first + 1000])
        return {chain_id: sizes.get(diff_id, 0) for chain_id, diff_id in diff_ids.items()}


def shared_sizes(usage: ImageUsage, images: Sequence[Image]) -> Mapping[Digest, int]:
    """Of each image, the bytes of unpacked layers that another image has too."""
    users = Counter(chain_id for image in images for chain_id in image.chain)
    return {image.id: sum(usage.layers.get(chain_id, 0) for chain_id in image.chain if users[chain_id] > 1)
            for image in images}


def packed_size(usage: ImageUsage, image: Image) -> int:
    """Bytes of config and packed layers, of its siblings for other platforms too."""
    blobs = {digest: size for one in (image.id, *image.variants) for digest, size in usage.blobs.get(one, {}).items()}
    return sum(blobs.values())


def reclaimable(usage: ImageUsage, images: Sequence[Image], used: Sequence[Image]) -> int:
    """Bytes that go when every image that is not among `used` is removed."""
    layers = {chain_id for image in used for chain_id in image.chain}
    blobs = {digest for image in used for one in (image.id, *image.variants) for digest in usage.blobs.get(one, {})}
    going = {chain_id for image in images for chain_id in image.chain} - layers
    packed = {digest: size for image in images for one in (image.id, *image.variants)
              for digest, size in usage.blobs.get(one, {}).items() if digest not in blobs}
    return sum(usage.layers.get(chain_id, 0) for chain_id in going) + sum(packed.values())


def parts(catalog: Catalog, top: Top) -> list[Part]:
    """The image itself, or what its index names, in the index's order; what is not here has no content."""
    if not top.manifest.is_index:
        return [_image_part(catalog, descriptor_of(top.manifest, top.digest), top.manifest)]
    held = dict(top.images)
    found = []
    for child in top.manifest.children:
        if child.digest in held:
            found.append(_image_part(catalog, child, held[child.digest]))
        else:
            found.append(Part(child, available=child.digest in top.parts, attests=_attested(child)))
    return found


def descriptor_of(manifest: Manifest, digest: Digest) -> Descriptor:
    return Descriptor(manifest.media_type, digest, len(manifest.raw))


def _image_part(catalog: Catalog, descriptor: Descriptor, manifest: Manifest) -> Part:
    content = len(manifest.raw) + sum(blob.size for blob in manifest.blobs)
    image = catalog.held(manifest.config.digest) if is_image(manifest) and manifest.config else None
    return Part(descriptor, available=True, content=content, image=image)


def _attested(child: Descriptor) -> Digest | None:
    try:
        return Digest.parse(child.annotations[_SUBJECT]) if _SUBJECT in child.annotations else None
    except InvalidDigest:
        return None
