"""Writing limits into a version 2 group. Kernel documentation: admin-guide/cgroup-v2.rst.

The runtime-spec was written for version 1; where version 2 measures otherwise, the values are converted as other
runtimes do, so that a container weighs the same beside theirs.
"""

from __future__ import annotations

import errno
import math
from _collections_abc import Iterator

from node.linux.cgroups import files
from node.linux.cgroups.device_program import attach
from node.linux.cgroups.files import CgroupError
from node.linux.cgroups.resources import UNLIMITED, BlockIo, Cpu, InvalidResources, Memory, Resources

_DEFAULT_PERIOD = 100_000
_IO_KEYS = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}

Setting = tuple[str, object, str]
"""(file, value, the limit's name for an error)."""


def apply(folder: str, wanted: Resources) -> list[str]:
    """Write what `wanted` names; gives warnings about what this host lacks. Raises InvalidResources, CgroupError."""
    _check_before_update(folder, wanted.memory)
    missing = [*_not_in_version_2(wanted)]
    for name, value, what in _settings(folder, wanted):
        if files.has(folder, name):
            files.write(folder, name, value, what=what)
        elif value != "max":
            missing.append(what)
    for name, text in wanted.unified.items():
        if not files.has(folder, name):
            raise InvalidResources(f"{name}: this host has no such cgroup file")
        for line in text.splitlines():
            files.write(folder, name, line)
    if wanted.devices:
        attach(folder, wanted.devices)
    return [f"this host does not support the limit: {name}" for name in missing]


def settings(folder: str, wanted: Resources) -> list[Setting]:
    """Everything that `apply` writes, as it writes it."""
    unified = [(name, line, name) for name, text in wanted.unified.items() for line in text.splitlines()]
    return [*_settings(folder, wanted), *unified]


def _check_before_update(folder: str, memory: Memory) -> None:
    """Version 2 takes a limit below what is used, and kills for it."""
    if memory.check and memory.limit > 0:
        usage = files.read_number(folder, "memory.current") or 0
        if usage > memory.limit:
            raise CgroupError(errno.EBUSY, f"memory limit {memory.limit}: {usage} bytes are in use")


def _not_in_version_2(wanted: Resources) -> Iterator[str]:
    if wanted.memory.swappiness is not None:
        yield "memory swappiness"
    if wanted.memory.no_killer:
        yield "disable OOM killer"
    if wanted.memory.kernel:
        yield "kernel memory"
    if wanted.memory.kernel_tcp:
        yield "kernel TCP memory"
    if wanted.cpu.realtime_period or wanted.cpu.realtime_runtime:
        yield "realtime cpu"
    if wanted.io.leaf_weight:
        yield "block io leaf weight"
    if wanted.net_class:
        yield "network class"
    if wanted.net_priorities:
        yield "network priority"


def _settings(folder: str, wanted: Resources) -> Iterator[Setting]:
    yield from _memory(wanted.memory)
    yield from _cpu(folder, wanted.cpu)
    if wanted.pids:
        yield "pids.max", _or_max(wanted.pids), "pids limit"
    yield from _block_io(folder, wanted.io)
    for line in wanted.rdma:
        yield "rdma.max", line, "rdma"
    for size, limit in wanted.hugepages:
        if files.has(folder, f"hugetlb.{size}.rsvd.max"):
            yield f"hugetlb.{size}.rsvd.max", limit, f"hugepages {size}"
        yield f"hugetlb.{size}.max", limit, f"hugepages {size}"


def _or_max(value: int) -> object:
    return "max" if value == UNLIMITED else value


def _memory(memory: Memory) -> Iterator[Setting]:
    """Swap first: where both shrink, the memory that must go out may not go where it may not stay."""
    swap = UNLIMITED if memory.limit == UNLIMITED and not memory.swap else memory.swap
    if swap:
        alone = swap if swap == UNLIMITED else swap - memory.limit
        yield "memory.swap.max", _or_max(alone), "memory+swap limit"
    if memory.limit:
        yield "memory.max", _or_max(memory.limit), "memory limit"
    if memory.reservation:
        yield "memory.low", _or_max(memory.reservation), "memory reservation"


def _cpu(folder: str, cpu: Cpu) -> Iterator[Setting]:
    if cpu.idle is not None:
        yield "cpu.idle", cpu.idle, "cpu idle"
    if cpu.shares and not cpu.idle:
        yield "cpu.weight", weight_of_shares(cpu.shares), "cpu shares"
    if cpu.quota or cpu.period:
        if files.has(folder, "cpu.max.burst"):
            yield "cpu.max.burst", 0, "cpu burst"  # the old one may be too large for the new quota
        quota, period = _bandwidth_now(folder)
        yield "cpu.max", f"{_or_max(cpu.quota or quota)} {cpu.period or period}", "cpu quota"
    if cpu.burst:
        yield "cpu.max.burst", cpu.burst, "cpu burst"
    if cpu.cpus:
        yield "cpuset.cpus", cpu.cpus, "cpuset cpus"
    if cpu.mems:
        yield "cpuset.mems", cpu.mems, "cpuset mems"


def _bandwidth_now(folder: str) -> tuple[int, int]:
    quota, _, period = (files.read_optional(folder, "cpu.max") or f"max {_DEFAULT_PERIOD}").partition(" ")
    return UNLIMITED if quota == "max" else int(quota), int(period or _DEFAULT_PERIOD)


def weight_of_shares(shares: int) -> int:
    """Version 1 shares (2 to 262144, usual 1024) as a version 2 weight (1 to 10000, usual 100).

    A curve through (2, 1), (1024, 100) and (262144, 10000), the one runc, crun and systemd agreed on in 2025; the
    straight line used before made the usual 1024 a 39 and so weaker than everything outside containers.
    """
    power = math.log2(shares)
    return min(10_000, max(1, math.ceil(10 ** ((power**2 + 125 * power) / 612 - 7 / 34))))


def _block_io(folder: str, io: BlockIo) -> Iterator[Setting]:
    bfq = files.has(folder, "io.bfq.weight")
    name = "io.bfq.weight" if bfq else "io.weight"

    def weight(value: int) -> int:
        return value if bfq else 1 + (value - 10) * 9999 // 990

    if io.weight:
        yield name, weight(io.weight), "block io weight"
    for major, minor, value in io.weights:
        yield name, f"{major}:{minor} {weight(value)}", "block io weight of a device"
    for kind, major, minor, rate in io.throttles:
        yield "io.max", f"{major}:{minor} {_IO_KEYS[kind]}={rate or 'max'}", f"block io {kind}"
