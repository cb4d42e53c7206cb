"""`docker update`: limits, restart policy, labels and published ports of a container that exists, running or not.

The kernel first, the record after it: what is recorded has been taken. A limit that the kernel refuses changes nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields, replace
from typing import Any

from node.containers.bundle import resources as bundle
from node.containers.complete import check_restart
from node.containers.errors import InvalidSpec, WrongState
from node.containers.hostlimits import HostLimits
from node.containers.live import Live
from node.containers.model import (
    Container,
    CreateSpec,
    DeviceRate,
    DeviceWeight,
    PublishedPort,
    Resources,
    RestartMode,
    RestartPolicy,
)
from node.containers.news import News
from node.containers.parts import Measures, Republishes
from node.containers.persistence import Records
from node.containers.startup import published, resolved

NO_LABELS: Mapping[str, str | None] = {}


@dataclass(frozen=True, slots=True)
class Change:
    """What is zero or empty in `limits` stays as it is."""

    limits: Resources = field(default_factory=Resources)
    pids_limit: int | None = None
    """None: as it is; ≤ 0: none."""

    restart: RestartPolicy | None = None
    labels: Mapping[str, str | None] = field(default_factory=lambda: NO_LABELS)
    """None takes the label away. Labels are metadata: nothing restarts."""

    bindings: tuple[PublishedPort, ...] | None = None
    """All ports that are published from now on; None: those of before."""


class Changer:
    def __init__(
        self, limits: HostLimits, measures: Measures, networks: Republishes, records: Records, news: News
    ) -> None:
        self._limits = limits
        self._networks = networks
        self._measures = measures
        self._records = records
        self._news = news

    async def update(self, live: Live, change: Change) -> Sequence[str]:
        """Gives warnings. Raises InvalidSpec, WrongState, CgroupFailed."""
        async with live.lock:
            if live.removing:
                raise WrongState('Container is marked for removal and cannot be "update".')
            old = live.container.spec
            merged = merge(old.resources, change)
            bundle.check(merged)
            merged, warnings = self._limits.adapt(merged)
            spec = replace(old, resources=merged, restart=_restart(old, change), labels=_labels(old, change))
            spec = _republished(spec, change)
            warnings = (*warnings, *await self._apply(live, spec))
        self._news.tell(live.container, "update")
        return warnings

    async def _apply(self, live: Live, spec: CreateSpec) -> Sequence[str]:
        """All of it, or nothing of it. The lock is held."""
        before = live.container
        async with AsyncExitStack() as undo:
            warnings = await self._limit(live, spec.resources, undo)
            await self._publish(live, spec, undo)
            live.container = replace(live.container, spec=spec)
            undo.callback(self._restore, live, before)
            await self._records.respec(live)
            undo.pop_all()
        if before.network != live.container.network:
            await self._records.save(live)
        return warnings

    async def _limit(self, live: Live, wanted: Resources, undo: AsyncExitStack) -> Sequence[str]:
        now = live.container.spec.resources
        changed = difference(now, wanted)
        if not changed or not live.state.running:
            return ()
        warnings = await self._measures.update(live.id, changed)
        undo.push_async_callback(self._measures.update, live.id, difference(wanted, now))
        return warnings

    async def _publish(self, live: Live, spec: CreateSpec, undo: AsyncExitStack) -> None:
        before = live.container
        after = replace(before, spec=spec)
        if before.spec.network.bindings == spec.network.bindings or not live.state.running:
            return
        ports = await self._networks.republish(live.id, published(after), live.state.pid)
        undo.push_async_callback(self._networks.republish, live.id, published(before), live.state.pid)
        live.container = replace(before, network=replace(before.network, ports=resolved(ports)))
        undo.callback(self._restore, live, before)

    def _restore(self, live: Live, before: Container) -> None:
        live.container = replace(live.container, spec=before.spec, network=before.network)


def merge(now: Resources, change: Change) -> Resources:
    """Docker's rules for what may be changed beside what is set. Raises InvalidSpec, WrongState."""
    wanted, plain = change.limits, Resources()
    _check_conflicts(now, wanted)
    named = {
        item.name: getattr(wanted, item.name)
        for item in fields(Resources)
        if item.name not in ("pids_limit", "hugepages") and getattr(wanted, item.name) != getattr(plain, item.name)
    }
    if wanted.memory and not wanted.memory_swap:
        # What nothing said meant when it was created, not what it would mean now.
        named["memory_swap"] = now.memory_swap or 2 * now.memory or 2 * wanted.memory
    if change.pids_limit is not None:
        named["pids_limit"] = change.pids_limit if change.pids_limit > 0 else -1
    return replace(now, **named)


