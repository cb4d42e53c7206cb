"""How far an import has come."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Counts:
    """`known`: what the store had already. `current`: repositories being worked on."""

    repositories: int = 0
    blobs: int = 0
    blobs_known: int = 0
    bytes: int = 0
    manifests: int = 0
    manifests_known: int = 0
    tags: int = 0
    tags_kept: int = 0
    current: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "current"}

    def line(self) -> str:
        known = f" (+{self.blobs_known} known)" if self.blobs_known else ""
        return (f"{self.repositories} repositories, {self.tags} tags, {self.manifests} manifests, "
                f"{self.blobs} blobs{known}, {self.bytes / 1e6:.1f} MB")
