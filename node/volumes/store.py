"""Named and anonymous volumes: `<home>/volumes/<name>/_data` and a row each.

The row is written after the folder. A removal first renames the folder to a name that no volume can have, then deletes
the row, then the bytes: whatever is interrupted, no new volume ever meets an old one's contents. A folder that holds
something and has no row is never thrown away: somebody's state.db is gone or older than the folder, and the data is
all that is left, so it becomes a volume again.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.snapshots.mounts import RootMount
from node.snapshots.trees import disk_usage, remove_tree
from node.state.database import State
from node.state.volumes import VolumeRow, VolumeRows
from node.volumes.filling import Place, fill_volumes
from ocispec.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
REMOVED = ".removed-"

log = logging.getLogger(__name__)


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


class Volumes:
    """Made by `open_volumes`."""

    def __init__(self, root: Path, rows: VolumeRows) -> None:
        self._root = root
        self._rows = rows
        self._lock = asyncio.Lock()
        self._filling = asyncio.Lock()
        self._working: set[asyncio.Task[None]] = set()

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
                await asyncio.to_thread(_make, folder)
                row = VolumeRow(name, _stamp(datetime.now(UTC).timestamp()), dict(labels))
                await self._rows.add(row)
        return self._volume(row)

    async def inspect(self, name: str) -> Volume:
        """Raises NoSuchVolume."""
        row = await self._rows.find(name)
        if row is None:
            raise NoSuchVolume(name)
        return self._volume(row)

    async def usage(self, name: str) -> int:
        """Bytes of its files. Raises VolumeNotFound."""
        volume = await self.inspect(name)
        return await asyncio.to_thread(disk_usage, Path(volume.mountpoint))

    async def list(self) -> Sequence[Volume]:
        return [self._volume(row) for row in await self._rows.all()]

    async def remove(self, name: str, *, force: bool = False, in_use: Collection[str] = ()) -> None:
        """Raises VolumeInUse, and NoSuchVolume unless `force`."""
        if name in in_use:
            raise VolumeInUse(name)
        async with self._lock:
            if await self._rows.find(name) is None:
                if force:
                    return
                raise NoSuchVolume(name)
            aside = await asyncio.to_thread(_set_aside, self.path(name).parent)
            await self._rows.delete(name)
        # Nobody can see it any more; the bytes may take their time.
        await self._whole(_clear(aside))

    async def fill(self, root: RootMount, places: Sequence[Place]) -> None:
        """Empty volumes take over what the image holds in their place: contents, owners, modes, xattrs.

        Raises OSError. A volume that holds anything is left alone. One at a time: two containers may be made upon one
        volume at once, and the second must find it filled.
        """
        await self._whole(self._fill(root, places))

    async def _fill(self, root: RootMount, places: Sequence[Place]) -> None:
        async with self._filling:
            await asyncio.to_thread(fill_volumes, root, self._root.parent / "run", list(places))

    async def _whole(self, work: Coroutine[Any, Any, None]) -> None:
        """A thread cannot be cancelled: when the caller goes, the work goes on to its end."""
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        await asyncio.shield(task)

    async def finished(self) -> None:
        """Until nothing is copied or removed any more."""
        await asyncio.gather(*self._working, return_exceptions=True)

    def _volume(self, row: VolumeRow) -> Volume:
        return Volume(row.name, str(self.path(row.name)), row.created, row.labels, {})


def _make(folder: Path) -> None:
    """Modes are set, not asked for: the daemon's umask would shut out every user but root."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o711)
    folder.chmod(0o755)


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{_tombstone(folder.name)}{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    return aside


async def _clear(aside: Path) -> None:
    try:
        await asyncio.to_thread(remove_tree, aside)
    except OSError as error:
        log.warning("%s of a removed volume could not be cleared, the next start tries again: %s", aside, error)


@asynccontextmanager
async def open_volumes(root: Path, state: State) -> AsyncIterator[Volumes]:
    rows = VolumeRows(state)
    found = await asyncio.to_thread(_look_through, root, [row.name for row in await rows.all()])
    for name in found.removed:
        await rows.delete(name)
    for name, created in found.orphans.items():
        log.warning("the folder of volume %s was there without a record: it is a volume again", name)
        await rows.add(VolumeRow(name, created, {}))
    volumes = Volumes(root, rows)
    try:
        yield volumes
    finally:
        await volumes.finished()


@dataclass(slots=True)
class _Found:
    removed: list[str] = field(default_factory=list)
    """Volumes whose removal was cut short after the folder was set aside."""

    orphans: dict[str, str] = field(default_factory=dict)
    """Folders that hold something and have no row, with their age."""


def _look_through(root: Path, known: Sequence[str]) -> _Found:
    """Clear what interrupted creations and removals left, and say what the rows must be told."""
    root.mkdir(parents=True, exist_ok=True)
    folders = list(root.iterdir())
    found = _Found()
    for name in known:
        if (root / name / "_data").is_dir():
            continue
        if any(folder.name.startswith(_tombstone(name)) for folder in folders):
            found.removed.append(name)
        else:
            _make(root / name / "_data")  # a power cut, before the folder was on disk: an empty volume, as it was
    for folder in folders:
        if folder.name.startswith(REMOVED):
            remove_tree(folder)
        elif folder.name not in known and _NAME.fullmatch(folder.name) and (folder / "_data").is_dir():
            if list((folder / "_data").iterdir()):
                found.orphans[folder.name] = _stamp(folder.stat().st_mtime)
            else:
                remove_tree(folder)
    return found


def _tombstone(name: str) -> str:
    """What names the folder of a removed volume begin with: no volume's name does, and a name of any length fits."""
    return f"{REMOVED}{hashlib.sha256(name.encode()).hexdigest()[:32]}-"


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
