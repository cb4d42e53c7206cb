"""Opening the room: rows and folders are made to agree after whatever happened to the daemon before."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from node.events import EventBus
from node.state.database import State
from node.state.volumes import VolumeRow, VolumeRows
from node.volumes.store import NAME, REMOVED, Volumes, make_folder, remove_folder, stamp, tombstone

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_volumes(root: Path, state: State, events: EventBus) -> AsyncIterator[Volumes]:
    rows = VolumeRows(state)
    found = await asyncio.to_thread(_look_through, root, [row.name for row in await rows.all()])
    for name in found.removed:
        await rows.delete(name)
    for name, created in found.orphans.items():
        log.warning("the folder of volume %s was there without a record: it is a volume again", name)
        await rows.add(VolumeRow(name, created, {}))
    volumes = Volumes(root, rows, events)
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
        if any(folder.name.startswith(tombstone(name)) for folder in folders):
            found.removed.append(name)
        else:
            make_folder(root / name / "_data")  # a power cut, before the folder was on disk: an empty volume, as it was
    for folder in folders:
        if folder.name.startswith(REMOVED):
            remove_folder(folder)
        elif folder.name not in known and NAME.fullmatch(folder.name) and (folder / "_data").is_dir():
            if list((folder / "_data").iterdir()):
                found.orphans[folder.name] = stamp(folder.stat().st_mtime)
            else:
                remove_folder(folder)
    return found
