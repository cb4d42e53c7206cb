"""The cgroups of containers, by container id: frozen for pause, read for top. Kernel files, so off the loop."""

import asyncio
import errno
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from node.containers.errors import NotRunning
from node.errors import InternalError
from node.linux.cgroups import CgroupError
from node.linux.cgroups.resources import InvalidResources
from node.linux.cgroups.stats import Stats
from node.linux.cgroups.store import Cgroup, Cgroups
from ocispec.errors import FailedPrecondition, InvalidArgument

T = TypeVar("T")


class CgroupFailed(InternalError):
    """The kernel refused to freeze, thaw or read a container's cgroup."""


class NoGroups(FailedPrecondition):
    """This node may make no cgroups, and what was asked needs one; the message says why."""


class LimitRefused(InvalidArgument):
    """A limit that no kernel takes."""


class CgroupFreezer:
    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._path_of: Callable[[str], str] = str

    def locate(self, path_of: Callable[[str], str]) -> None:
        """`path_of` knows where a container's cgroup is, by the container's id; it may read files."""
        self._path_of = path_of

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

    async def update(self, container_id: str, limits: Mapping[str, object]) -> Sequence[str]:
        """Of the runtime-spec's `linux.resources`. Gives warnings. Raises CgroupFailed, LimitRefused."""
        try:
            return await self._with(container_id, lambda group: group.update(limits))
        except InvalidResources as error:
            raise LimitRefused(str(error)) from error

    async def stats(self, container_id: str) -> Stats:
        return await self._with(container_id, lambda group: group.stats())

    async def _with(self, container_id: str, work: Callable[[Cgroup], T]) -> T:
        try:
            return await asyncio.to_thread(lambda: work(self._cgroups.open(self._path_of(container_id))))
        except CgroupError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                # Its monitor has removed the group: it ended while we asked, and the exit is about to be booked.
                raise NotRunning(container_id) from error
            if error.errno == errno.EOPNOTSUPP:
                raise NoGroups(error.strerror or str(error)) from error
            raise CgroupFailed(f"the cgroup of container {container_id}: {error}") from error
