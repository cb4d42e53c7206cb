"""What a running container uses now: its cgroup, its network namespace, and the machine it shares (`docker stats`).

Nothing is kept between two looks: whoever wants a rate keeps the look before.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node.containers.live import Live
from node.containers.parts import Measures
from node.errors import InternalError
from node.linux.cgroups.stats import Stats

MAX_FILE = 256 * 1024
"""Of a file of procfs that the container's processes make longer (interfaces)."""

_NANOSECONDS_A_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_CPU_FIELDS = 8
"""Of the first line of /proc/stat: guest times behind them are in user and nice already (proc_stat(5))."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one interface, as the container sees it."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU time of all processors together since boot (nanoseconds), their number, and the memory there is (bytes)."""

    cpu: int = 0
    processors: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """One moment's."""

    at: int
    """Nanoseconds since the epoch."""

    stats: Stats
    machine: Machine
    networks: Mapping[str, Traffic] = field(default_factory=dict)


class Gauge:
    def __init__(self, measures: Measures, proc: Path = Path("/proc")) -> None:
        self._measures = measures
        self._proc = proc

    async def read(self, live: Live) -> Look | None:
        """None: nothing runs, or it ended meanwhile."""
        if not live.state.running:
            return None
        own_network = live.container.spec.network.mode != "host"
        try:
            stats = await self._measures.stats(live.id)
            machine, networks = await asyncio.to_thread(self._around, live.state.pid if own_network else 0)
        except InternalError:
            if live.state.running and live.monitor is not None and not live.exited.is_set():
                raise
            return None
        return Look(time.time_ns(), stats, machine, networks)

    def _around(self, pid: int) -> tuple[Machine, Mapping[str, Traffic]]:
        return machine(self._text("stat"), self._text("meminfo")), traffic(self._text(f"{pid}/net/dev")) if pid else {}

    def _text(self, name: str) -> str:
        try:
            with (self._proc / name).open(errors="replace") as file:
                return file.read(MAX_FILE)
        except OSError:
            return ""


def machine(stat: str, meminfo: str) -> Machine:
    """From /proc/stat and /proc/meminfo."""
    total = processors = 0
    for line in stat.splitlines():
        if not line.startswith("cpu"):
            break
        name, *values = line.split()
        if name == "cpu":
            total = sum(map(int, values[:_CPU_FIELDS])) * _NANOSECONDS_A_TICK
        else:
            processors += 1
    first = meminfo.partition("\n")[0].split()
    return Machine(total, processors, int(first[1]) * 1024 if len(first) > 1 else 0)


def traffic(dev: str) -> dict[str, Traffic]:
    """From /proc/<pid>/net/dev; the loopback is nobody's traffic."""
    found = {}
    for line in dev.splitlines()[2:]:
        name, colon, rest = line.rpartition(":")
        values = rest.split()
        if colon and len(values) >= 12 and name.strip() != "lo" and all(value.isdigit() for value in values):
            numbers = list(map(int, values))
            found[name.strip()] = Traffic(*numbers[:4], *numbers[8:12])
    return found
