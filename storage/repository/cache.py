"""What was read from the database and is still true.

Reads are answered from here without SQL: two dictionary look-ups and one `Changes.mark` (4 µs), which sees what any
process had committed at the request's `Changes.look`. Only presence is remembered. An entry dies with the first
change of its repository that could make it false (`metadata.repositories.outdate`), so nothing outlives a deletion or
a moved tag (distribution's CVE-2026-35172 was a cache that did).
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from storage.metadata.changes import Changes
from storage.observation import Tally

V = TypeVar("V")

Key = tuple[str, str]
"""Repository name, and a tag or the encoded part of a digest (whose length says which algorithm)."""

OVERHEAD = 600  # bytes of dictionary entry, tuple, strings and small objects, measured roughly and rounded up


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    cost: int
    mark: int


class Cache(Generic[V]):
    """Bounded by bytes; the longest unused goes first. For one event loop."""

    def __init__(self, changes: Changes, limit: int, hits: Tally, misses: Tally) -> None:
        self._hits = hits
        self._misses = misses
        self._changes = changes
        self._limit = limit
        self._entries: OrderedDict[Key, _Entry[V]] = OrderedDict()
        self._cost = 0

    def get(self, key: Key, *, looked: bool = False) -> V | None:
        """`looked`: the caller has had a number from `Changes.mark` in this turn of the event loop."""
        entry = self._entries.get(key)
        if entry is None or entry.mark != (self._changes.peek if looked else self._changes.mark)(key[0]):
            return None
        self._entries.move_to_end(key)
        self._hits.add()
        return entry.value

    def begin(self, key: Key) -> int:
        """To be called before the database is asked; `put` wants what it returns."""
        self._misses.add()
        return self._changes.before(key[0])

    def put(self, key: Key, value: V, size: int, begun: int) -> None:
        """Remember what was read since `begin`. If its repository changed meanwhile, it might be older than the change
        and is never given out: its number is. `size` is what the value weighs, in bytes."""
        cost = size + OVERHEAD
        if cost > self._limit:
            return
        self.drop(key)
        self._entries[key] = _Entry(value, cost, begun)
        self._cost += cost
        while self._cost > self._limit:
            self._cost -= self._entries.popitem(last=False)[1].cost

    def drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._cost -= entry.cost
