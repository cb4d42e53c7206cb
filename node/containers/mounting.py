"""What a container's mounts need of the host while it runs: folders to bind, volumes that are mounted from somewhere.

`begin` before its start, `end` after its exit, `hold` when it runs since an earlier daemon. Docker's events of volumes
(`mount`, `unmount`) are told here.
"""

import asyncio
import os
from pathlib import Path

from node.containers.errors import CannotStart
from node.containers.model import Container, MountPoint
from node.containers.parts import MountsVolumes
from node.events import Event, EventBus
from node.linux import mounts

GIVING = ("shared", "slave")


class Mounting:
    def __init__(self, volumes: MountsVolumes, events: EventBus) -> None:
        self._volumes = volumes
        self._events = events

    async def begin(self, container: Container) -> None:
        """Raises CannotStart and what volumes raise; then nothing is held."""
        if any(point.create_source or point.propagation.removeprefix("r") in GIVING for point in container.mounts):
            await asyncio.to_thread(_prepare_binds, container.mounts)
        try:
            for point in _volumes(container):
                await self._volumes.acquire(point.name, container.id)
        except BaseException:
            await self._release(container)
            raise
        for point in _volumes(container):
            self._tell("mount", container, point)

    async def end(self, container: Container) -> None:
        await self._release(container)
        for point in _volumes(container):
            self._tell("unmount", container, point)

    async def hold(self, container: Container) -> None:
        for point in _volumes(container):
            await self._volumes.hold(point.name, container.id)

    async def settle(self) -> None:
        """Every container that runs has been told of."""
        await self._volumes.settle()

    async def _release(self, container: Container) -> None:
        for point in _volumes(container):
            await self._volumes.release(point.name, container.id)

    def _tell(self, action: str, container: Container, point: MountPoint) -> None:
        about = {"container": container.id, "driver": "local"}
        if action == "mount":
            about |= {"destination": point.target, "propagation": point.propagation,
                      "read/write": "false" if point.read_only else "true"}  # fmt: skip
        self._events.publish(Event("volume", action, point.name, about))


def _volumes(container: Container) -> list[MountPoint]:
    return [point for point in container.mounts if point.kind == "volume"]


def _prepare_binds(points: tuple[MountPoint, ...]) -> None:
    """Raises CannotStart."""
    for point in points:
        if point.kind != "bind":
            continue
        try:
            if point.create_source:
                make_source(Path(point.source))
            _check_propagation(point)
        except OSError as error:
            raise CannotStart(f"error while creating mount source path '{point.source}': {error.strerror}") from error


def make_source(source: Path) -> None:
    """Docker's rule for `-v`: a folder that is missing is made. exist_ok does not cover a file, which may be bound as
    well."""
    if not os.path.lexists(source):
        source.mkdir(parents=True, exist_ok=True)


def _check_propagation(point: MountPoint) -> None:
    """A bind gives mounts back only from a mount that shares, and receives only where some are sent: refused as Docker
    does, for otherwise the option would silently mean nothing."""
    wanted = point.propagation.removeprefix("r")
    if wanted not in GIVING:
        return
    try:
        held = mounts.mount_of(point.source)
    except FileNotFoundError:
        return  # the start says so itself
    if held is None or held.shared or (wanted == "slave" and held.receives):
        return
    raise CannotStart(
        f"path {point.source} is mounted on {held.point} but it is not a shared"
        f"{'' if wanted == 'shared' else ' or slave'} mount"
    )
