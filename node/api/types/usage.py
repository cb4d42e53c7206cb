"""Disk usage as `docker system df` reads it: one list an object type before 1.52, sums since."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from node.api.version import ApiVersion

Json = dict[str, Any]

SUMS = ApiVersion(1, 52)

_LEGACY = {"image": "Images", "container": "Containers", "volume": "Volumes", "build-cache": "BuildCache"}
_SUMS = {"image": "ImageUsage", "container": "ContainerUsage", "volume": "VolumeUsage",
         "build-cache": "BuildCacheUsage"}  # fmt: skip
KINDS = tuple(_LEGACY)


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of object; sizes in bytes."""

    name: str
    items: Sequence[Json]
    active: int = 0
    total: int = 0
    reclaimable: int = 0


def legacy(kinds: Sequence[Kind]) -> Json:
    document: Json = {_LEGACY[kind.name]: list(kind.items) for kind in kinds}
    for kind in kinds:
        if kind.name == "image":
            document["LayersSize"] = kind.total
        if kind.name == "build-cache":
            document["BuilderSize"] = kind.total
    return document


def sums(kinds: Sequence[Kind], *, verbose: bool) -> Json:
    return {_SUMS[kind.name]: _sum(kind, verbose=verbose) for kind in kinds}


def _sum(kind: Kind, *, verbose: bool) -> Json:
    document: Json = {
        "ActiveCount": kind.active,
        "TotalCount": len(kind.items),
        "Reclaimable": kind.reclaimable,
        "TotalSize": kind.total,
    }
    if verbose and kind.items:
        document["Items"] = list(kind.items)
    return document
