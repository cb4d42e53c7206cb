"""update and events: limits changed, and what a container uses."""

from __future__ import annotations

import os
import select
import sys

from node.linux import cgroups
from node.linux.cgroups import CgroupError, InvalidResources
from node.runtime import jsontext
from node.runtime.oci import store
from node.runtime.oci.failure import Failure, Journal, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.store import Cgroup
    from node.runtime.oci.arguments import Given
    from node.runtime.oci.store import Made, Store

FIELDS = {
    "cpu-period": ("cpu", "period"), "cpu-quota": ("cpu", "quota"), "cpu-share": ("cpu", "shares"),
    "cpu-burst": ("cpu", "burst"), "cpu-idle": ("cpu", "idle"),
    "cpu-rt-period": ("cpu", "realtimePeriod"), "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems"),
    "memory": ("memory", "limit"), "memory-reservation": ("memory", "reservation"), "memory-swap": ("memory", "swap"),
    "pids-limit": ("pids", "limit"), "blkio-weight": ("blockIO", "weight"),
}
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def update(shelf: Store, journal: Journal, given: Given) -> int:
    container = shelf.open(given.words[0])
    container.lock()
    made = container.read()
    groups = cgroups.detect()
    if made is None or store.status(container, made, groups) == "stopped":
        raise Failure("container not running")
    for flag in ("l3-cache-schema", "mem-bw-schema"):
        if given.text(flag):
            raise Failure(f"--{flag}: Intel RDT is not supported")
    wanted = _from_file(given.text("resources")) if given.text("resources") else _from_flags(given)
    try:
        warnings = groups.open(made.cgroup).update(wanted)
    except (CgroupError, InvalidResources) as error:
        raise Failure(reason(error)) from error
    for warning in warnings:
        journal.warning(warning)
    return 0


def _from_file(path: str) -> dict[str, object]:
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            value = jsontext.loads(file.read())
    except (OSError, ValueError) as error:
        raise Failure(f"--resources {path}: {reason(error)}") from error
    if not isinstance(value, dict):
        raise Failure(f"--resources {path}: not an object")
    # What a caller writes as zero or empty it does not want changed.
    return {part: {key: item for key, item in fields.items() if item not in (0, "", None)}
            if isinstance(fields, dict) else fields for part, fields in value.items() if part != "devices"}


def _from_flags(given: Given) -> dict[str, object]:
    wanted: dict[str, dict[str, object]] = {}
    for flag, (part, field) in FIELDS.items():
        if flag in given.flags:
            value: object = given.text(flag) if field in ("cpus", "mems") else given.number(flag)
            wanted.setdefault(part, {})[field] = value
    return {**wanted}


def events(shelf: Store, _journal: Journal, given: Given) -> int:
    container = shelf.open(given.words[0])
    made = container.read()
    groups = cgroups.detect()
    if made is None or store.status(container, made, groups) == "stopped":
        raise Failure("container not running")
    group = groups.open(made.cgroup)
    if given.switch("stats"):
        return _tell(made, "stats", statistics(group))
    return _watch(made, group, seconds(given.text("interval", "5s")))


def _watch(made: Made, group: Cgroup, interval: float) -> int:
    """Until its first process has ended."""
    end = store.open_process(made)
    poll = select.poll()
    poll.register(end, select.POLLIN)
    kills = group.oom_events()
    ooms = group.oom_fd()
    poll.register(ooms, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll(int(interval * 1000))]
        if ooms in ready:
            os.read(ooms, 4096)
            if (now := group.oom_events()) > kills:
                kills = now
                _tell(made, "oom", None)
        if end in ready:
            return 0
        if not ready:
            _tell(made, "stats", statistics(group))


def _tell(made: Made, kind: str, data: object) -> int:
    event = {"type": kind, "id": made.id} if data is None else {"type": kind, "id": made.id, "data": data}
    sys.stdout.write(jsontext.dumps(event) + "\n")
    sys.stdout.flush()
    return 0


def statistics(group: Cgroup) -> dict[str, object]:
    """In the shape of runc's events."""
    now = group.stats()
    memory, cpu = now.memory, now.cpu
    return {
        "cpu": {
            "usage": {"total": cpu.total, "percpu": list(cpu.each), "kernel": cpu.system, "user": cpu.user},
            "throttling": {"periods": cpu.periods, "throttledPeriods": cpu.throttled_periods,
                           "throttledTime": cpu.throttled},
        },
        "memory": {
            "cache": memory.cache,
            "usage": {"limit": _limit(memory.limit), "usage": memory.usage, "max": memory.peak,
                      "failcnt": memory.failures},
            "swap": {"limit": _limit(memory.swap_limit), "usage": memory.swap, "max": 0, "failcnt": 0},
            "raw": dict(memory.detail),
        },
        "pids": {"current": now.pids.current, **({} if now.pids.limit is None else {"limit": now.pids.limit})},
        "blkio": {
            "ioServiceBytesRecursive": [_io(one) for one in now.io_bytes],
            "ioServicedRecursive": [_io(one) for one in now.io_operations],
        },
    }


def _limit(value: int | None) -> int:
    return (1 << 64) - 1 if value is None else value


def _io(one: object) -> dict[str, object]:
    return {"major": one.major, "minor": one.minor, "op": one.operation.capitalize(),  # type: ignore[attr-defined]
            "value": one.value}  # type: ignore[attr-defined]


def seconds(text: str) -> float:
    """5s, 250ms, 1m. Raises Failure."""
    for unit in ("ns", "us", "ms", "s", "m", "h"):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal():
            value = float(number) * _UNITS[unit]
            if value > 0:
                return value
    raise Failure(f"duration {text!r}: must be a number with a unit (ms, s, m), above zero")
