"""What a collection did, or would do; and what collecting did since the process began."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
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
    """`kept` counts living manifests and memberships. With `detailed`, `removed` lists what went in the order of
    removal; a dry run also lists what lives, in `lives`. `freed_in` says which repositories' removals freed how many
    bytes: a shared blob counts for the one that held it last."""

    dry_run: bool = False
    detailed: bool = True
    removed: list[Item] = field(default_factory=list)
    lives: list[Item] = field(default_factory=list)
    kept: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    freed: int = 0
    freed_in: Counter[str] = field(default_factory=Counter)
    longest_hold: float = 0.0
    repositories: int = 0
    _last_held: dict[Digest, str] = field(default_factory=dict)

    def keep(self, item: Item) -> None:
        self.kept += 1
        if self.dry_run:
            self.lives.append(item)

    def remove(self, item: Item) -> None:
        self.counts[item.kind] += 1
        if self.detailed:
            self.removed.append(item)
        repository = item.repository.value if item.repository else ""
        if item.kind == "membership":
            if item.digest:
                self._last_held[item.digest] = repository
            return
        self.freed += item.size
        if item.kind == "blob" and item.digest:
            repository = self._last_held.pop(item.digest, "")
        if repository and item.size:
            self.freed_in[repository] += item.size

    def join(self, other: "GcReport") -> None:
        """Add what another did after this."""
        self.removed += other.removed
        self.lives += other.lives
        self.kept += other.kept
        self.counts += other.counts
        self.freed += other.freed
        self.freed_in += other.freed_in
        self.repositories += other.repositories
        self.held_lock(other.longest_hold)

    def held_lock(self, seconds: float) -> None:
        self.longest_hold = max(self.longest_hold, seconds)

    @property
    def anything(self) -> bool:
        return bool(self.counts)


@dataclass(slots=True)
class GcStats:
    """Sums over this process's collections, for metrics. Times in seconds, sizes in bytes. `waiting`: repositories
    that are to be looked at, now or when their grace is over. `longest_hold`: the longest that a collection has kept
    the database's writer lock."""

    turns: int = 0
    passes: int = 0
    failures: int = 0
    repositories: int = 0
    manifests: int = 0
    memberships: int = 0
    blobs: int = 0
    orphans: int = 0
    tags_retired: int = 0
    freed: int = 0
    waiting: int = 0
    seconds: float = 0.0
    longest_hold: float = 0.0
    last: datetime | None = None

    def add(self, report: GcReport, seconds: float, at: datetime) -> None:
        self.repositories += report.repositories
        self.manifests += report.counts["manifest"]
        self.memberships += report.counts["membership"]
        self.blobs += report.counts["blob"]
        self.orphans += report.counts["bytes"]
        self.freed += report.freed
        self.seconds += seconds
        self.longest_hold = max(self.longest_hold, report.longest_hold)
        self.last = at
