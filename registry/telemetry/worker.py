"""All telemetry of one worker, put together."""

from collections.abc import Sequence
from dataclasses import dataclass

from registry.settings import TracingSettings
from registry.telemetry.board import Board, Part
from registry.telemetry.families import Family, families
from registry.telemetry.observer import WorkerObserver
from registry.telemetry.requests import RequestMeter
from registry.telemetry.tracing import NoTracing, OpenTelemetry, Tracing


@dataclass(frozen=True, slots=True)
class Numbers:
    """What all workers share; to be made before they fork."""

    families: Sequence[Family]
    board: Board

    @classmethod
    def of(cls, endpoints: Sequence[str], workers: int) -> "Numbers":
        made = families(endpoints)
        return cls(made, Board(made, workers))


@dataclass(frozen=True, slots=True)
class Telemetry:
    numbers: Numbers
    part: Part
    meter: RequestMeter
    tracing: Tracing
    observer: WorkerObserver


def make_telemetry(numbers: Numbers, worker: int, pid: int, settings: TracingSettings) -> Telemetry:
    """For the process `pid`, after the fork. Raises TracingMissing."""
    part = numbers.board.part(worker)
    part.begin(pid)
    tracing = OpenTelemetry(settings) if settings.endpoint else NoTracing()
    return Telemetry(numbers, part, RequestMeter(part), tracing, WorkerObserver(part, tracing))
