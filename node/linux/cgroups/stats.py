"""What a group uses, in one shape for both versions. Times are nanoseconds, sizes bytes, None means "no limit"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Memory:
    usage: int = 0
    peak: int = 0
    limit: int | None = None
    failures: int = 0
    """How often the limit was hit."""
    swap: int = 0
    swap_limit: int | None = None
    """On swap alone, not memory and swap together."""
    cache: int = 0
    inactive_file: int = 0
    """The part of the cache that is given back first: tools subtract it from usage."""
    detail: Mapping[str, int] = field(default_factory=dict)
    """The kernel's memory.stat under its own names, which differ between the versions."""


@dataclass(frozen=True, slots=True)
class Cpu:
    total: int = 0
    user: int = 0
    system: int = 0
    each: tuple[int, ...] = ()
    """By processor; empty on version 2."""
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0


@dataclass(frozen=True, slots=True)
class Pids:
    current: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Io:
    """One counter of one block device; `operation` is read, write, sync, async or discard."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True, slots=True)
class Stall:
    """How long tasks waited for one resource (Documentation/accounting/psi.rst): `average` percent of the last 10, 60
    and 300 seconds, `total` nanoseconds."""

    average: tuple[float, float, float]
    total: int


@dataclass(frozen=True, slots=True)
class Pressure:
    """`some`: at least one task waited; `full`: all that could run."""

    some: Stall
    full: Stall | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    version: int = 1
    """Whose words `memory.detail` and `io_*` are in."""
    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    pids: Pids = Pids()
    io_bytes: tuple[Io, ...] = ()
    io_operations: tuple[Io, ...] = ()
    pressure: Mapping[str, Pressure] = field(default_factory=dict)
    """Of cpu, memory and io; empty on version 1, and where the kernel keeps no account of it."""
