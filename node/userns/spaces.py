"""Namespaces for containers to come: a user namespace with ids of its own, and the network namespace that it owns.

They are made by the launcher (a process with threads cannot), ahead of need: a start takes a pair that is ready and
another one is made when it is over. They live by descriptors alone, so nothing is left of those that nobody took.
"""

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from node.userns.ranges import SIZE, Held, IdRange, NoFreeIds, Ranges
from ocispec.errors import SeawallError

READY = 4
"""So many wait for their containers."""

REST = 0.5
"""Seconds after a start in which nothing is made: the start has the processor for itself."""

PROBE = (0x8000_0000, SIZE)
"""Ids for a namespace without anybody in it: they are nobody else's less for that."""

log = logging.getLogger(__name__)


class MakesNamespaces(Protocol):
    """node.containers.launcher.Launcher."""

    async def make_namespaces(self, first: int, size: int) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Space:
    """Descriptors of both namespaces, and the hold on the ids."""

    held: Held
    user: int
    network: int

    @property
    def ids(self) -> IdRange:
        return self.held.ids

    def close(self) -> None:
        for fd in (self.user, self.network):
            os.close(fd)
        self.held.close()


class Spaces:
    """Made by `open_spaces`. `prepare` blocks and makes a network namespace fit for any container."""

    def __init__(self, ranges: Ranges, maker: MakesNamespaces, prepare: Callable[[int], None]) -> None:
        self._ranges = ranges
        self._maker = maker
        self._prepare = prepare
        self._ready: deque[Space] = deque()
        self._wanted = asyncio.Event()
        self._probe: asyncio.Future[int] | None = None

    async def take(self, size: int = SIZE) -> Space:
        """The caller closes it. Raises NoFreeIds, LauncherFailed, OSError."""
        try:
            if size == SIZE and self._ready:
                return self._ready.popleft()
            return await self._make(size)
        finally:
            self._wanted.set()

    async def probe(self) -> int:
        """A user namespace that nobody lives in, for trying what can be mapped. It stays ours."""
        if self._probe is None:
            self._probe = asyncio.ensure_future(self._make_probe())
        try:
            return await asyncio.shield(self._probe)
        except (SeawallError, OSError):
            self._probe = None
            raise

    async def _make_probe(self) -> int:
        user, network = await self._maker.make_namespaces(*PROBE)
        os.close(network)
        return user

    def share(self, ids: IdRange) -> Held:
        """A further hold on the ids of a container whose namespaces are joined. Raises NoFreeIds."""
        return self._ranges.share(ids)

    async def _make(self, size: int) -> Space:
        held = await asyncio.to_thread(self._ranges.take, size)
        try:
            user, network = await self._maker.make_namespaces(held.ids.first, size)
        except BaseException:
            held.close()
            raise
        space = Space(held, user, network)
        try:
            await asyncio.to_thread(self._prepare, network)
        except BaseException:
            space.close()
            raise
        return space

    async def refill(self) -> None:
        """Never ends."""
        while True:
            while len(self._ready) < READY:
                try:
                    self._ready.append(await self._make(SIZE))
                except (SeawallError, OSError) as error:
                    log.warning("no namespaces can be made ahead of need: %s", error)
                    break
            self._wanted.clear()
            await self._wanted.wait()
            await asyncio.sleep(REST)

    def close(self) -> None:
        while self._ready:
            self._ready.pop().close()
        if self._probe is not None and self._probe.done() and not self._probe.exception():
            os.close(self._probe.result())


@asynccontextmanager
async def open_spaces(
    ranges: Ranges, maker: MakesNamespaces, prepare: Callable[[int], None], *, ahead: bool = True
) -> AsyncIterator[Spaces]:
    """`ahead`: some are made before anybody asks for one."""
    spaces = Spaces(ranges, maker, prepare)
    filling = asyncio.ensure_future(spaces.refill()) if ahead else None
    try:
        yield spaces
    finally:
        if filling is not None:
            filling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await filling
        spaces.close()


__all__ = ("MakesNamespaces", "NoFreeIds", "Space", "Spaces", "open_spaces")
