"""Writing limits into version 1 groups. Kernel documentation: admin-guide/cgroup-v1/.

Order matters in three places: memory against memory+swap, cpu period against quota, and the device list, which is
emptied before it is filled.
"""

from __future__ import annotations

import errno
from _collections_abc import Mapping

from node.linux.cgroups import files
from node.linux.cgroups.devices import describe, reduce_rules
from node.linux.cgroups.files import CgroupError
from node.linux.cgroups.resources import UNLIMITED, BlockIo, Cpu, InvalidResources, Memory, Resources

Folders = Mapping[str, str]
"""The group's folder by controller, for the controllers this host has."""


def apply(folders: Folders, wanted: Resources) -> list[str]:
    """Write what `wanted` names; gives warnings about what this host lacks. Raises InvalidResources, CgroupError."""
    if wanted.unified:
        raise InvalidResources(f"{', '.join(wanted.unified)}: this host has cgroup version 1")
    devices = reduce_rules(wanted.devices) if wanted.devices else None
    missing: list[str] = []
    _memory(folders.get("memory"), wanted.memory, missing)
    _cpu(folders.get("cpu"), wanted.cpu, missing)
    _cpuset(folders.get("cpuset"), wanted.cpu, missing)
    _pids(folders.get("pids"), wanted.pids, missing)
    _block_io(folders.get("blkio"), wanted.io, missing)
    _hugepages(folders.get("hugetlb"), wanted, missing)
    _network(folders, wanted, missing)
    for line in wanted.rdma:
        _write(folders.get("rdma"), "rdma.max", line, "rdma", missing)
    if devices is not None:
        if "devices" not in folders:
            # Not a limit but a border of the container: without it root inside could open the host's disks.
            raise CgroupError(errno.ENOENT, "this host has no devices cgroup, device rules cannot be enforced")
        _devices(folders["devices"], *devices)
    return [f"this host does not support the limit: {name}" for name in missing]


def _write(folder: str | None, name: str, value: object, what: str, missing: list[str]) -> None:
    if folder is None or not files.has(folder, name):
        missing.append(what)
    else:
        files.write(folder, name, value, what=what)


