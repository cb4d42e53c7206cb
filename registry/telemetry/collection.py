"""Counting what garbage collections do."""

import time

from registry.telemetry import families
from registry.telemetry.board import Part
from storage.gc.report import GcReport


class CollectionMeter:
    """For one worker."""

    def __init__(self, part: Part) -> None:
        self._ok, self._failed = (part.counter(families.GC_RUNS, result) for result in families.RESULTS)
        self._removed = {kind: part.counter(families.GC_REMOVED, kind) for kind in families.COLLECTED}
        self._freed = part.counter(families.GC_FREED)
        self._seconds = part.counter(families.GC_SECONDS)
        self._hold = part.counter(families.GC_HOLD)
        self._time = part.counter(families.GC_TIME)

    def ran(self, report: GcReport, seconds: float) -> None:
        self._ok.add()
        for kind, count in report.counts.items():
            self._removed.get(kind, self._removed[families.OTHER]).add(count)
        self._freed.add(report.freed)
        self._seconds.set(seconds)
        self._hold.set(report.longest_hold)
        self._time.set(time.time())

    def failed(self) -> None:
        self._failed.add()
