"""What a snapshotter can do, split by who asks: containers, pulls, and pulls whose layer leans on those below.

A layer lives through: prepared (a directory to unpack into) → settled (whole and verified: others may stand on it) →
published (durable and found again after a restart). Only a published layer survives a crash; everything else is swept
when the snapshotter is opened. Chain ids are ocispec.image.chain_ids, bottom first wherever a chain is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node.snapshots.mounts import Difference, RootMount
from ocispec.digest import Digest
from ocispec.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted


class SnapshotMissing(NotFound):
    """A layer or a container's root is not here (any more)."""


class SnapshotExists(AlreadyExists):
    """This container has a root already."""


class ChainTooLong(FailedPrecondition):
    """More layers than the kernel's overlayfs stacks (500)."""


class NoSpace(ResourceExhausted):
    """The file system that holds the snapshots is full; what was made before is whole."""


@dataclass(frozen=True, slots=True)
class LayerTarget:
    """A directory to unpack one layer into.

    `bare`: the directory holds this layer alone, whiteouts are written in overlayfs' form. Otherwise it already holds a
    copy of the tree below, and whiteouts delete.
    """

    chain_id: Digest
    number: int
    directory: Path
    bare: bool
    below: tuple[Digest, ...]


class RootSnapshots(Protocol):
    """The writable root of each container."""

    async def create(self, container_id: str, chain: Sequence[Digest]) -> None:
        """A writable root upon these layers; an empty chain is an empty root. The layers stay as long as the container,
        whatever `LayerSnapshots.forget` says. Raises SnapshotMissing, SnapshotExists, ChainTooLong, NoSpace."""
        ...

    async def mount(self, container_id: str) -> RootMount:
        """Raises SnapshotMissing."""
        ...

    async def view(self, container_id: str) -> RootMount:
        """The same tree for reading alone, also while it is mounted elsewhere. Raises SnapshotMissing."""
        ...

    async def difference(self, container_id: str) -> Difference:
        """What tells the container's own changes from its layers. Raises SnapshotMissing."""
        ...

    async def remove(self, container_id: str) -> None:
        """No error when it is gone already."""
        ...

    async def usage(self, container_id: str) -> int:
        """Bytes that the container itself wrote (each file once, however many names it has). Raises SnapshotMissing."""
        ...


class LayerSnapshots(Protocol):
    """The read-only layers, made by pulls."""

    def has(self, chain_id: Digest) -> bool:
        """Settled or published."""
        ...

    async def prepare(self, chain: Sequence[Digest]) -> LayerTarget:
        """A target for the last layer of `chain`. A snapshotter whose targets are not bare needs the layers below
        settled (raises SnapshotMissing)."""
        ...

    async def settle(self, target: LayerTarget, *, inherit_root: bool = False) -> None:
        """The target is whole and verified, and so are those below it. `inherit_root`: the layer said nothing about the
        attributes of its root directory, which are then those of the layer below. A second target of the same chain id
        is dropped: the first stays."""
        ...

    async def publish(self, chain: Sequence[Digest]) -> None:
        """Make these settled layers durable: one syncfs(2), not one fsync a file, then each name by an atomic rename.
        Raises SnapshotMissing when one is neither settled nor published."""
        ...

    async def discard(self, target: LayerTarget) -> None:
        """Drop an unsettled target."""
        ...

    async def forget(self, chain_id: Digest) -> None:
        """Remove a layer; its bytes go when the last container upon it goes. No error when it is unknown."""
        ...


class AdoptedLayers(Protocol):
    """Layers that were written here."""

    async def adopt(self, container_id: str, chain: Sequence[Digest]) -> bool:
        """Make what a container that will not run any more wrote the settled last layer of `chain`, whose others it
        stands on; its root is of no use afterwards. False where that cannot be: then it is to be unpacked. Raises
        SnapshotMissing."""
        ...


class MergedViews(Protocol):
    """A layer together with those below it, for layers that name things which only lower layers hold."""

    @property
    def bare(self) -> bool:
        """Whether `prepare` gives bare targets (layers may then be unpacked in any order, all at once)."""
        ...

    def lower(self, target: LayerTarget) -> RootMount | None:
        """The tree below a target, read-only; None when nothing is below. Raises SnapshotMissing."""
        ...

    def merged(self, target: LayerTarget) -> RootMount:
        """The tree below with a bare target as the writable upper directory. Raises SnapshotMissing."""
        ...

    def chains(self) -> Sequence[Digest]:
        """The chain id of every published layer."""
        ...

    def tree(self, chain_id: Digest) -> Path:
        """Where the layer's own files lie. Raises SnapshotMissing."""
        ...

    async def layers_usage(self, known: Mapping[Digest, int]) -> tuple[Mapping[Digest, int], int]:
        """Bytes of every published layer that is in `known` (which says how large each layer's own files are), and of
        all others together, those that only containers still stand on among them."""
        ...


class Snapshotter(RootSnapshots, LayerSnapshots, AdoptedLayers, MergedViews, Protocol):
    """All of it: what `choose.open_snapshotter` makes and hands out in parts."""
