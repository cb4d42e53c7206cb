"""An image as `docker images`, `inspect` and `history` read it."""

from collections.abc import Mapping, Sequence
from typing import Any

from node.api.types.units import epoch
from node.api.version import ApiVersion
from node.images.image import HistoryEntry, Image
from ocispec.descriptor import Descriptor

Json = dict[str, Any]

NO_VIRTUAL_SIZE = ApiVersion(1, 44)
NO_CONTAINER = ApiVersion(1, 45)
TRIMMED_CONFIG = ApiVersion(1, 50)
EMPTY_DANGLING = ApiVersion(1, 43)
COUNTS_CONTAINERS = ApiVersion(1, 51)
DESCRIBED = ApiVersion(1, 48)

_CONFIG: Json = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}  # fmt: skip
_IMAGE_CONFIG = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Healthcheck",
    "Shell", "OnBuild", "ArgsEscaped",
)  # fmt: skip


def inspect(image: Image, version: ApiVersion, *, driver: str, target: Descriptor) -> Json:
    """`target` is what the image's name stands for at a registry."""
    document = image.config.document
    result: Json = {
        "Id": str(image.id),
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": _text(document.get("parent")),
        "Comment": _text(document.get("comment")) or _last_comment(image),
        "Created": image.created,
        "DockerVersion": _text(document.get("docker_version")),
        "Author": _text(document.get("author")),
        "Config": image_config(image, version),
        "Architecture": image.platform.architecture,
        "Os": image.platform.os,
        "Size": image.size,
        "GraphDriver": {"Data": None, "Name": driver},
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in image.config.diff_ids]},
        "Metadata": {"LastTagTime": image.tagged or "0001-01-01T00:00:00Z"},
    }
    if image.platform.variant:
        result["Variant"] = image.platform.variant
    if version < NO_VIRTUAL_SIZE:
        result["VirtualSize"] = image.size
    if version >= DESCRIBED:
        result["Descriptor"] = target.to_json()
    if version < NO_CONTAINER:
        result["Container"], result["ContainerConfig"] = "", dict(_CONFIG)
    return result


def image_config(image: Image, version: ApiVersion) -> Json:
    """Since 1.50 only what the image says; before, a container's whole config with the rest at zero."""
    held = image.config.config
    said = {name: held[name] for name in _IMAGE_CONFIG if held.get(name) not in (None, "", [], {}, False)}
    return said if version >= TRIMMED_CONFIG else {**_CONFIG, **said}


def count(image: Image, uses: Mapping[str, Sequence[str]]) -> int:
    """How many containers were made from it, or from its siblings for other platforms."""
    return sum(len(uses.get(str(one), ())) for one in (image.id, *image.variants))


def summary(image: Image, version: ApiVersion, *, containers: int, shared: int = -1) -> Json:
    """A line of `docker images`. `containers`: how many were made from it; `shared`: bytes that other images have
    too, -1 when nobody counted."""
    labels = image.config.config.get("Labels")
    tags, digests = list(image.repo_tags), list(image.repo_digests)
    if version < EMPTY_DANGLING and not tags:
        tags = [f"{digests[0].partition('@')[0]}:<none>"] if digests else ["<none>:<none>"]
        digests = digests or ["<none>@<none>"]
    result: Json = {
        "Containers": containers if version >= COUNTS_CONTAINERS else -1,
        "Created": epoch(image.created),
        "Id": str(image.id),
        "Labels": labels if isinstance(labels, dict) else None,
        "ParentId": "",
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared,
        "Size": image.size,
    }
    if version < NO_VIRTUAL_SIZE:
        result["VirtualSize"] = image.size
    return result


def history(entries: Sequence[HistoryEntry]) -> list[Json]:
    return [
        {
            "Id": entry.id or "<missing>",
            "Created": epoch(entry.created),
            "CreatedBy": entry.created_by,
            "Tags": list(entry.tags) or None,
            "Size": entry.size,
            "Comment": entry.comment,
        }
        for entry in entries
    ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _last_comment(image: Image) -> str:
    entries = image.config.history
    return _text(entries[-1].get("comment")) if entries else ""
