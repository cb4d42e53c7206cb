"""One piece of work for everybody who wants it: two pulls of the same layer download it once.

The work is a task of its own. It goes on as long as somebody waits for it; when the last one is cancelled, so is it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

Listener = Callable[[str, int, int], None]
"""(status, current, total): a line of progress."""


class Flight(Generic[R]):
    """Work under way. It tells all who listen; who comes later hears the last line first."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._last: tuple[str, int, int] | None = None
        self.waiters = 0
        self.task: asyncio.Task[R] | None = None

    def tell(self, status: str, current: int = 0, total: int = 0) -> None:
        self._last = (status, current, total)
        for listener in self._listeners:
            listener(status, current, total)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)
        if self._last is not None:
            listener(*self._last)

    def leave(self, listener: Listener) -> None:
        self._listeners.remove(listener)


Work = Callable[[Flight[R]], Awaitable[R]]


class Flights(Generic[K, R]):
    def __init__(self) -> None:
        self._flying: dict[K, Flight[R]] = {}

    def active(self, key: K) -> bool:
        return key in self._flying

    async def run(self, key: K, work: Work[R], listener: Listener | None = None) -> R:
        """The result of the flight for `key`, which `work` becomes when there is none. Raises what the work raises."""
        while (flight := self._flying.get(key)) is not None and flight.waiters == 0:
            assert flight.task is not None
            await asyncio.wait({flight.task})  # it was given up and is cleaning up: begin after it, not beside it
        if flight is None:
            flight = self._flying[key] = Flight()
            flight.task = asyncio.ensure_future(self._fly(key, flight, work))
            flight.task.add_done_callback(_mark_seen)
        return await self._wait(flight, listener)

    async def close(self) -> None:
        tasks = [flight.task for flight in self._flying.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _fly(self, key: K, flight: Flight[R], work: Work[R]) -> R:
        try:
            return await work(flight)
        finally:
            del self._flying[key]

    async def _wait(self, flight: Flight[R], listener: Listener | None) -> R:
        assert flight.task is not None
        if listener is not None:
            flight.listen(listener)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if listener is not None:
                flight.leave(listener)
            if not flight.waiters and not flight.task.done():
                flight.task.cancel()
                await asyncio.wait({flight.task})


def _mark_seen(task: "asyncio.Task[R]") -> None:
    """A failure that came after everybody had left is nobody's news."""
    if not task.cancelled():
        task.exception()
