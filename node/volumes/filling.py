"""Copying what an image holds at a volume's place into the volume, the first time it is used.

A fill that was cut short (a killed daemon, a full disk) left a part that looks like a volume somebody uses. So a marker
lies beside the data while a fill runs; who finds one starts over.
"""

import os
import secrets
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from node.linux import syscalls
from node.snapshots.mounts import RootMount
from node.snapshots.trees import copy_tree, remove_tree

IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
MARKER = "filling"


class Place(Protocol):
    """Where a volume goes in a container: `source` is the volume's folder, `target` the path inside."""

    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...


def fill_volumes(root: RootMount, scratch: Path, places: Sequence[Place], foreign: Collection[str] = ()) -> None:
    """Mount the root file system where nobody else sees it, and fill the volumes from there. Blocks; raises OSError.

    `foreign`: sources that are mounted from elsewhere; what is in there is never removed, not even half a fill.

    A thread of its own takes a private copy of the mounts (unshare(2) is per thread for CLONE_NEWNS, which takes the
    current folder along) and ends with it: nothing is left to unmount, however this ends.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)
            _fill_all(root, scratch / f"fill-{secrets.token_hex(8)}", places, foreign)
        except BaseException as error:  # noqa: BLE001 -- handed over to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="fill-volumes")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _fill_all(root: RootMount, target: Path, places: Sequence[Place], foreign: Collection[str]) -> None:
    target.mkdir(parents=True)
    try:
        _mount(root, str(target))
        try:
            for place in places:
                _fill(target, place, foreign=place.source in foreign)
        finally:
            os.chdir("/")
            syscalls.umount(str(target), syscalls.MNT_DETACH)
    finally:
        target.rmdir()


def _mount(root: RootMount, target: str) -> None:
    if root.type == "bind":
        syscalls.mount(root.source, target, flags=syscalls.MS_BIND | syscalls.MS_REC)
        return
    if root.cwd:
        os.chdir(root.cwd)
    syscalls.mount(root.source or root.type, target, root.type, 0, root.data())


def _fill(root: Path, place: Place, *, foreign: bool) -> None:
    volume = Path(place.source)
    marker = volume.with_name(MARKER)
    if marker.exists() and not foreign:
        for entry in list(volume.iterdir()):
            remove_tree(entry)
    elif list(volume.iterdir()):
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
        marker.touch()
        # Nothing runs in this tree and nobody else sees the mount, so the path that was found stays what it is.
        copy_tree(Path(f"/proc/thread-self/fd/{source}").readlink(), volume)
        marker.unlink()
    finally:
        os.close(source)
