"""Volumes that are mounted from somewhere (tmpfs, a bind, NFS…): on the host, while a container that has one runs.

All containers of a volume see one mount, so it cannot be each monitor's own. Who holds it is counted here and told
again after a restart of the daemon (`hold`); `settle` then unmounts what nobody holds.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from node.linux import mounts, syscalls
from node.volumes.errors import CannotMountVolume
from node.volumes.options import Backing, backing, data_of

log = logging.getLogger(__name__)

_CHANGEABLE = (syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC | mounts.MS_NOATIME
               | mounts.MS_NODIRATIME | mounts.MS_RELATIME | mounts.MS_STRICTATIME)  # fmt: skip


class HostMounts:
    def __init__(self) -> None:
        self._holders: dict[Path, set[str]] = {}
        self._locks: dict[Path, asyncio.Lock] = {}

    async def acquire(self, folder: Path, options: Mapping[str, str], holder: str) -> None:
        """Mounted when this returns, and as long as somebody holds it. Raises CannotMountVolume."""
        held = backing(options)
        if held is None:
            return
        async with self._locks.setdefault(folder, asyncio.Lock()):
            if not self._holders.get(folder):
                await asyncio.to_thread(_mount, held, folder)
            self._holders.setdefault(folder, set()).add(holder)

    def hold(self, folder: Path, holder: str) -> None:
        """A daemon before this one mounted it for a container that still runs."""
        self._holders.setdefault(folder, set()).add(holder)

    async def release(self, folder: Path, holder: str) -> None:
        lock = self._locks.setdefault(folder, asyncio.Lock())
        async with lock:
            holders = self._holders.get(folder, set())
            if holder not in holders:
                return
            holders.discard(holder)
            if not holders:
                del self._holders[folder]
                await asyncio.to_thread(_unmount, folder)
        if folder not in self._holders and not lock.locked():
            self._locks.pop(folder, None)

    async def settle(self, root: Path) -> None:
        """Unmount below `root` what nobody holds."""
        held = {str(folder) for folder in self._holders}
        await asyncio.to_thread(_unmount_others, root, held)


def _mount(held: Backing, folder: Path) -> None:
    # A daemon that was killed may have left it mounted.
    if mounts.mounted_on(str(folder)):
        return
    options, data = held.options, ""
    try:
        data = data_of(held)
        syscalls.mount(held.device, str(folder), held.kind, options.flags, data)
        if options.flags & syscalls.MS_BIND and options.flags & _CHANGEABLE:
            syscalls.mount("", str(folder), flags=options.flags | syscalls.MS_REMOUNT)
        if options.propagation:
            syscalls.mount("", str(folder), flags=options.propagation)
    except OSError as error:
        if mounts.mounted_on(str(folder)):
            _unmount(folder)
        reason = (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()
        raise CannotMountVolume(
            f"error while mounting volume '{folder}': failed to mount local volume: mount {held.device}:{folder}"
            f"{f', data: {data}' if data else ''}: {reason}"
        ) from error


def _unmount(folder: Path) -> None:
    try:
        # Detached: a monitor may be copying the mounts at this moment, and whoever still has a file open keeps it.
        syscalls.umount(str(folder), syscalls.MNT_DETACH)
    except OSError as error:
        log.warning("the volume at %s could not be unmounted: %s", folder, error)


def unmount_below(folder: Path) -> None:
    """Raises OSError when something stays mounted."""
    for entry in reversed([entry for entry in mounts.entries() if entry.point.startswith(f"{folder}/")]):
        syscalls.umount(entry.point, syscalls.MNT_DETACH)


def _unmount_others(root: Path, held: set[str]) -> None:
    points = [entry.point for entry in mounts.entries()]
    for point in points:
        path = Path(point)
        if path.name == "_data" and path.parent.parent == root and point not in held:
            _unmount(path)
