"""Work that outlives the request that began it (watching a container, sweeping its files): kept, named, awaited."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class Tasks:
    """Owns its tasks: a failure is logged with the task's name, `close` cancels or awaits what is left."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def whole(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Await work that must not stop in the middle: when the caller is cancelled it goes on to its end."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self, *, grace: float = 5.0) -> None:
        """Let what must be whole finish for `grace` seconds, then cancel."""
        watching = {task for task in self._running if task.get_name().startswith("watch ")}
        for task in watching:
            task.cancel()
        if rest := self._running - watching:
            await asyncio.wait(rest, timeout=grace)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, *watching, return_exceptions=True)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)
