"""Reading what a version 2 group uses."""

from __future__ import annotations

from node.linux.cgroups import files
from node.linux.cgroups.files import CgroupError
from node.linux.cgroups.stats import Cpu, Io, Memory, Pids, Pressure, Stall, Stats

_MICROSECOND = 1000


def read_stats(folder: str) -> Stats:
    """Controllers this host lacks, or has not given to the group, leave their part at zero."""
    time = files.read_pairs(folder, "cpu.stat")
    count, size = _io(folder)
    return Stats(
        version=2,
        memory=_memory(folder),
        cpu=Cpu(
            total=time.get("usage_usec", 0) * _MICROSECOND,
            user=time.get("user_usec", 0) * _MICROSECOND,
            system=time.get("system_usec", 0) * _MICROSECOND,
            periods=time.get("nr_periods", 0),
            throttled_periods=time.get("nr_throttled", 0),
            throttled=time.get("throttled_usec", 0) * _MICROSECOND,
        ),
        pids=Pids(current=files.read_number(folder, "pids.current") or 0, limit=files.read_number(folder, "pids.max")),
        io_bytes=size,
        io_operations=count,
        pressure={name: found for name in ("cpu", "memory", "io") if (found := _pressure(folder, name)) is not None},
    )


def _pressure(folder: str, name: str) -> Pressure | None:
    """Lines are `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`."""
    try:
        text = files.read_optional(folder, f"{name}.pressure") or ""
    except CgroupError:  # EINVAL and others where psi=0 turned it off
        return None
    stalls = {}
    for line in text.splitlines():
        kind, *words = line.split()
        values = dict(word.split("=", 1) for word in words)
        averages = (float(values["avg10"]), float(values["avg60"]), float(values["avg300"]))
        stalls[kind] = Stall(averages, int(values["total"]) * _MICROSECOND)
    return Pressure(stalls["some"], stalls.get("full")) if "some" in stalls else None


def _memory(folder: str) -> Memory:
    detail = files.read_pairs(folder, "memory.stat")
    usage = files.read_number(folder, "memory.current") or 0
    return Memory(
        usage=usage,
        peak=files.read_number(folder, "memory.peak") or usage,  # since Linux 5.19
        limit=files.read_number(folder, "memory.max"),
        failures=files.read_pairs(folder, "memory.events").get("max", 0),
        swap=files.read_number(folder, "memory.swap.current") or 0,
        swap_limit=files.read_number(folder, "memory.swap.max"),
        cache=detail.get("file", 0),
        inactive_file=detail.get("inactive_file", 0),
        detail=detail,
    )


def _io(folder: str) -> tuple[tuple[Io, ...], tuple[Io, ...]]:
    """Lines are `major:minor rbytes=1 wbytes=2 rios=3 …`: (operations, bytes)."""
    names = {"r": "read", "w": "write", "d": "discard"}
    count: list[Io] = []
    size: list[Io] = []
    for line in (files.read_optional(folder, "io.stat") or "").splitlines():
        device, *fields = line.split()
        major, _, minor = device.partition(":")
        for field in fields:
            key, _, value = field.partition("=")
            into = count if key[1:] == "ios" else size if key[1:] == "bytes" else None
            if into is not None and key[0] in names and value.isdecimal():
                into.append(Io(int(major), int(minor), names[key[0]], int(value)))
    return tuple(count), tuple(size)
