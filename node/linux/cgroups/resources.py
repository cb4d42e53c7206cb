"""The runtime-spec object `linux.resources` (config-linux.md), read once and checked, for both versions.

0 and absent mean "leave as it is" for every limit, as engines use it, and -1 means "no limit" where there is one.
What is checked here needs no kernel to be known as impossible; everything else the kernel judges.
"""

from __future__ import annotations

from _collections_abc import Mapping, Sequence

from node.linux.cgroups.devices import DeviceRule, InvalidResources, read_rules

__all__ = ("InvalidResources", "Resources")

UNLIMITED = -1
_I64 = (1 << 63) - 1
_U64 = (1 << 64) - 1

Throttle = tuple[str, int, int, int]
"""(kind, major, minor, rate a second); kind is read_bps, write_bps, read_iops or write_iops."""

_THROTTLES = {"throttleReadBpsDevice": "read_bps", "throttleWriteBpsDevice": "write_bps",
              "throttleReadIOPSDevice": "read_iops", "throttleWriteIOPSDevice": "write_iops"}


class Memory:
    """`memory`, bytes. `swap` is memory and swap together."""

    __slots__ = ("check", "kernel", "kernel_tcp", "limit", "no_killer", "reservation", "swap", "swappiness")

    def __init__(self, given: Mapping[str, object]) -> None:
        self.limit = _number(given, "limit", UNLIMITED, _I64, "memory limit")
        self.reservation = _number(given, "reservation", UNLIMITED, _I64, "memory reservation")
        self.swap = _number(given, "swap", UNLIMITED, _I64, "memory+swap limit")
        self.kernel = _number(given, "kernel", UNLIMITED, _I64, "kernel memory limit")
        self.kernel_tcp = _number(given, "kernelTCP", UNLIMITED, _I64, "kernel TCP memory limit")
        self.swappiness = _optional(given, "swappiness", 100)
        self.no_killer = bool(given.get("disableOOMKiller"))
        self.check = bool(given.get("checkBeforeUpdate"))
        if self.swap > 0 and not self.limit:
            raise InvalidResources("a memory+swap limit needs a memory limit")
        if self.swap > 0 and not 0 < self.limit <= self.swap:
            raise InvalidResources(f"the memory+swap limit {self.swap} is below the memory limit {self.limit}")


class Cpu:
    """`cpu`; quota, period, burst and the real-time values in microseconds."""

    __slots__ = ("burst", "cpus", "idle", "mems", "period", "quota", "realtime_period", "realtime_runtime", "shares")

    def __init__(self, given: Mapping[str, object]) -> None:
        self.shares = _number(given, "shares", 0, _U64, "cpu shares")
        self.quota = _number(given, "quota", UNLIMITED, _I64, "cpu quota")
        self.period = _number(given, "period", 0, _U64, "cpu period")
        self.burst = _number(given, "burst", 0, _U64, "cpu burst")
        self.realtime_runtime = _number(given, "realtimeRuntime", 0, _I64, "realtime cpu runtime")
        self.realtime_period = _number(given, "realtimePeriod", 0, _U64, "realtime cpu period")
        self.idle = _optional(given, "idle", 1)
        self.cpus = _text(given, "cpus")
        self.mems = _text(given, "mems")
        if 0 < self.shares < 2 or self.shares > 262144:
            raise InvalidResources(f"cpu shares {self.shares}: the kernel takes 2 to 262144")


class BlockIo:
    """`blockIO`. Weights are 10 to 1000."""

    __slots__ = ("leaf_weight", "throttles", "weight", "weights")

    def __init__(self, given: Mapping[str, object]) -> None:
        self.weight = _weight(given, "weight")
        self.leaf_weight = _weight(given, "leafWeight")
        self.weights: list[tuple[int, int, int]] = [
            (*_device(entry), _weight(entry, "weight")) for entry in _entries(given, "weightDevice")
        ]
        self.throttles: list[Throttle] = [
            (kind, *_device(entry), _number(entry, "rate", 0, _U64, key))
            for key, kind in _THROTTLES.items() for entry in _entries(given, key)
        ]


