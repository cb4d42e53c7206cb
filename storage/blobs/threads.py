"""The thread boundary of stores whose drivers block."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Translation = Callable[[], AbstractContextManager[None]]
"""Turns what a driver raises within its block into errors of ours."""


class Threads:
    """Runs blocking calls in at most `count` threads, and never leaves one running behind its caller.

    A cancelled caller waits until its call is over: closing a file that a thread still writes would hand the
    descriptor's number to somebody else's file.
    """

    def __init__(self, count: int, name: str, translated: Translation) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._translated = translated

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        future = self._start(call, *args, **kwargs)
        with self._translated():
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                await _over(future)
                raise

    async def open(self, close: Callable[[T], object], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`run` for a call whose result must be closed: a cancelled caller leaves none behind."""
        future = self._start(call, *args, **kwargs)
        with self._translated():
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                await _over(future)
                if not future.cancelled() and future.exception() is None:
                    self.soon(close, future.result())
                raise

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        """Without waiting, and whatever comes of it."""
        self._pool.submit(call, *args)

    def close(self) -> None:
        """Ends the threads once what was asked of them is done."""
        self._pool.shutdown(wait=False)

    def _start(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(*args, **kwargs))


async def _over(future: asyncio.Future[T]) -> None:
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # taken, so that it is not reported as never retrieved
