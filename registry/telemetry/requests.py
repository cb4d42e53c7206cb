"""Counting requests."""

from bisect import bisect_left

from registry.telemetry import families
from registry.telemetry.board import Counter, Part


class RequestMeter:
    """For one worker. `done` is on the way of every answer, also the fastest: three additions and one look-up."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._cells = part.cells
        self._known: dict[tuple[str, str, int], tuple[int, int, int]] = {}
        self._received: dict[str, Counter] = {}
        self.running = part.counter(families.RUNNING)
        self.connections = part.counter(families.CONNECTIONS)
        self.denied = part.counter(families.DENIED)
        self.logins_failed = part.counter(families.LOGINS_FAILED)
        self.throttled = part.counter(families.THROTTLED)

    def done(self, endpoint: str, method: str, status: int, seconds: float, sent: int) -> None:
        known = self._known.get((endpoint, method, status))
        if known is None:
            known = self._learn(endpoint, method, status)
        # By hand what `Counter.add` and `Histogram.observe` do: calling them costs more than they do.
        requests, timed, bytes_sent = known
        cells = self._cells
        cells[requests] += 1.0
        cells[timed + bisect_left(families.FAST, seconds)] += 1.0
        cells[timed + len(families.FAST) + 1] += seconds
        cells[bytes_sent] += sent

    def received(self, endpoint: str, size: int) -> None:
        if endpoint not in self._received:
            self._received[endpoint] = self._part.counter(families.RECEIVED, endpoint)
        self._received[endpoint].add(size)

    def _learn(self, endpoint: str, method: str, status: int) -> tuple[int, int, int]:
        if method not in families.METHODS:
            method = families.OTHER  # a client makes those up: they must not fill the dictionary either
        key = endpoint, method, status
        if key not in self._known:
            self._known[key] = (self._part.place(families.REQUESTS, endpoint, method, str(status)),
                                self._part.place(families.SECONDS, endpoint, method),
                                self._part.place(families.SENT, endpoint))
        return self._known[key]
