"""Measures and traces what storage does: `storage.observation.Observer`, made for one worker."""

import time
from contextlib import AbstractContextManager
from types import TracebackType

from ocispec.errors import ResourceExhausted, SeawallError, Unavailable
from registry.telemetry import families
from registry.telemetry.board import Counter, Histogram, Part
from registry.telemetry.tracing import NoTracing, Span, Tracing
from storage.observation import Tally, Uncounted

TALLIES = {
    "cache.manifests.hit": (families.CACHE_HITS, "manifests"),
    "cache.manifests.miss": (families.CACHE_MISSES, "manifests"),
    "cache.blobs.hit": (families.CACHE_HITS, "blobs"),
    "cache.blobs.miss": (families.CACHE_MISSES, "blobs"),
    "cache.upstream.hit": (families.CACHE_HITS, "upstream"),
    "cache.upstream.miss": (families.CACHE_MISSES, "upstream"),
    "store.write.bytes": (families.STORE_RECEIVED,),
    "store.read.bytes": (families.STORE_SENT,),
    "upstream.bytes": (families.UPSTREAM_RECEIVED,),
    "upstream.stale": (families.UPSTREAM_STALE,),
}
"""What storage counts, and which number that is."""


class WorkerObserver:
    def __init__(self, part: Part, tracing: Tracing | None = None) -> None:
        self._part = part
        self._tracing = tracing or NoTracing()
        self._known: dict[tuple[str, str], tuple[Histogram, Histogram, Counter | None]] = {}

    def span(self, room: str, call: str) -> AbstractContextManager[object]:
        known = self._known.get((room, call))
        if known is None:
            known = self._known[room, call] = self._find(room, call)
        return _Work(known, self._tracing.span(f"{room}.{call}") if self._tracing.on else None)

    def tally(self, what: str) -> Tally:
        found = TALLIES.get(what)
        return self._part.counter(*found) if found else Uncounted()

    def _find(self, room: str, call: str) -> tuple[Histogram, Histogram, Counter | None]:
        """Where a success and a failure are timed, and where a failure is counted besides."""
        if room == "upstream":
            return (self._part.histogram(families.UPSTREAM, "ok"), self._part.histogram(families.UPSTREAM, "failed"),
                    None)
        if room == "database":
            timed = self._part.histogram(families.DATABASE, call)
            return timed, timed, self._part.counter(families.DATABASE_ERRORS)
        timed = self._part.histogram(families.STORE, call)
        return timed, timed, self._part.counter(families.STORE_ERRORS, call)


class _Work:
    __slots__ = ("_began", "_known", "_span")

    def __init__(self, known: tuple[Histogram, Histogram, Counter | None], span: Span | None) -> None:
        self._known = known
        self._span = span

    def __enter__(self) -> None:
        if self._span is not None:
            self._span.__enter__()
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        succeeded, failed, errors = self._known
        fault = error is not None and is_fault(error)
        (failed if fault else succeeded).observe(time.perf_counter() - self._began)
        if fault and errors is not None:
            errors.add()
        if self._span is not None:
            self._span.__exit__(kind if fault else None, error if fault else None, trace)


def is_fault(error: BaseException) -> bool:
    """Whether the work failed, rather than found that it must refuse (an absent digest, a client that went)."""
    if isinstance(error, SeawallError):
        return isinstance(error, Unavailable | ResourceExhausted)
    return isinstance(error, Exception) and not isinstance(error, ConnectionError)
