"""Numbers in memory that all workers share: each counts in its own part, whoever is asked adds the parts up.

The parent maps the memory before it forks. A place is written by one process and one thread (its event loop) only, as
an aligned 8-byte store, so nothing is locked and adding costs well under a microsecond. A worker that is started again
finds its predecessor's counts: counters never go back while the registry runs. Rejected: prometheus_client's own
multiprocess mode, which keeps a file for every process that ever lived and a dictionary look-up under a lock for
every count.
"""

import itertools
import math
import mmap
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from registry.telemetry.families import Family, Kind

CELL = 8
HEAD = 1
"""Cells before the families: the worker's process id."""


@dataclass(frozen=True, slots=True)
class Range:
    """Where a family's cells lie: `width` for each combination of label values, the last label changing fastest."""

    family: Family
    first: int
    width: int

    @property
    def end(self) -> int:
        return self.first + self.width * math.prod(len(label.values) for label in self.family.labels)

    def place(self, values: tuple[str, ...]) -> int:
        number = 0
        for label, value in zip(self.family.labels, values, strict=True):
            at = label.values.index(value) if value in label.values else len(label.values) - 1
            number = number * len(label.values) + at
        return self.first + number * self.width


class Board:
    def __init__(self, families: Sequence[Family], workers: int) -> None:
        self.workers = workers
        self._ranges: dict[str, Range] = {}
        end = HEAD
        for family in families:
            width = len(family.bounds) + 2 if family.kind is Kind.HISTOGRAM else 1
            self._ranges[family.name] = Range(family, end, width)
            end = self._ranges[family.name].end
        self._size = end
        self._memory: memoryview[float] = memoryview(mmap.mmap(-1, end * CELL * workers)).cast("d")

    def part(self, worker: int) -> "Part":
        return Part(self._ranges, self._memory[worker * self._size : (worker + 1) * self._size])

    def parts(self) -> list["Part"]:
        return [self.part(worker) for worker in range(self.workers)]

    def used(self, name: str) -> Iterator[tuple[tuple[str, ...], list[float]]]:
        """Label values and cells, summed over the workers, of what was counted in; without labels in any case."""
        found = self._ranges[name]
        columns = [self._memory[at + found.first : at + found.end].tolist()
                   for at in range(0, self._size * self.workers, self._size)]
        sums = [float(sum(column)) for column in zip(*columns, strict=True)]
        for number, values in enumerate(itertools.product(*(label.values for label in found.family.labels))):
            cells = sums[number * found.width : (number + 1) * found.width]
            if any(cells) or not values:
                yield values, cells


class Part:
    """One worker's numbers."""

    def __init__(self, ranges: Mapping[str, Range], cells: "memoryview[float]") -> None:
        self._ranges = ranges
        self.cells = cells

    def begin(self, pid: int) -> None:
        """A worker takes over: what only its predecessor had open is no longer open."""
        self.cells[0] = float(pid)
        for found in self._ranges.values():
            if found.family.kind is Kind.GAUGE:
                for place in range(found.first, found.end):
                    self.cells[place] = 0.0

    @property
    def pid(self) -> int:
        return int(self.cells[0])

    def place(self, name: str, *values: str) -> int:
        """Where the first cell of one combination of label values is."""
        return self._ranges[name].place(values)

    def counter(self, name: str, *values: str) -> "Counter":
        """Also for a gauge."""
        return Counter(self.cells, self._ranges[name].place(values))

    def histogram(self, name: str, *values: str) -> "Histogram":
        found = self._ranges[name]
        return Histogram(self.cells, found.place(values), found.family.bounds)


class Counter:
    __slots__ = ("_cells", "_place")

    def __init__(self, cells: "memoryview[float]", place: int) -> None:
        self._cells = cells
        self._place = place

    def add(self, amount: float = 1.0) -> None:
        self._cells[self._place] += amount

    def set(self, value: float) -> None:
        """For a gauge."""
        self._cells[self._place] = value


class Histogram:
    __slots__ = ("_bounds", "_cells", "_first", "_sum")

    def __init__(self, cells: "memoryview[float]", first: int, bounds: tuple[float, ...]) -> None:
        self._cells = cells
        self._first = first
        self._bounds = bounds
        self._sum = first + len(bounds) + 1

    def observe(self, value: float) -> None:
        cells = self._cells
        cells[self._first + bisect_left(self._bounds, value)] += 1.0
        cells[self._sum] += value
