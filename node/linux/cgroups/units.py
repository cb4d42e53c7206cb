"""systemd's view of groups: a container is a scope in a slice, and limits are properties of the unit.

Names in, property lists out; nothing here talks to anybody. See systemd.resource-control(5) and systemd.slice(5).
"""

from __future__ import annotations

import errno

from node.linux.cgroups.files import CgroupError
from node.linux.dbus import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from node.linux.cgroups.v2_limits import Setting

Property = tuple[str, Variant]

_INFINITY = (1 << 64) - 1
_SECOND = 1_000_000
_PERCENT = 10_000
"""Microseconds of processor time a second: systemd keeps whole percents."""

_NUMBERS = {"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow",
            "memory.min": "MemoryMin", "memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax",
            "cpu.weight": "CPUWeight"}
_RATES = {"rbps": "IOReadBandwidthMax", "wbps": "IOWriteBandwidthMax", "riops": "IOReadIOPSMax",
          "wiops": "IOWriteIOPSMax"}
_SUFFIXES = {"K": 10, "M": 20, "G": 30, "T": 40}
_IDLE_SINCE = 252
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")
_MAX_NAME = 255


class Place:
    """`slice:prefix:name`, as engines write it: the scope `prefix-name.scope` in that slice."""

    __slots__ = ("path", "slice", "unit")

    def __init__(self, text: str) -> None:
        """Raises CgroupError (EINVAL)."""
        parts = text.split(":")
        if len(parts) != 3 or not parts[2]:
            raise CgroupError(errno.EINVAL, f"{text!r}: the systemd cgroup driver wants SLICE:PREFIX:NAME")
        self.slice = parts[0] or "system.slice"
        self.unit = f"{parts[1]}-{parts[2]}.scope" if parts[1] else f"{parts[2]}.scope"
        if parts[2].endswith(".slice"):
            raise CgroupError(errno.EINVAL, f"{text!r}: a container is a scope, not a slice")
        _check(self.unit)
        self.path = f"{expanded(self.slice)}/{self.unit}".strip("/")
        """Below the root of the tree."""


def expanded(name: str) -> str:
    """The folder of a slice: the dashes in its name are its parents. Raises CgroupError (EINVAL)."""
    stem = name.removesuffix(".slice")
    if stem == "-" and name != stem:
        return ""
    if stem == name or not stem or stem.startswith("-") or stem.endswith("-") or "--" in stem:
        raise CgroupError(errno.EINVAL, f"{name!r} is not the name of a slice, like machine.slice")
    _check(name)
    parts = stem.split("-")
    return "/".join("-".join(parts[:count]) + ".slice" for count in range(1, len(parts) + 1))


def _check(name: str) -> None:
    if len(name) > _MAX_NAME or not set(name) <= _NAME or name.startswith("."):
        raise CgroupError(errno.EINVAL, f"{name!r} cannot be the name of a systemd unit")


def of_scope(place: Place, description: str, pid: int) -> list[Property]:
    """What makes it ours: systemd puts the process in, leaves the inside alone and forgets it once it is empty."""
    return [
        ("Description", Variant("s", description)), ("Slice", Variant("s", place.slice)),
        ("PIDs", Variant("au", [pid])), ("Delegate", Variant("b", True)),
        ("DefaultDependencies", Variant("b", False)), ("CollectMode", Variant("s", "inactive-or-failed")),
        # As without systemd: whoever asks for no limit has none, where systemd has a default of its own.
        ("TasksMax", Variant("t", _INFINITY)),
    ]


def of_settings(settings: Iterable[Setting], version: int) -> list[Property]:
    """Limits as systemd has words for them, so that it writes the same values when it writes them again.

    What it has no property for (huge pages, burst, misc …) it does not touch either.
    """
    found: dict[str, Variant] = {}
    lists: dict[str, list[tuple[str, int]]] = {}
    for name, value, _what in settings:
        text = str(value)
        if name in _NUMBERS:
            found[_NUMBERS[name]] = Variant("t", _number(text))
        elif name == "cpu.idle" and text == "1" and version >= _IDLE_SINCE:
            found["CPUWeight"] = Variant("t", 0)
        elif name == "cpu.max":
            found.update(_quota(text))
        elif name in ("cpuset.cpus", "cpuset.mems"):
            found["AllowedCPUs" if name == "cpuset.cpus" else "AllowedMemoryNodes"] = Variant("ay", _mask(text))
        elif name in ("io.weight", "io.bfq.weight"):
            _weigh(text, name == "io.bfq.weight", found, lists)
        elif name == "io.max":
            for key, device, rate in _rates(text):
                lists.setdefault(key, []).append((device, rate))
    return [*found.items(), *((name, Variant("a(st)", entries)) for name, entries in lists.items())]


def _number(text: str) -> int:
    """The kernel takes the suffixes of memparse()."""
    if text == "max":
        return _INFINITY
    shift = _SUFFIXES.get(text[-1:].upper(), 0)
    return int(text[:-1] if shift else text) << shift


def _quota(text: str) -> Iterator[tuple[str, Variant]]:
    quota, _, period = text.partition(" ")
    each = _INFINITY
    if quota != "max":
        each = -(-int(quota) * _SECOND // int(period or 100_000))
        each += -each % _PERCENT
    yield "CPUQuotaPerSecUSec", Variant("t", each)
    yield "CPUQuotaPeriodUSec", Variant("t", int(period or 100_000))


def _mask(text: str) -> bytes:
    """`0-2,5` as bits, the lowest byte first."""
    bits = 0
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < 1 << 16:
            raise ValueError(f"{part!r} is not a range of numbers")
        bits |= ((1 << (high - low + 1)) - 1) << low
    return bits.to_bytes(max(1, (bits.bit_length() + 7) // 8), "little")


def _weigh(text: str, bfq: bool, found: dict[str, Variant], lists: dict[str, list[tuple[str, int]]]) -> None:
    first, _, second = text.removeprefix("default ").partition(" ")
    weight = int(second or first)
    if bfq and weight > 100:
        # What systemd makes of an IOWeight for BFQ, the other way round: 100 to 1000 stand for 100 to 10000.
        weight = 100 + (weight - 100) * 11
    if second:
        lists.setdefault("IODeviceWeight", []).append((f"/dev/block/{first}", weight))
    else:
        found["IOWeight"] = Variant("t", weight)


def _rates(text: str) -> Iterator[tuple[str, str, int]]:
    device, *pairs = text.split(" ")
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key in _RATES:
            yield _RATES[key], f"/dev/block/{device}", _number(value)
