"""Picking a snapshotter. Each keeps its own folder, so a node may change between them without mixing trees."""

import asyncio
import contextlib
import os
import stat
from pathlib import Path

from node.linux import syscalls
from node.linux.usernamespaces import OVERLAY_XATTRS
from node.snapshots.overlay import PORTABLE, OverlaySnapshotter
from node.snapshots.store import Snapshotter
from node.snapshots.trees import remove_tree
from node.snapshots.vfs import VfsSnapshotter
from ocispec.errors import FailedPrecondition, InvalidArgument


class OverlayUnusable(FailedPrecondition):
    """overlayfs was asked for and cannot be mounted here; the message says why."""


async def open_snapshotter(root: Path, kind: str) -> Snapshotter:
    """`kind` is overlay, vfs or auto (overlay where a real mount of it works, else vfs).

    Sweeps what a crash left. Raises OverlayUnusable, InvalidArgument for another kind.
    """
    if kind not in ("auto", "overlay", "vfs"):
        raise InvalidArgument(f"unknown snapshotter: {kind!r} (auto, overlay or vfs)")
    if kind != "vfs":
        reason = await asyncio.to_thread(why_no_overlay, root)
        if reason is None:
            return await OverlaySnapshotter.open(root / "overlay")
        if kind == "overlay":
            raise OverlayUnusable(f"overlayfs cannot be used in {root}: {reason}")
    return await VfsSnapshotter.open(root / "vfs")


def why_no_overlay(root: Path) -> str | None:
    """Try it: mount, hide a lower file, see the whiteout in the upper directory. None when all of that works."""
    place = root / "probe"
    try:
        remove_tree(place)
        for name in ("lower", "upper", "work", "merged"):
            (place / name).mkdir(parents=True)
        (place / "lower" / "file").touch()
        return _mounted(place)
    except OSError as error:
        return str(error)
    finally:
        with contextlib.suppress(OSError):
            remove_tree(place)


def _mounted(place: Path) -> str | None:
    folders = (f"{option}={place}/{name}" for option, name in
               (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")))
    syscalls.mount("overlay", str(place / "merged"), "overlay", 0, ",".join((*folders, *PORTABLE)))
    try:
        (place / "merged" / "file").unlink()
        info = (place / "upper" / "file").lstat()
        if not stat.S_ISCHR(info.st_mode) or info.st_rdev != 0:
            return "whiteouts are not character devices here"
        os.setxattr(place / "upper", f"{OVERLAY_XATTRS}opaque", b"y")
        return None
    finally:
        syscalls.umount(str(place / "merged"))
