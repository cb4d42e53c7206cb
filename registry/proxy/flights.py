"""One piece of work however many want its result, and a short memory of what does not exist."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """Who comes while the work for `key` runs gets the same result, or the same failure."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The work goes on when the caller is cancelled: others wait for it, and what was asked of an upstream
        should not be asked again."""
        return await asyncio.shield(self.begin(key, work))

    def begin(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Without waiting for it."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(_call(work))
            self._running[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def _landed(self, key: Hashable, task: asyncio.Task[T]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # taken here too: everybody who waited may be gone

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _call(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


class Recent(Generic[T]):
    """Values that are believed until a moment; bounded, the oldest goes first. For one event loop."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._entries: OrderedDict[Hashable, tuple[T, float]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        entry = self._entries.get(key)
        if entry is None or time.monotonic() >= entry[1]:
            return None
        return entry[0]

    def put(self, key: Hashable, value: T, seconds: float) -> None:
        self._entries.pop(key, None)
        self._entries[key] = (value, time.monotonic() + seconds)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        self._entries.pop(key, None)
