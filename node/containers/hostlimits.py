"""Limits against this host: what it cannot do is left out with a warning, what it may not do is refused.

The sentences are Docker's. `features` are those of `node.linux.cgroups.store.Cgroups`.
"""

import resource
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from node.containers.errors import InvalidSpec
from node.containers.model import Namespaces, Resources, Ulimit
from node.linux import capabilities
from node.linux.usernamespaces import INITIAL

_KERNEL = "Your kernel does not support"
_DISCARDED: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "memory": (
        (("memory", "memory_swap"), "memory limit capabilities or the cgroup is not mounted. Limitation discarded."),
        (("memory_reservation",), "memory soft limit capabilities or the cgroup is not mounted. Limitation discarded."),
    ),
    "swap": (
        (("memory_swap",), "swap limit capabilities or the cgroup is not mounted. Memory limited without swap."),
    ),
    "swappiness": (
        (("memory_swappiness",),
         "memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."),
    ),
    "oom_control": ((("oom_kill_disable",), "OomKillDisable. OomKillDisable discarded."),),
    "kernel_tcp": (
        (("kernel_memory_tcp",),
         "kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded."),
    ),
    "pids": ((("pids_limit",), "PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."),),
    "cpu_shares": ((("cpu_shares",), "CPU shares or the cgroup is not mounted. Shares discarded."),),
    "cpu_quota": (
        (("cpu_period",), "CPU cfs period or the cgroup is not mounted. Period discarded."),
        (("cpu_quota",), "CPU cfs quota or the cgroup is not mounted. Quota discarded."),
    ),
    "cpuset": ((("cpuset_cpus", "cpuset_mems"), "cpuset or the cgroup is not mounted. Cpuset discarded."),),
    "hugetlb": ((("hugepages",), "huge page limits or the cgroup is not mounted. Limitation discarded."),),
    "blkio_weight": (
        (("blkio_weight",), "Block I/O weight or the cgroup is not mounted. Weight discarded."),
        (("blkio_weights",), "Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."),
    ),
    "blkio_throttle": (
        (("read_bps",),
         "BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded."),
        (("write_bps",),
         "BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded."),
        (("read_iops",), "IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded."),
        (("write_iops",),
         "IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded."),
    ),
}  # fmt: skip
_UNBOUNDED = -1


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What this host can do and what it lets us do."""

    features: Collection[str] = frozenset(_DISCARDED) | {"cpu_realtime"}
    processors: str = ""
    """Of the kernel's list format (0-3,8); empty: not checked."""

    memory_nodes: str = ""
    page_sizes: Collection[str] = ()
    """Of huge pages, as 2MB; empty: not checked."""

    ceilings: Mapping[str, int] = field(default_factory=dict)
    """Hard limits that this process cannot raise, by name (nofile); those that are absent it can."""

    @classmethod
    def of_this_host(cls, features: Collection[str]) -> "HostLimits":
        # In a user namespace one may hold it, and it lets nobody raise a hard limit.
        raises = INITIAL and "CAP_SYS_RESOURCE" in capabilities.current()["effective"]
        return cls(
            features,
            _online("/sys/devices/system/cpu/online"),
            _online("/sys/devices/system/node/online"),
            _page_sizes(),
            {} if raises else _hard_limits(),
        )

    def check(self, namespaces: Namespaces) -> None:
        """Raises InvalidSpec for what could not be ended: outside a pid namespace of its own a cgroup alone knows who
        belongs to a container."""
        if namespaces.pid == "host" and not self.features:
            raise InvalidSpec("--pid host needs cgroups, and this node may make none: its processes could outlive it")

    def adapt(self, wanted: Resources) -> tuple[Resources, tuple[str, ...]]:
        """`wanted` without what this host cannot do, and warnings that say so. `bundle.resources.check` has let it
        pass. Raises InvalidSpec for what it cannot
        do and nobody would want left out."""
        if wanted.nano_cpus and "cpu_quota" not in self.features:
            raise InvalidSpec("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the "
                              "cgroup is not mounted")
        if (wanted.cpu_rt_period or wanted.cpu_rt_runtime) and "cpu_realtime" not in self.features:
            raise InvalidSpec("Your kernel does not support CPU real-time scheduler")
        self._check_sets(wanted)
        for size in wanted.hugepages:
            if self.page_sizes and size not in self.page_sizes:
                raise InvalidSpec(f"huge pages of {size}: this host has {', '.join(sorted(self.page_sizes))}")
        for limit in wanted.ulimits:
            self._check_ulimit(limit)
        warnings = []
        plain = Resources()
        for feature, groups in _DISCARDED.items():
            if feature in self.features:
                continue
            for names, sentence in groups:
                changed: dict[str, Any] = {name: getattr(plain, name) for name in names
                                           if getattr(wanted, name) != getattr(plain, name)}
                if changed:
                    warnings.append(f"{_KERNEL} {sentence}")
                    wanted = replace(wanted, **changed)
        if wanted.oom_kill_disable and not wanted.memory:
            warnings.append("OOM killer is disabled for the container, but no memory limit is set, this can result in "
                            "the system running out of resources.")
        return wanted, tuple(warnings)

    def _check_sets(self, wanted: Resources) -> None:
        sets = (("CPUs", wanted.cpuset_cpus, self.processors), ("memory nodes", wanted.cpuset_mems, self.memory_nodes))
        for what, asked, available in sets:
            if asked and available and not _within(asked, set(numbers(available))):
                raise InvalidSpec(f"Requested {what} are not available - requested {asked}, available: {available}")

    def _check_ulimit(self, limit: Ulimit) -> None:
        ceiling = self.ceilings.get(limit.name)
        if ceiling is None or all(0 <= value <= ceiling for value in (limit.soft, limit.hard)):
            return
        raise InvalidSpec(
            f"ulimit {limit.name}={limit.soft}:{limit.hard}: this host permits no more than {ceiling} "
            "(the node lacks CAP_SYS_RESOURCE, or its own limit is lower)"
        )


def numbers(text: str) -> Iterator[int]:
    """Of the kernel's list format: 0-2,4. Backward ranges are empty."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _within(asked: str, available: set[int]) -> bool:
    """A range that is longer than what there is cannot be: nothing is counted that a client made long."""
    for part in asked.split(","):
        first, _, last = part.partition("-")
        length = int(last or first) - int(first) + 1
        if length > len(available) or not available.issuperset(range(int(first), int(first) + length)):
            return False
    return True


def _online(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _page_sizes() -> tuple[str, ...]:
    """hugepages-2048kB → 2MB, as the controller names its files."""
    found = []
    for folder in Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        size, unit = int(folder.name.removeprefix("hugepages-").removesuffix("kB")), 0
        while size >= 1024 and size % 1024 == 0:
            size, unit = size // 1024, unit + 1
        found.append(f"{size}{'KMGT'[unit]}B")
    return tuple(found)


def _hard_limits() -> dict[str, int]:
    found = {}
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            hard = resource.getrlimit(getattr(resource, name))[1]
            if hard != resource.RLIM_INFINITY:
                found[name.removeprefix("RLIMIT_").lower()] = hard
    return found
