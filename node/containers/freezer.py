"""The cgroups of containers, by container id: frozen for pause, read for top. Kernel files, so off the loop."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from node.errors import InternalError
from node.linux.cgroups import CgroupError
from node.linux.cgroups.stats import Stats
from node.linux.cgroups.store import Cgroup, Cgroups

T = TypeVar("T")


class CgroupFailed(InternalError):
    """The kernel refused to freeze, thaw or read a container's cgroup."""


class CgroupFreezer:
    def __init__(self, cgroups: Cgroups, parent: str) -> None:
        self._cgroups = cgroups
        self._parent = parent

    async def freeze(self, container_id: str) -> None:
        await self._with(container_id, lambda group: group.freeze())

    async def thaw(self, container_id: str) -> None:
        await self._with(container_id, lambda group: group.thaw())

    async def pids(self, container_id: str) -> Sequence[int]:
        return await self._with(container_id, lambda group: group.procs())

    async def clear(self, container_id: str) -> None:
        """Kill whoever is in it and remove it: its monitor is gone and cannot."""

        def work(group: Cgroup) -> None:
            group.kill()
            group.delete()

        await self._with(container_id, work)

    async def stats(self, container_id: str) -> Stats:
        return await self._with(container_id, lambda group: group.stats())

    async def _with(self, container_id: str, work: Callable[[Cgroup], T]) -> T:
        try:
            return await asyncio.to_thread(lambda: work(self._cgroups.open(f"{self._parent}/{container_id}")))
        except CgroupError as error:
            raise CgroupFailed(f"the cgroup of container {container_id}: {error}") from error
