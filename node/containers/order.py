"""Who waits for whom when the daemon starts containers again, and when the waiting is over.

`depends_on` of compose is on its containers as a label, so a stack comes up after a reboot in the order and under the
conditions it was written with (docker compose itself is not there then). Containers outside of compose say the same
with a label of ours, by container name. Whoever joins another container's namespace waits for it as well.
"""

import asyncio
import enum
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from node.containers.live import Live
from node.containers.model import Status

LABEL = "seawall.depends-on"
"""name[:condition],…"""

COMPOSE, PROJECT, SERVICE = "com.docker.compose.depends_on", "com.docker.compose.project", "com.docker.compose.service"
STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"
CONDITIONS = {name.removeprefix("service_"): name for name in (STARTED, HEALTHY, COMPLETED)}
JOIN = "container:"

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Need:
    """A container that must be this far before another starts."""

    container_id: str
    condition: str


def parse(label: str) -> list[tuple[str, str]]:
    """(name, condition) of each entry; what cannot be understood is left out, a start must not fail of it."""
    found = []
    for entry in label.split(","):
        name, _, rest = entry.strip().partition(":")
        word = rest.partition(":")[0]
        condition = word if word in CONDITIONS.values() else CONDITIONS.get(word, STARTED)
        if _WORD.fullmatch(name):
            found.append((name, condition))
    return found


def needs(everyone: Sequence[Live]) -> dict[str, tuple[Need, ...]]:
    """By container id. What would wait for itself, by whatever way, does not wait there."""
    by_name = {live.container.name: live.id for live in everyone}
    by_id = {live.id: live for live in everyone}
    services: dict[tuple[str, str], list[str]] = {}
    for live in everyone:
        labels = live.container.spec.labels
        if labels.get(PROJECT) and labels.get(SERVICE):
            services.setdefault((labels[PROJECT], labels[SERVICE]), []).append(live.id)

    def wanted(live: Live) -> Iterable[Need]:
        labels = live.container.spec.labels
        for name, condition in parse(labels.get(COMPOSE, "")):
            for other in services.get((labels.get(PROJECT, ""), name), ()):
                yield Need(other, condition)
        for name, condition in parse(labels.get(LABEL, "")):
            if name in by_name:
                yield Need(by_name[name], condition)
        for target in joined(live):
            other = target if target in by_id else by_name.get(target, "")
            if other:
                yield Need(other, STARTED)

    return _without_cycles({live.id: tuple(dict.fromkeys(wanted(live))) for live in everyone})


def joined(live: Live) -> list[str]:
    """Names or ids of the containers whose namespaces it enters."""
    spec = live.container.spec
    modes = (spec.network.mode, spec.namespaces.pid, spec.namespaces.ipc)
    return [mode.removeprefix(JOIN) for mode in modes if mode.startswith(JOIN)]


class Outlook(enum.Enum):
    """What waiting for a need comes to."""

    MET = "met"
    OPEN = "open"
    LOST = "lost"


def outlook(need: Need, live: Live, *, coming: bool) -> Outlook:
    """`coming`: this start of the daemon has not had its turn with that container yet."""
    if live.gone.is_set() or live.removing:
        return Outlook.LOST
    state = live.state
    if coming or state.status is Status.RESTARTING:
        return Outlook.OPEN
    if need.condition == COMPLETED:
        if state.running:
            return Outlook.OPEN
        return Outlook.MET if state.exit_code == 0 and state.status is Status.EXITED else Outlook.LOST
    if not state.running:
        return Outlook.LOST
    if need.condition == HEALTHY and state.health is not None and state.health.status != "healthy":
        return Outlook.OPEN
    return Outlook.MET


class Turns:
    """One start of the daemon: who is still to come, and everybody's wait for those they need."""

    def __init__(self, everyone: Sequence[Live], coming: Iterable[Live], *, patience: float) -> None:
        self._lives = {live.id: live for live in everyone}
        self._needs = needs(everyone)
        self._coming = {live.id for live in coming}
        self._patience = patience

    def over(self, live: Live) -> None:
        """It was started, or will not be."""
        self._coming.discard(live.id)
        live.tell()

    async def wait(self, live: Live) -> None:
        """After a reboot a container that starts too early is better than one that never does: a need that cannot be
        met any more, or is not met in time, is logged and passed over."""
        try:
            async with asyncio.timeout(self._patience):
                for need in self._needs[live.id]:
                    await self._wait_for(live, need)
        except TimeoutError:
            log.warning("container %s starts without what it depends on: that takes too long", live.container.name)

    async def _wait_for(self, live: Live, need: Need) -> None:
        other = self._lives[need.container_id]
        while (found := outlook(need, other, coming=other.id in self._coming)) is Outlook.OPEN:
            await other.moved.wait()
        if found is Outlook.LOST:
            log.warning("container %s starts although %s is not %s", live.container.name, other.container.name,
                        need.condition.removeprefix("service_"))  # fmt: skip


def _without_cycles(graph: Mapping[str, tuple[Need, ...]]) -> dict[str, tuple[Need, ...]]:
    """Depth first without recursion (a chain may be as long as there are containers): an edge back to what is being
    walked is dropped."""
    kept: dict[str, list[Need]] = {}
    walking: set[str] = set()
    for root in graph:
        if root in kept:
            continue
        stack = [(root, iter(graph[root]))]
        kept[root] = []
        walking.add(root)
        while stack:
            node, edges = stack[-1]
            need = next(edges, None)
            if need is None:
                walking.discard(node)
                stack.pop()
            elif need.container_id not in walking:
                kept[node].append(need)
                if need.container_id not in kept:
                    kept[need.container_id] = []
                    walking.add(need.container_id)
                    stack.append((need.container_id, iter(graph.get(need.container_id, ()))))
    return {node: tuple(edges) for node, edges in kept.items()}
