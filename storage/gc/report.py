"""What a collection did, or would do."""

from dataclasses import dataclass, field
from typing import Literal

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.blobs.store import StorageKey

Kind = Literal["manifest", "membership", "blob", "bytes"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing and why it lives or dies.

    A `manifest` or `membership` (a blob's place in a repository) has a repository and a digest; a `blob` a digest;
    `bytes` a storage key that no row names. `size` is in bytes; only blobs, bytes and manifests free any.
    """

    kind: Kind
    why: str
    size: int = 0
    repository: RepositoryName | None = None
    digest: Digest | None = None
    key: StorageKey | None = None


@dataclass(slots=True)
class GcReport:
    """`removed` in the order of removal. `kept` counts living manifests and memberships; a dry run also lists them
    in `lives`."""

    dry_run: bool
    removed: list[Item] = field(default_factory=list)
    lives: list[Item] = field(default_factory=list)
    kept: int = 0

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(item.size for item in self.removed if item.kind != "membership")
