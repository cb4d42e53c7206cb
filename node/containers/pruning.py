"""`docker container prune`: away with all that do not run."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node.containers import clock
from node.containers.errors import WrongState
from node.containers.live import Index, Live
from node.containers.model import Container
from node.containers.stopping import Remover
from node.events import Event, EventBus
from node.snapshots.store import RootSnapshots
from ocispec.errors import FailedPrecondition, NotFound


class AlreadyPruning(FailedPrecondition):
    """Two at once would each count what the other frees."""


@dataclass(frozen=True, slots=True)
class PruneFilter:
    """All must hold. Labels are `key` or `key=value`."""

    until: int = 0
    """Nanoseconds since the epoch: only what is older; 0: everything."""

    labels: Sequence[str] = field(default_factory=tuple)
    not_labels: Sequence[str] = field(default_factory=tuple)

    def takes(self, container: Container) -> bool:
        if self.until and clock.nanoseconds(container.created) >= self.until:
            return False
        held = container.spec.labels
        return all(_has(held, text) for text in self.labels) and not any(_has(held, text) for text in self.not_labels)


class Pruner:
    def __init__(self, index: Index, remover: Remover, snapshots: RootSnapshots, bus: EventBus) -> None:
        self._index = index
        self._remover = remover
        self._snapshots = snapshots
        self._bus = bus
        self._lock = asyncio.Lock()

    async def prune(self, filters: PruneFilter) -> tuple[Sequence[str], int]:
        """Ids of those that are gone, and the bytes that are free again. Raises AlreadyPruning."""
        if self._lock.locked():
            raise AlreadyPruning("a prune operation is already running")
        gone, space = [], 0
        async with self._lock:
            for live in self._index.all(lambda held: not held.active and filters.takes(held.container)):
                size = await self._remove(live)
                if size is not None:
                    gone.append(live.id)
                    space += size
        self._bus.publish(Event("container", "prune", "", {"reclaimed": str(space)}))
        return gone, space

    async def _remove(self, live: Live) -> int | None:
        """None: somebody else took it, or it has been started meanwhile."""
        try:
            size = await self._snapshots.usage(live.id)
            await self._remover.remove(live, force=False, volumes=False)
        except (WrongState, NotFound):
            return None
        return size


def _has(labels: Mapping[str, str], text: str) -> bool:
    key, equals, wanted = text.partition("=")
    return key in labels and (not equals or labels[key] == wanted)
