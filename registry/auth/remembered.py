"""Credentials that were found good, so that checking them costs a hash once and a dictionary look-up afterwards.

The key is a keyed hash of the header as it came: neither passwords nor tokens stay in memory, and comparing tells
nothing. Only success is remembered, as long as accounts are what they were (`Changes.mark`), and no longer than the
credential itself is good.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from registry.auth.principal import Principal

LIMIT = 10_000
"""Entries: about 5 MiB."""


@dataclass(slots=True)
class _Entry:
    principal: Principal
    mark: object
    until: float
    proof: str


class Remembered:
    """For one event loop. `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def digest(self, credential: str) -> bytes:
        return hashlib.blake2b(credential.encode("utf-8", "surrogateescape"), key=self._key, digest_size=16).digest()

    def get(self, digest: bytes, mark: object) -> Principal | None:
        """`mark`: of the accounts now; None believes nothing."""
        entry = self._entries.get(digest)
        if entry is None or mark is None or entry.mark is None or entry.mark != mark or entry.until <= self._clock():
            return None
        return entry.principal

    def proves(self, digest: bytes, proof: str) -> bool:
        """Whether this credential was once checked against this very hash: then it needs no checking against it again,
        though accounts have changed since."""
        entry = self._entries.get(digest)
        return entry is not None and entry.proof == proof

    def put(self, digest: bytes, principal: Principal, mark: object, until: float, proof: str = "") -> None:
        """`mark`: of the accounts before they were asked; `until`: seconds since 1970; `proof`: the hash it was checked
        against, if that was costly."""
        self._entries.pop(digest, None)
        self._entries[digest] = _Entry(principal, mark, until, proof)
        if len(self._entries) > LIMIT:
            self._entries.popitem(last=False)
