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
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.events import Event, EventBus
from node.snapshots.mounts import RootMount
from node.snapshots.trees import disk_usage, remove_tree
from node.state.volumes import VolumeRow, VolumeRows
from node.volumes.errors import InvalidVolumeName, NoSuchDriver, NoSuchVolume, VolumeInUse
from node.volumes.filling import Place, fill_volumes
from node.volumes.mounting import HostMounts, unmount_below
from node.volumes.options import backing, check_options

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
REMOVED = ".removed-"
ANONYMOUS = "com.docker.volume.anonymous"
"""The label of a volume nobody gave a name; `docker volume prune` removes these alone unless told otherwise."""

UNKNOWN_SIZE = -1

Users = Callable[[str], Collection[str]]
"""The containers that have a volume, by its name."""

Pruned = tuple[list[str], int]

log = logging.getLogger(__name__)


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

    def __init__(self, root: Path, rows: VolumeRows, events: EventBus) -> None:
        self._root = root
        self._rows = rows
        self._events = events
        self._mounts = HostMounts()
        self._claims: Counter[str] = Counter()
        self._lock = asyncio.Lock()
        self._filling = asyncio.Lock()
        self._working: set[asyncio.Task[None]] = set()

    def path(self, name: str) -> Path:
        """The folder that containers see. Raises InvalidVolumeName."""
        if not NAME.fullmatch(name):
            raise InvalidVolumeName(name)
        return self._root / name / "_data"

    async def create(
        self, name: str | None, labels: Mapping[str, str], driver_opts: Mapping[str, str], *, driver: str = "",
        claim: bool = False,
    ) -> Volume:  # fmt: skip
        """A new volume, or the one of that name. Raises InvalidVolumeName, InvalidVolumeOptions, NoSuchDriver.

        `claim`: nobody removes it before `unclaim`, though no container has it yet.
        """
        wanted = dict(labels) if name else {ANONYMOUS: "", **labels}
        name = name or secrets.token_hex(32)
        if driver not in ("", "local"):
            raise NoSuchDriver(name, driver[:100])
        folder = self.path(name)
        check_options(driver_opts)
        async with self._lock:
            row = await self._rows.find(name)
            if row is None:
                await asyncio.to_thread(make_folder, folder)
                row = VolumeRow(name, stamp(datetime.now(UTC).timestamp()), wanted, dict(driver_opts))
                await self._rows.add(row)
                self._tell("create", name)
            if claim:
                self.claim(name)
        return self._volume(row)

    def claim(self, name: str) -> None:
        self._claims[name] += 1

    def unclaim(self, name: str) -> None:
        self._claims[name] -= 1
        if self._claims[name] <= 0:
            del self._claims[name]

    async def inspect(self, name: str) -> Volume:
        """Raises NoSuchVolume."""
        row = await self._rows.find(name)
        if row is None:
            raise NoSuchVolume(name)
        return self._volume(row)

    async def origin(self, name: str) -> tuple[str, str]:
        """What it is mounted from: the file system's type (`bind`: a folder) and its device; empty: a plain folder.
        Raises NoSuchVolume."""
        held = backing((await self.inspect(name)).options)
        return (held.kind or "bind", held.device) if held else ("", "")

    async def list(self) -> Sequence[Volume]:
        return [self._volume(row) for row in await self._rows.all()]

    async def remove(self, name: str, *, force: bool = False, users: Users = lambda _name: ()) -> None:
        """Raises VolumeInUse, and NoSuchVolume unless `force`. `users` is asked when nothing can change any more."""
        async with self._lock:
            if await self._rows.find(name) is None:
                if force:
                    return
                raise NoSuchVolume(name)
            if (users_now := users(name)) or name in self._claims:
                raise VolumeInUse(name, users_now)
            aside = await asyncio.to_thread(_set_aside, self.path(name).parent)
            await self._rows.delete(name)
        self._tell("destroy", name)
        # Nobody can see it any more; the bytes may take their time.
        await self._whole(_clear(aside))

    async def usage(self, name: str) -> int:
        """Bytes of its files; -1 for what is mounted from elsewhere, which this node does not own."""
        row = await self._rows.find(name)
        if row is None or row.options:
            return UNKNOWN_SIZE
        try:
            return await asyncio.to_thread(disk_usage, self.path(name))
        except FileNotFoundError:
            return 0

    async def prune(self, wanted: Callable[[Volume], bool], users: Users) -> Pruned:
        """Remove what nobody uses and `wanted` says; the names, and the bytes that came back."""
        removed, bytes_back = [], 0
        for volume in await self.list():
            if not wanted(volume) or users(volume.name) or volume.name in self._claims:
                continue
            size = await self.usage(volume.name)
            try:
                await self.remove(volume.name, users=users)
            except (VolumeInUse, NoSuchVolume):
                continue
            removed.append(volume.name)
            bytes_back += max(size, 0)
        self._events.publish(Event("volume", "prune", "", {"reclaimed": str(bytes_back)}))
        return removed, bytes_back

    async def acquire(self, name: str, holder: str) -> None:
        """A container that has it starts. Raises CannotMountVolume, NoSuchVolume."""
        row = await self._rows.find(name)
        if row is None:
            raise NoSuchVolume(name)
        if row.options:
            await self._mounts.acquire(self.path(name), row.options, holder)

    async def hold(self, name: str, holder: str) -> None:
        """A container that has it runs since an earlier daemon."""
        row = await self._rows.find(name)
        if row is not None and row.options:
            self._mounts.hold(self.path(name), holder)

    async def release(self, name: str, holder: str) -> None:
        """The container has ended; no error if it never held it."""
        await self._mounts.release(self.path(name), holder)

    async def settle(self) -> None:
        """Every container that runs has been told of by `hold`: what nobody holds is unmounted."""
        await self._mounts.settle(self._root)

    async def fill(self, root: RootMount, places: Sequence[Place]) -> None:
        """Empty volumes take over what the image holds in their place: contents, owners, modes, xattrs.

        Raises OSError, CannotMountVolume. A volume that holds anything is left alone. One at a time: two containers may
        be made upon one volume at once, and the second must find it filled.
        """
        await self._whole(self._fill(root, places))

    async def _fill(self, root: RootMount, places: Sequence[Place]) -> None:
        holder = f"fill-{secrets.token_hex(8)}"
        options = {row.name: row.options for row in await self._rows.all() if row.options}
        mounted = {Path(place.source): options.get(Path(place.source).parent.name, {}) for place in places}
        # What would be gone at the end of the fill is not filled.
        lasting = [place for place in places if not _is_volatile(mounted[Path(place.source)])]
        async with self._filling:
            try:
                for place in lasting:
                    await self._mounts.acquire(Path(place.source), mounted[Path(place.source)], holder)
                if lasting:
                    foreign = [str(folder) for folder, held in mounted.items() if held]
                    await asyncio.to_thread(fill_volumes, root, self._root.parent / "run", lasting, foreign)
            finally:
                for place in lasting:
                    await self._mounts.release(Path(place.source), holder)

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
        return Volume(row.name, str(self.path(row.name)), row.created, row.labels, row.options)

    def _tell(self, action: str, name: str) -> None:
        self._events.publish(Event("volume", action, name, {"driver": "local"}))


def _is_volatile(options: Mapping[str, str]) -> bool:
    held = backing(options)
    return held is not None and held.volatile


def make_folder(folder: Path) -> None:
    """Modes are set, not asked for: the daemon's umask would shut out every user but root."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o711)
    folder.chmod(0o755)


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{tombstone(folder.name)}{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    return aside


def remove_folder(folder: Path) -> None:
    """What is mounted in it is not its own, and must never be removed with it. Raises OSError."""
    unmount_below(folder)
    remove_tree(folder)


async def _clear(aside: Path) -> None:
    try:
        await asyncio.to_thread(remove_folder, aside)
    except OSError as error:
        log.warning("%s of a removed volume could not be cleared, the next start tries again: %s", aside, error)


def tombstone(name: str) -> str:
    """What names the folder of a removed volume begin with: no volume's name does, and a name of any length fits."""
    return f"{REMOVED}{hashlib.sha256(name.encode()).hexdigest()[:32]}-"


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
