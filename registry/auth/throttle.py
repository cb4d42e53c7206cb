"""Failed logins slow down who fails, and nobody else.

Three counters, each a number of failures that fades with time:
- of one name from one address: what a person who mistypes, or a script that guesses, hits first;
- of one address, whatever the names: one who tries a list of names;
- of one name from any address: guessing that is spread over many. It slows down only addresses from which that name
  has not logged in before, so that nobody is kept out of their own account by failing in their name.

What succeeded lately is answered from memory without asking here (see `remembered`), so neighbours behind one address
go on working. The counters are of this process and bounded; a flood of names drops the oldest.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from ocispec.errors import ResourceExhausted

REMEMBERED = 20_000
"""Entries a counter: about 4 MiB each."""

FADE = 60.0
"""Seconds in which one failure is forgotten."""

LONGEST = 60.0
LONGEST_FOR_NAME = 5.0
"""Seconds to wait. A name's own are few: its owner may be the one who comes from a new address."""


class TooManyLogins(ResourceExhausted):
    """Logging in has to wait for `seconds`."""

    def __init__(self, seconds: float, why: str = "too many failed logins") -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(f"{why}: try again in {self.seconds} s", detail={"seconds": self.seconds})


class _Counter:
    """Failures by key. `free` of them cost nothing; each more doubles the wait after the last."""

    def __init__(self, free: int, longest: float, clock: Callable[[], float]) -> None:
        self._free = free
        self._longest = longest
        self._clock = clock
        self._failures: OrderedDict[tuple[str, ...], tuple[float, float]] = OrderedDict()

    def wait(self, key: tuple[str, ...]) -> float:
        """Seconds until the next attempt counts."""
        count, last = self._failures.get(key, (0.0, 0.0))
        passed = self._clock() - last
        excess = math.floor(count - self._free + 0.5)  # what faded between the attempts does not count
        if excess < 0:
            return 0.0
        return max(0.0, min(self._longest, math.pow(2.0, min(excess, 10))) - passed)

    def failed(self, key: tuple[str, ...]) -> None:
        now = self._clock()
        count, last = self._failures.pop(key, (0.0, now))
        self._failures[key] = (max(0.0, count - (now - last) / FADE) + 1, now)
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def forget(self, key: tuple[str, ...]) -> None:
        self._failures.pop(key, None)


class Throttle:
    """To be asked before a password is looked at, and told how that went. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pair = _Counter(5, LONGEST, clock)
        self._address = _Counter(30, LONGEST, clock)
        self._name = _Counter(100, LONGEST_FOR_NAME, clock)
        self._at_home: OrderedDict[tuple[str, str], None] = OrderedDict()

    def check(self, name: str, remote: str) -> None:
        """Raises TooManyLogins."""
        where = neighbourhood(remote)
        wait = max(self._pair.wait((name, where)), self._address.wait((where,)))
        if (name, where) not in self._at_home:
            wait = max(wait, self._name.wait((name,)))
        if wait > 0:
            raise TooManyLogins(wait)

    def failed(self, name: str, remote: str) -> None:
        where = neighbourhood(remote)
        self._pair.failed((name, where))
        self._address.failed((where,))
        self._name.failed((name,))

    def succeeded(self, name: str, remote: str) -> None:
        where = neighbourhood(remote)
        self._pair.forget((name, where))
        self._at_home.pop((name, where), None)
        self._at_home[name, where] = None
        if len(self._at_home) > REMEMBERED:
            self._at_home.popitem(last=False)


def neighbourhood(remote: str) -> str:
    """What one client can be expected to have: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        address = ipaddress.ip_address(remote)
    except ValueError:
        return remote
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)
