"""The values of this room: an image as Docker shows it, and what pulls, pushes and removals give back."""

import platform as host
from collections.abc import Mapping
from dataclasses import dataclass

from ocispec import mediatype
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.image import ImageConfig
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName

DANGLING = "<none>"

BUILDING = RepositoryName("seawall.invalid/building")
"""Where the results of a build's steps live, each under its cache key as tag. Found by id, never listed."""

UNNAMED = RepositoryName("seawall.invalid/unnamed")
"""Where an image lives that was made here and that nobody gave a name (RFC 6761: nobody else can). Never shown."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image: `id` is the digest of its config. `manifest` is the image manifest (never an index) that `repository`
    holds under `manifest_digest`. `size` is bytes of the unpacked layers; `chain` the chain ids, bottom first.
    `variants` are the ids of other platforms' images that are here under the same names; `tagged` is when a tag last
    came to it (RFC 3339, or empty)."""

    id: Digest
    config: ImageConfig
    manifest_digest: Digest
    manifest: Manifest
    repository: RepositoryName
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size: int
    chain: tuple[Digest, ...]
    variants: tuple[Digest, ...] = ()
    tagged: str = ""

    @property
    def created(self) -> str:
        """RFC 3339, or empty."""
        return self.config.created

    @property
    def platform(self) -> Platform:
        return self.config.platform


@dataclass(frozen=True, slots=True)
class Part:
    """A manifest under an image's name: the image itself, or a child of its index. `image` is None for an attestation
    (`attests`: what about) and for what is not here; `content` is bytes of manifest, config and layers that are."""

    descriptor: Descriptor
    available: bool
    content: int = 0
    image: "Image | None" = None
    attests: Digest | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """`freed` is in bytes: unpacked layers and stored content that nothing needs any more."""

    removals: "tuple[Removal, ...]"
    freed: int


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """Bytes on disk. `layers`: of every unpacked layer that an image has, by chain id; `strays`: of layers that only
    containers still stand on; `content`: of stored blobs and downloads begun."""

    layers: Mapping[Digest, int]
    strays: int
    content: int
    blobs: Mapping[Digest, Mapping[Digest, int]]
    """Config and layers, packed, of each image: by its id, then by digest."""

    def total(self) -> int:
        return sum(self.layers.values()) + self.strays + self.content


@dataclass(frozen=True, slots=True)
class PushResult:
    """What was pushed last: the tag, and digest and size (bytes) of its manifest."""

    tag: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Removal:
    """One line of `docker rmi`: kind is "Untagged" (a familiar reference) or "Deleted" (an image id or chain id)."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step of an image's making, newest first in a list. `id` is empty where Docker shows <missing>."""

    id: str
    created: str
    created_by: str
    comment: str
    size: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image to be had: `chain` are the chain ids up to and with this one."""

    descriptor: Descriptor
    diff_id: Digest
    chain: tuple[Digest, ...]
    compression: str

    @property
    def chain_id(self) -> Digest:
        return self.chain[-1]


def host_platform() -> Platform:
    return Platform.parse(f"linux/{host.machine()}")


LAYER_COMPRESSION = {
    mediatype.OCI_LAYER: "plain",
    mediatype.OCI_LAYER_GZIP: "gzip",
    mediatype.OCI_LAYER_ZSTD: "zstd",
    mediatype.DOCKER_LAYER_GZIP: "gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "plain",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "plain",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "plain",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
}
"""How a layer of this media type is compressed. What is not listed cannot be unpacked."""