def _check_conflicts(now: Resources, wanted: Resources) -> None:
    if wanted.nano_cpus and (now.cpu_period or now.cpu_quota):
        other = "CPU Period" if now.cpu_period else "CPU Quota"
        raise WrongState(f"Conflicting options: Nano CPUs cannot be updated as {other} has already been set")
    for name, value in (("CPU Period", wanted.cpu_period), ("CPU Quota", wanted.cpu_quota)):
        if value and now.nano_cpus:
            raise WrongState(f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set")
    swap = now.memory_swap or 2 * now.memory
    if wanted.memory and not wanted.memory_swap and 0 < swap < wanted.memory:
        raise WrongState("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at "
                          "the same time")


def difference(old: Resources, new: Resources) -> dict[str, Any]:
    """Runtime-spec `linux.resources` that leads from one to the other: a limit that has gone is lifted by name."""
    before, after = bundle.limits(old), bundle.limits(new)
    changed: dict[str, Any] = {}
    for group in ("memory", "cpu", "pids"):
        if before.get(group) != after.get(group):
            changed[group] = _lifted(group, before.get(group, {})) | after.get(group, {})
    if before.get("blockIO") != after.get("blockIO"):
        changed["blockIO"] = _block_io(old, new) | ({"weight": new.blkio_weight} if new.blkio_weight else {})
    return changed


_LIFTED: Mapping[str, Mapping[str, Any]] = {
    "memory": {"limit": -1, "swap": -1, "reservation": -1, "kernelTCP": -1, "swappiness": 60},
    "cpu": {"shares": 1024, "quota": -1, "period": 100_000},
    "pids": {"limit": -1},
}


def _lifted(group: str, before: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _LIFTED[group][name] for name in before if name in _LIFTED[group]}


def _block_io(old: Resources, new: Resources) -> dict[str, Any]:
    """Rates of zero for devices that are no longer named."""
    names = ("read_bps", "write_bps", "read_iops", "write_iops")

    def kept(name: str) -> tuple[DeviceRate, ...]:
        now: tuple[DeviceRate, ...] = getattr(new, name)
        paths = {item.path for item in now}
        return (*(DeviceRate(item.path, 0) for item in getattr(old, name) if item.path not in paths), *now)

    weights = {item.path for item in new.blkio_weights}
    lifted = (*(DeviceWeight(item.path, 500) for item in old.blkio_weights if item.path not in weights),
              *new.blkio_weights)
    rates: dict[str, Any] = {name: kept(name) for name in names}
    result: dict[str, Any] = bundle.limits(Resources(blkio_weights=lifted, **rates)).get("blockIO", {})
    return result


def _republished(spec: CreateSpec, change: Change) -> CreateSpec:
    if change.bindings is None:
        return spec
    if change.bindings and spec.network.mode.startswith("container:"):
        raise InvalidSpec("conflicting options: port publishing and the container type network mode")
    exposed = tuple(dict.fromkeys((*spec.exposed_ports, *(binding.port for binding in change.bindings))))
    return replace(spec, exposed_ports=exposed, network=replace(spec.network, bindings=change.bindings))


def _restart(old: CreateSpec, change: Change) -> RestartPolicy:
    policy = change.restart
    if policy is None:
        return old.restart
    if old.auto_remove and policy.mode is not RestartMode.NO:
        raise WrongState("Restart policy cannot be updated because AutoRemove is enabled for the container")
    check_restart(policy)
    return policy


def _labels(old: CreateSpec, change: Change) -> Mapping[str, str]:
    merged = {**old.labels, **change.labels}
    return {name: value for name, value in merged.items() if value is not None}
