"""The board as Prometheus reads it, together with numbers that are looked up when somebody asks."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from registry.telemetry.board import Board
from registry.telemetry.families import Family, Kind

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """A gauge's value at the moment of asking."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A gauge that is looked up when somebody asks: its meaning, for the exposition and the manual."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


BUILD = Asked("seawall_build_info", "1; the labels say which program runs", ("version", "python"))
RESIDENT = Asked("seawall_worker_resident_bytes", "memory of a worker process that is resident", ("worker",))
CPU = Asked("seawall_worker_cpu_seconds", "processor time that a worker process took", ("worker",))
FILES = Asked("seawall_worker_open_files", "descriptors that a worker process has open", ("worker",))
UPLOADS = Asked("seawall_uploads_open", "upload sessions that are neither committed nor aborted")
QUEUE = Asked("seawall_webhook_queue", "events that an endpoint has still to hear of", ("endpoint",))
AGE = Asked("seawall_webhook_oldest_seconds", "age of the oldest event an endpoint has still to hear of", ("endpoint",))
DEAD = Asked("seawall_webhook_dead", "events that were given up for an endpoint", ("endpoint",))

ASKED = (BUILD, RESIDENT, CPU, FILES, UPLOADS, QUEUE, AGE, DEAD)


def exposition(board: Board, families: Sequence[Family], readings: Iterable[Reading],
               accept: str) -> tuple[bytes, str]:
    """The document and its content type, in the form that an `Accept` header asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(board, families, [*readings, *_processes(board)]))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Numbers(Collector):
    def __init__(self, board: Board, families: Sequence[Family], readings: Sequence[Reading]) -> None:
        self._board = board
        self._families = families
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            yield self._counted(family)
        for asked in ASKED:
            gauge = GaugeMetricFamily(asked.name, asked.help, labels=asked.labels)
            for reading in self._readings:
                if reading.name == asked.name:
                    gauge.add_metric([value for _, value in reading.labels], reading.value)
            yield gauge

    def _counted(self, family: Family) -> Metric:
        labels = [label.name for label in family.labels]
        if family.kind is Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(family.name, family.help, labels=labels)
            names = [*(repr(bound) for bound in family.bounds), "+Inf"]
            for values, cells in self._board.used(family.name):
                buckets = list(zip(names, accumulate(cells[:-1]), strict=True))
                histogram.add_metric(list(values), buckets, cells[-1])
            return histogram
        of = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
        simple = of(family.name, family.help, labels=labels)
        for values, cells in self._board.used(family.name):
            simple.add_metric(list(values), cells[0])
        return simple


def _processes(board: Board) -> Iterator[Reading]:
    for number, part in enumerate(board.parts()):
        worker = (("worker", str(number)),)
        folder = Path("/proc") / str(part.pid)
        try:
            resident = int((folder / "statm").read_text().split()[1]) * PAGE
            # The second field is the program's name in parentheses and may hold anything.
            times = (folder / "stat").read_text().rpartition(")")[2].split()
            files = sum(1 for _ in (folder / "fd").iterdir())
        except (OSError, IndexError, ValueError):
            continue  # not running at this moment
        yield Reading(RESIDENT.name, resident, worker)
        yield Reading(CPU.name, (int(times[11]) + int(times[12])) / TICKS, worker)
        yield Reading(FILES.name, files, worker)
