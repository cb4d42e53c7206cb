"""Named and anonymous volumes: `<home>/volumes/<name>/_data` and a row each.

The row is written after the folder and removed before it, so a row always has its folder; a folder without a row is
what a crash left and is removed when the store opens.
"""

import asyncio
import os
import re
import secrets
import threading
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from node.linux import syscalls
from node.snapshots.mounts import RootMount
from node.snapshots.trees import copy_tree, remove_tree
from node.state.database import State
from node.state.volumes import VolumeRow, VolumeRows
from ocispec.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


class NoSuchVolume(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")


class InvalidVolumeName(InvalidArgument):
    def __init__(self, name: str) -> None:
        super().__init__(f'create {name[:300]}: "{name[:300]}" includes invalid characters for a local volume name, '
                         'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
                         "use absolute path")


class VolumeInUse(FailedPrecondition):
    def __init__(self, name: str) -> None:
        super().__init__(f"remove {name}: volume is in use")


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    mountpoint: str
    created: str
    """RFC 3339, UTC."""

    labels: Mapping[str, str]
    options: Mapping[str, str]


class Place(Protocol):
    """Where a volume goes in a container: `source` is the volume's folder, `target` the path inside."""

    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...


class Volumes:
    """Made by `open_volumes`."""

    def __init__(self, root: Path, rows: VolumeRows) -> None:
        self._root = root
        self._rows = rows
        self._lock = asyncio.Lock()

    def path(self, name: str) -> Path:
        """The folder that containers see. Raises InvalidVolumeName."""
        if not _NAME.fullmatch(name):
            raise InvalidVolumeName(name)
        return self._root / name / "_data"

    async def create(
        self, name: str | None, labels: Mapping[str, str], driver_opts: Mapping[str, str]
    ) -> Volume:
        """A new volume, or the one of that name. Raises InvalidVolumeName, Unimplemented for driver options."""
        if driver_opts:
            raise Unimplemented(f"volume options ({', '.join(sorted(driver_opts))}) are not supported yet")
        name = name or secrets.token_hex(32)
        folder = self.path(name)
        async with self._lock:
            row = await self._rows.find(name)
            if row is None:
                await asyncio.to_thread(folder.mkdir, mode=0o755, parents=True, exist_ok=True)
                row = VolumeRow(name, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), dict(labels))
                await self._rows.add(row)
        return self._volume(row)

    async def inspect(self, name: str) -> Volume:
        """Raises NoSuchVolume."""
        row = await self._rows.find(name)
        if row is None:
            raise NoSuchVolume(name)
        return self._volume(row)

    async def list(self) -> Sequence[Volume]:
        return [self._volume(row) for row in await self._rows.all()]

    async def remove(self, name: str, *, force: bool = False, in_use: Collection[str] = ()) -> None:
        """Raises VolumeInUse, and NoSuchVolume unless `force`."""
        if name in in_use:
            raise VolumeInUse(name)
        async with self._lock:
            if not await self._rows.delete(name):
                if force:
                    return
                raise NoSuchVolume(name)
            await asyncio.to_thread(remove_tree, self.path(name).parent)

    async def fill(self, root: RootMount, places: Sequence[Place]) -> None:
        """Empty volumes take over what the image holds in their place: contents, owners, modes, xattrs.

        Raises OSError. A volume that holds anything is left alone.
        """
        await asyncio.to_thread(_in_own_mounts, root, self._root.parent / "run", list(places))

    def _volume(self, row: VolumeRow) -> Volume:
        return Volume(row.name, str(self.path(row.name)), row.created, row.labels, {})


def _in_own_mounts(root: RootMount, scratch: Path, places: Sequence[Place]) -> None:
    """Mount the root file system where nobody else sees it, and fill the volumes from there.

    A thread of its own takes a private copy of the mounts (unshare(2) is per thread for CLONE_NEWNS, which takes the
    current folder along) and ends with it: nothing is left to unmount, however this ends.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)
            target = scratch / f"fill-{secrets.token_hex(8)}"
            target.mkdir(parents=True)
            try:
                _mount(root, str(target))
                try:
                    for place in places:
                        _fill(target, place)
                finally:
                    os.chdir("/")
                    syscalls.umount(str(target), syscalls.MNT_DETACH)
            finally:
                target.rmdir()
        except BaseException as error:  # noqa: BLE001 -- handed over to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="fill-volumes")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _mount(root: RootMount, target: str) -> None:
    if root.type == "bind":
        syscalls.mount(root.source, target, flags=syscalls.MS_BIND | syscalls.MS_REC)
        return
    if root.cwd:
        os.chdir(root.cwd)
    syscalls.mount(root.source or root.type, target, root.type, 0, root.data())


def _fill(root: Path, place: Place) -> None:
    volume = Path(place.source)
    if any(os.scandir(volume)):
        return
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The image chose every component of this path: it is resolved inside the root and nowhere else.
        source = syscalls.openat2(top, place.target.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=IN_ROOT)
    except (FileNotFoundError, NotADirectoryError):
        return
    finally:
        os.close(top)
    try:
        # Nothing runs in this tree and nobody else sees the mount, so the path that was found stays what it is.
        copy_tree(Path(f"/proc/thread-self/fd/{source}").readlink(), volume)
    finally:
        os.close(source)


@asynccontextmanager
async def open_volumes(root: Path, state: State) -> AsyncIterator[Volumes]:
    rows = VolumeRows(state)
    known = {row.name for row in await rows.all()}
    await asyncio.to_thread(_sweep, root, known)
    yield Volumes(root, rows)


def _sweep(root: Path, known: Collection[str]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.iterdir():
        if folder.name not in known:
            remove_tree(folder)
