"""A layer's tree once more by hard links: its files are the same inodes, its directories are new.

Layers are never written after they are settled, so two trees may share their files for as long as either lives. The
function blocks; call it in a thread.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from node.linux.usernamespaces import ANY_OVERLAY_XATTRS
from node.snapshots.trees import copy_attributes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DEPTH = 400


def link_tree(source: Path, target: Path) -> None:
    """Fill the empty directory `target`. Raises OSError: another file system (EXDEV), an inode with as many names as it
    can have (EMLINK), deeper than 400 (ELOOP); who called then removes what is there."""
    levels = [_enter(os.open(source, _DIRECTORY), os.open(target, _DIRECTORY))]
    try:
        while levels:
            here, there, below = levels[-1]
            name = next(below, None)
            if name is None:
                _like(here, there)
                levels.pop()
                os.close(here)
                os.close(there)
                continue
            if len(levels) >= _MAX_DEPTH:
                raise OSError(errno.ELOOP, "the layer's directories are too deep to be linked")
            os.mkdir(name, 0o700, dir_fd=there)
            levels.append(_enter(os.open(name, _DIRECTORY, dir_fd=here), os.open(name, _DIRECTORY, dir_fd=there)))
    finally:
        for here, there, _ in levels:
            os.close(here)
            os.close(there)


def _enter(here: int, there: int) -> tuple[int, int, Iterator[str]]:
    """Link all that is no directory; gives the names of the directories."""
    below = []
    with os.scandir(here) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            else:
                os.link(entry.name, entry.name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
    return here, there, iter(below)


def _like(here: int, there: int) -> None:
    """With overlayfs' own attributes (opaque), which `copy_attributes` leaves out."""
    for name in os.listxattr(here):
        if name.startswith(ANY_OVERLAY_XATTRS):
            os.setxattr(there, name, os.getxattr(here, name))
    copy_attributes(here, there)
