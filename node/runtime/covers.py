"""The last of a container's file tree: the root is entered, and what its processes shall not see or write covered."""

from __future__ import annotations

import errno
import os
import stat

from node.linux import syscalls as sys


def lift(tree: int) -> None:
    """Put the detached copy of the root file system on the working folder, which `holdings` made the place it was
    copied from: there programs of the host (hooks) look for it, and our own right to go there may be gone."""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sys.move_mount(tree, here)
    os.close(here)


def change_root(new: int) -> None:
    """chroot(2) into the detached copy of the root file system, where the container has no mount namespace that it
    could be mounted in. Nobody else finds the copy, and it goes with the last process in it."""
    os.fchdir(new)
    os.chroot(".")
    os.chdir("/")
    # Not closed before execve: with its descriptor goes the right to mount on it.


def enter(new: int) -> None:
    """pivot_root(2) into the root file system; the old root is gone afterwards (pivot_root(2), ".", ".")."""
    old = os.open("/", os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(new)
    sys.pivot_root(".", ".")
    os.fchdir(old)
    # Slave before detaching: nothing of the unmount may travel back to the host.
    sys.mount("", ".", flags=sys.MS_SLAVE | sys.MS_REC)
    sys.umount(".", sys.MNT_DETACH)
    os.chdir("/")
    os.close(old)
    os.close(new)


def make_readonly(path: str) -> None:
    """After the pivot: `path` becomes read-only by a bind of itself; one that is absent stays so."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        # Copied from where it will lie, not looked up again: somebody who shares a volume may be quick.
        mount = sys.open_tree(place, "", sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE | sys.AT_EMPTY_PATH)
        sys.mount_setattr(mount, set_=sys.MOUNT_ATTR_RDONLY, recursive=True)
        sys.move_mount(mount, place)
        os.close(mount)
    finally:
        os.close(place)


_COPY = sys.OPEN_TREE_CLONE | sys.AT_EMPTY_PATH


def _empty_folder() -> int:
    return sys.new_mount("tmpfs", [("nr_blocks", "1"), ("nr_inodes", "1")], sys.MOUNT_ATTR_RDONLY)


class Mask:
    """What lies over masked paths: the container's own null device over files, one empty read-only tmpfs over folders.

    The null device is opened once and checked: a container may have put something else at /dev/null (CVE-2025-31133).
    """

    def __init__(self) -> None:
        self._null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(self._null)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
            raise OSError(errno.EINVAL, "/dev/null in the container is not the null device")
        self._empty = _empty_folder()

    def cover(self, path: str) -> None:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            folder = stat.S_ISDIR(os.fstat(place).st_mode)
            mount = self._copy_of_empty() if folder else sys.open_tree(self._null, "", _COPY)
            sys.move_mount(mount, place)
            os.close(mount)
        finally:
            os.close(place)

    def _copy_of_empty(self) -> int:
        try:
            return sys.open_tree(self._empty, "", _COPY)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Before Linux 6.15 a detached mount cannot be cloned.
            return _empty_folder()

    def close(self) -> None:
        os.close(self._null)
        os.close(self._empty)
