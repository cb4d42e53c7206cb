"""Reading what a version 1 group uses."""

from __future__ import annotations

from collections.abc import Mapping

from node.linux.cgroups import files
from node.linux.cgroups.stats import Cpu, Io, Memory, Pids, Stats

_NO_LIMIT = 1 << 62
"""The kernel shows a huge number, rounded to pages, where there is no limit."""


def read_stats(folders: Mapping[str, str]) -> Stats:
    """Controllers this host lacks leave their part at zero."""
    blkio = folders.get("blkio")
    return Stats(
        memory=_memory(folders["memory"]) if "memory" in folders else Memory(),
        cpu=_cpu(folders),
        pids=_pids(folders["pids"]) if "pids" in folders else Pids(),
        io_bytes=_io(blkio, "io_service_bytes") if blkio else (),
        io_operations=_io(blkio, "io_serviced") if blkio else (),
    )


def _memory(folder: str) -> Memory:
    detail = files.read_pairs(folder, "memory.stat")
    usage = files.read_number(folder, "memory.usage_in_bytes") or 0
    limit = _limit(folder, "memory.limit_in_bytes")
    both = files.read_number(folder, "memory.memsw.usage_in_bytes")
    both_limit = _limit(folder, "memory.memsw.limit_in_bytes")
    return Memory(
        usage=usage,
        peak=files.read_number(folder, "memory.max_usage_in_bytes") or 0,
        limit=limit,
        # With equal limits it is memory+swap that is hit, never memory alone.
        failures=sum(files.read_number(folder, f"memory.{kind}failcnt") or 0 for kind in ("", "memsw.")),
        swap=max(0, both - usage) if both is not None else 0,
        swap_limit=max(0, both_limit - limit) if both_limit is not None and limit is not None else None,
        cache=detail.get("total_cache", 0),
        inactive_file=detail.get("total_inactive_file", 0),
        detail=detail,
    )


def _limit(folder: str, name: str) -> int | None:
    value = files.read_number(folder, name)
    return None if value is None or value >= _NO_LIMIT else value


def _cpu(folders: Mapping[str, str]) -> Cpu:
    account = folders.get("cpuacct")
    throttling = files.read_pairs(folders["cpu"], "cpu.stat") if "cpu" in folders else {}
    times: dict[str, int] = {}
    each: tuple[int, ...] = ()
    if account:
        names = ("usage", "usage_user", "usage_sys")
        times = {name: files.read_number(account, f"cpuacct.{name}") or 0 for name in names}
        each = tuple(map(int, (files.read_optional(account, "cpuacct.usage_percpu") or "").split()))
    return Cpu(
        total=times.get("usage", 0),
        user=times.get("usage_user", 0),
        system=times.get("usage_sys", 0),
        each=each,
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled=throttling.get("throttled_time", 0),
    )


def _pids(folder: str) -> Pids:
    return Pids(current=files.read_number(folder, "pids.current") or 0, limit=files.read_number(folder, "pids.max"))


def _io(folder: str, name: str) -> tuple[Io, ...]:
    """Lines are `major:minor Operation count`, and a last `Total count`."""
    for prefix in ("blkio.throttle", "blkio.bfq", "blkio"):
        found = []
        for line in (files.read_optional(folder, f"{prefix}.{name}_recursive") or "").splitlines():
            fields = line.split()
            if len(fields) == 3 and fields[1] != "Total":
                major, _, minor = fields[0].partition(":")
                found.append(Io(int(major), int(minor), fields[1].lower(), int(fields[2])))
        if found:
            return tuple(found)
    return ()