def _memory(folder: str | None, memory: Memory, missing: list[str]) -> None:
    if memory.check and folder is not None and memory.limit > 0:
        usage = files.read_number(folder, "memory.usage_in_bytes") or 0
        if usage > memory.limit:
            raise CgroupError(errno.EBUSY, f"memory limit {memory.limit}: {usage} bytes are in use")
    _memory_and_swap(folder, memory, missing)
    if memory.reservation:
        _write(folder, "memory.soft_limit_in_bytes", memory.reservation, "memory reservation", missing)
    if memory.swappiness is not None:
        _write(folder, "memory.swappiness", memory.swappiness, "memory swappiness", missing)
    if memory.no_killer:
        _write(folder, "memory.oom_control", 1, "disable OOM killer", missing)
    if memory.kernel:
        missing.append("kernel memory")  # Linux 5.16 took it out
    if memory.kernel_tcp:
        _write(folder, "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp, "kernel TCP memory", missing)


def _memory_and_swap(folder: str | None, memory: Memory, missing: list[str]) -> None:
    """The kernel keeps memory ≤ memory+swap at every moment, so which of them goes first depends on what holds now."""
    limit, swap = memory.limit, memory.swap
    if limit == UNLIMITED and not swap:
        swap = UNLIMITED
    writes = []
    if limit:
        writes.append(("memory.limit_in_bytes", limit, "memory limit"))
    if swap and folder is not None and not files.has(folder, "memory.memsw.limit_in_bytes"):
        if swap != UNLIMITED:
            missing.append("memory+swap limit")
    elif swap:
        now = (files.read_number(folder, "memory.memsw.limit_in_bytes") or 0) if folder is not None else 0
        raising = swap == UNLIMITED or swap > now
        writes.insert(0 if raising else 1, ("memory.memsw.limit_in_bytes", swap, "memory+swap limit"))
    for name, value, what in writes:
        _write(folder, name, value, what, missing)


def _cpu(folder: str | None, cpu: Cpu, missing: list[str]) -> None:
    if cpu.shares:
        _write(folder, "cpu.shares", cpu.shares, "cpu shares", missing)
    if cpu.idle is not None:
        _write(folder, "cpu.idle", cpu.idle, "cpu idle", missing)
    _bandwidth(folder, cpu, missing)
    if cpu.realtime_period:
        _write(folder, "cpu.rt_period_us", cpu.realtime_period, "realtime cpu period", missing)
    if cpu.realtime_runtime:
        _write(folder, "cpu.rt_runtime_us", cpu.realtime_runtime, "realtime cpu runtime", missing)


def _bandwidth(folder: str | None, cpu: Cpu, missing: list[str]) -> None:
    """Period, quota and burst judge each other: a burst may not exceed the quota, a quota/period not the parent's."""
    if cpu.quota:
        # The old burst may be too large for the new quota.
        if folder is not None and files.has(folder, "cpu.cfs_burst_us"):
            files.write(folder, "cpu.cfs_burst_us", 0, what="cpu burst")
        if cpu.period and folder is not None and files.has(folder, "cpu.cfs_quota_us"):
            files.write(folder, "cpu.cfs_quota_us", UNLIMITED, what="cpu quota")
    if cpu.period:
        _write(folder, "cpu.cfs_period_us", cpu.period, "cpu period", missing)
    if cpu.quota:
        _write(folder, "cpu.cfs_quota_us", cpu.quota, "cpu quota", missing)
    if cpu.burst:
        _write(folder, "cpu.cfs_burst_us", cpu.burst, "cpu burst", missing)


def _cpuset(folder: str | None, cpu: Cpu, missing: list[str]) -> None:
    if cpu.cpus:
        _write(folder, "cpuset.cpus", cpu.cpus, "cpuset cpus", missing)
    if cpu.mems:
        _write(folder, "cpuset.mems", cpu.mems, "cpuset mems", missing)


def _pids(folder: str | None, limit: int, missing: list[str]) -> None:
    if limit:
        _write(folder, "pids.max", "max" if limit == UNLIMITED else limit, "pids limit", missing)


def _block_io(folder: str | None, io: BlockIo, missing: list[str]) -> None:
    names = ("blkio.weight", "blkio.bfq.weight")
    name = next((name for name in names if folder is not None and files.has(folder, name)), names[0])
    if io.weight:
        _write(folder, name, io.weight, "block io weight", missing)
    for major, minor, weight in io.weights:
        _write(folder, f"{name}_device", f"{major}:{minor} {weight}", "block io weight of a device", missing)
    if io.leaf_weight:
        missing.append("block io leaf weight")  # gone with the CFQ scheduler, Linux 5.0
    for kind, major, minor, rate in io.throttles:
        _write(folder, f"blkio.throttle.{kind}_device", f"{major}:{minor} {rate}", f"block io {kind}", missing)


def _hugepages(folder: str | None, wanted: Resources, missing: list[str]) -> None:
    for size, limit in wanted.hugepages:
        if folder is not None and files.has(folder, f"hugetlb.{size}.rsvd.limit_in_bytes"):
            files.write(folder, f"hugetlb.{size}.rsvd.limit_in_bytes", limit, what=f"hugepages {size}")
        _write(folder, f"hugetlb.{size}.limit_in_bytes", limit, f"hugepages {size}", missing)


def _network(folders: Folders, wanted: Resources, missing: list[str]) -> None:
    if wanted.net_class:
        _write(folders.get("net_cls"), "net_cls.classid", wanted.net_class, "network class", missing)
    for name, priority in wanted.net_priorities:
        _write(folders.get("net_prio"), "net_prio.ifpriomap", f"{name} {priority}", "network priority", missing)


def _devices(folder: str, default: bool, exceptions: Mapping[tuple[str, int | None, int | None], int]) -> None:
    """Writing `a` sets the default and forgets all exceptions.

    For as long as the filling takes, processes already inside are refused what the new list allows: the safe side.
    """
    files.write(folder, "devices.allow" if default else "devices.deny", "a")
    for node, access in exceptions.items():
        files.write(folder, "devices.deny" if default else "devices.allow", describe(*node, access), what="device rule")
