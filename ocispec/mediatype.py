"""Media types of manifests, configs and layers (OCI image-spec media-types.md; Docker image manifest v2.2)."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

IMAGE_MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = IMAGE_MANIFESTS | INDEXES

_NONDISTRIBUTABLE = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)


# What an index lists beside manifests: BuildKit's caches (`--cache-to type=registry`, image-manifest=false) are indexes
# of layers and a config.
_BLOBS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.",
          "application/vnd.buildkit.cacheconfig.")


def is_blob(media_type: str) -> bool:
    """Whether an entry of an index with this type is a blob, not a manifest."""
    return media_type.startswith(_BLOBS)


def is_nondistributable(media_type: str) -> bool:
    """Layers whose bytes a registry need not hold; clients fetch them from the descriptor's `urls`."""
    return media_type.startswith(_NONDISTRIBUTABLE)


def strip_parameters(content_type: str) -> str:
    """`application/json; charset=utf-8` → `application/json`."""
    return content_type.partition(";")[0].strip().lower()