class Resources:
    """All of it. `pids` is a number of processes, `hugepages` (page size as 2MB, limit in bytes) pairs, `unified`
    file names and values of version 2 as the user wrote them, `rdma` lines for rdma.max, which both versions have."""

    __slots__ = ("cpu", "devices", "hugepages", "io", "memory", "net_class", "net_priorities", "pids", "rdma",
                 "unified")

    def __init__(self, given: Mapping[str, object]) -> None:
        """Raises InvalidResources."""
        self.memory = Memory(_object(given, "memory"))
        self.cpu = Cpu(_object(given, "cpu"))
        self.io = BlockIo(_object(given, "blockIO"))
        self.pids = _number(_object(given, "pids"), "limit", UNLIMITED, _I64, "pids limit")
        self.devices: tuple[DeviceRule, ...] = read_rules(_entries(given, "devices"))
        self.hugepages = [(_page_size(entry), _number(entry, "limit", 0, _U64, "hugepage limit"))
                          for entry in _entries(given, "hugepageLimits")]
        network = _object(given, "network")
        self.net_class = _number(network, "classID", 0, (1 << 32) - 1, "network class")
        self.net_priorities = [(_text(entry, "name"), _number(entry, "priority", 0, (1 << 32) - 1, "priority"))
                               for entry in _entries(network, "priorities")]
        self.unified = {name: str(value) for name, value in _object(given, "unified").items()}
        for name in self.unified:
            if not name or "/" in name or name.startswith((".", "cgroup.")):
                raise InvalidResources(f"{name!r} is not a cgroup file that may be set")
        self.rdma = [_rdma(name, limits) for name, limits in _object(given, "rdma").items()]


def _object(owner: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = owner.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise InvalidResources(f"{key} must be an object")
    return found


def _entries(owner: Mapping[str, object], key: str) -> Sequence[Mapping[str, object]]:
    found = owner.get(key)
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or not all(isinstance(entry, Mapping) for entry in found):
        raise InvalidResources(f"{key} must be a list of objects")
    return found


def _number(owner: Mapping[str, object], key: str, low: int, high: int, what: str) -> int:
    value = owner.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidResources(f"{what} {value!r}: it must be a number from {low} to {high}")
    return value


def _optional(owner: Mapping[str, object], key: str, high: int) -> int | None:
    """A value of which 0 means something."""
    return None if owner.get(key) is None else _number(owner, key, 0, high, key)


def _text(owner: Mapping[str, object], key: str) -> str:
    value = owner.get(key) or ""
    if not isinstance(value, str) or "\n" in value or "\0" in value:
        raise InvalidResources(f"{key} must be one line of text, not {value!r}")
    return value


def _weight(owner: Mapping[str, object], key: str) -> int:
    value = _number(owner, key, 0, 1000, "block io weight")
    if 0 < value < 10:
        raise InvalidResources(f"block io weight {value}: it must be from 10 to 1000")
    return value


def _device(entry: Mapping[str, object]) -> tuple[int, int]:
    return (_number(entry, "major", 0, (1 << 32) - 1, "device major"),
            _number(entry, "minor", 0, (1 << 32) - 1, "device minor"))


def _rdma(device: str, limits: object) -> str:
    if not device or any(letter.isspace() or letter == "\0" for letter in device) or not isinstance(limits, Mapping):
        raise InvalidResources(f"rdma {device!r}: it must be a device's name with an object")
    pairs = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
    words = [f"{word}={_number(limits, key, 0, (1 << 31) - 1, f'rdma {key}')}"
             for key, word in pairs if limits.get(key) is not None]
    if not words:
        raise InvalidResources(f"rdma {device!r}: neither hcaHandles nor hcaObjects")
    return " ".join((device, *words))


def _page_size(entry: Mapping[str, object]) -> str:
    size = _text(entry, "pageSize")
    if not size.isalnum():
        raise InvalidResources(f"hugepage size {size!r}: it must look like 2MB")
    return size
