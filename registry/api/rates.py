"""How many requests somebody may make: token buckets by client address and by principal.

For one process: each worker counts what it serves. The number of buckets is bounded; the longest unused goes first, and
an IPv6 address counts as its network of 64 bits, since whoever has one address of it has all.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from registry.errors import TooManyRequests
from registry.settings import RateSettings

BUCKETS = 20_000
"""About 4 MiB."""


class Rate:
    """`requests` a second for each key on average, `burst` at once; `requests` of 0 is no limit."""

    def __init__(self, requests: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests = requests
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Take one request of `key`: 0, or the seconds until there is one (then none is taken)."""
        if not self._requests:
            return 0.0
        now = self._clock()
        left, since = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._requests)
        late = left < 1
        self._buckets[key] = (left if late else left - 1, now)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
        return (1 - left) / self._requests if late else 0.0


class Rates:
    """What the edge and its fast lane ask."""

    def __init__(self, settings: RateSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._addresses = Rate(settings.address, settings.burst, clock)
        self._principals = Rate(settings.principal, settings.burst, clock)
        self.on = settings.address > 0 or settings.principal > 0

    def admit(self, remote: str, principal: str) -> bool:
        """Both limits at once, for a request that needs nothing more to be answered."""
        return not self._addresses.wait(_network(remote)) and not (principal and self._principals.wait(principal))

    def address(self, remote: str) -> None:
        """To be asked before anything is done for a request. Raises TooManyRequests."""
        if self.on:
            _refuse(self._addresses.wait(_network(remote)))

    def principal(self, name: str) -> None:
        """Raises TooManyRequests. Nobody in particular (an empty name) is counted by address alone."""
        if name and self.on:
            _refuse(self._principals.wait(name))


def _refuse(seconds: float) -> None:
    if seconds:
        raise TooManyRequests(math.ceil(seconds))


def _network(text: str) -> str:
    if ":" not in text:
        return text
    try:
        return str(ipaddress.IPv6Network((text.partition("%")[0], 64), strict=False))
    except ValueError:
        return text
