"""What a container uses, as `GET /containers/{id}/stats` shows it. The two cgroup versions are shown differently."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from node.api.version import NEWEST, ApiVersion
from node.containers.clock import written
from node.containers.model import ZERO_TIME, Container
from node.containers.usage import Look, Traffic
from node.linux.cgroups.stats import Io, Stats

Json = dict[str, Any]

NAMES_SYSTEM = ApiVersion(1, 52)
UNLIMITED = 2**64 - 1
_IO_TABLES = ("io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive",
              "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive",
              "sectors_recursive")  # fmt: skip


def usage(container: Container, now: Look | None, before: Look | None = None, version: ApiVersion = NEWEST) -> Json:
    """`now` None: the container does not run. `before`: the look that the processor time is compared with."""
    document: Json = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": written(now.at) if now else ZERO_TIME,
        "preread": written(before.at) if before else ZERO_TIME,
        "pids_stats": _pids(now.stats) if now else {},
        "blkio_stats": _block_io(now.stats if now else None),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now) if now else {},
    }
    if version >= NAMES_SYSTEM:
        document["os_type"] = "linux"
    if now and now.networks:
        document["networks"] = {name: _traffic(item) for name, item in now.networks.items()}
    return document


def _pids(stats: Stats) -> Json:
    limit = stats.pids.limit or (UNLIMITED if stats.version == 2 else 0)
    values = {"current": stats.pids.current, "limit": limit}
    return {name: value for name, value in values.items() if value}


def _cpu(look: Look | None) -> Json:
    cpu = look.stats.cpu if look else Stats().cpu
    times: Json = {"total_usage": cpu.total}
    if cpu.each:
        times["percpu_usage"] = list(cpu.each)
    document: Json = {"cpu_usage": times | {"usage_in_kernelmode": cpu.system, "usage_in_usermode": cpu.user}}
    if look:
        document |= {"system_cpu_usage": look.machine.cpu, "online_cpus": look.machine.processors}
    return document | {
        "throttling_data": {
            "periods": cpu.periods, "throttled_periods": cpu.throttled_periods, "throttled_time": cpu.throttled,
        }
    }  # fmt: skip


def _memory(look: Look) -> Json:
    """Without a limit the machine's memory is the limit, as in Docker."""
    memory, machine = look.stats.memory, look.machine.memory
    document: Json = {"usage": memory.usage}
    if look.stats.version == 1:
        document["max_usage"] = memory.peak
    document["stats"] = dict(memory.detail)
    if memory.failures:
        document["failcnt"] = memory.failures
    limit = machine if memory.limit is None else min(memory.limit, machine or memory.limit)
    return document | {"limit": limit}


def _block_io(stats: Stats | None) -> Json:
    if stats is None:
        return dict.fromkeys(_IO_TABLES)
    first = stats.version == 1
    tables: Json = dict.fromkeys(_IO_TABLES, [] if first else None)
    shown = _first_version if first else _second_version
    return tables | {_IO_TABLES[0]: shown(stats.io_bytes), _IO_TABLES[1]: shown(stats.io_operations)}


def _first_version(counters: Sequence[Io]) -> list[Json]:
    """With the kernel's own line of totals, which our reader leaves out."""
    lines = [_io(item, item.operation.capitalize()) for item in counters]
    totals: dict[tuple[int, int], int] = {}
    for item in counters:
        if item.operation in ("read", "write", "discard"):
            totals[item.major, item.minor] = totals.get((item.major, item.minor), 0) + item.value
    return lines + [{"major": major, "minor": minor, "op": "Total", "value": value}
                    for (major, minor), value in totals.items()]


def _second_version(counters: Sequence[Io]) -> list[Json]:
    return [_io(item, item.operation) for item in counters]


def _io(item: Io, operation: str) -> Json:
    return {"major": item.major, "minor": item.minor, "op": operation, "value": item.value}


def _traffic(item: Traffic) -> Mapping[str, int]:
    return asdict(item)
