"""Entering a container's tree, in the worker's child, before the first of its paths is looked up.

Either the mount namespace of the running container, so that volumes, tmpfs and what it mounted itself are where its own
processes see them; or a new namespace that holds a stopped container's root and its volumes and nothing of the host's
(pivot_root, not chroot alone). After `enter`, no path can lead to the host, whatever the tree holds or does meanwhile
(CVE-2018-15664, CVE-2026-41568, CVE-2026-42306), and no module is loaded from it any more (CVE-2019-14271).
"""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.linux import syscalls

IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_CLOEXEC
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CLONE = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH


@dataclass(frozen=True, slots=True)
class View:
    """`root`: the tree's root. `own`: this process's /proc/self/fd, as the host's procfs shows it: what an O_PATH
    descriptor was found to be is opened for reading through it, never by its name again."""

    root: int
    own: int


def enter(job: Mapping[str, Any], pidfd: int | None) -> View:
    own = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if pidfd is not None:
        syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
        os.chdir("/")
        _become_its_root(pidfd)
    else:
        _stand_alone(job["root"], job["scratch"], job.get("mounts", ()), make=bool(job.get("writable")))
    seal()
    return View(os.open("/", _PLACE | os.O_DIRECTORY), own)


def _become_its_root(pidfd: int) -> None:
    """Of its user namespace, where it has one: ids are then the container's, and no right reaches beyond it."""
    try:
        syscalls.setns(pidfd, syscalls.CLONE_NEWUSER)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return  # it is ours (setns(2))
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def seal() -> None:
    """From here on nothing can be imported: sys.path would be looked up in somebody else's tree."""
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()


def only_root(view: View) -> View:
    """The file system at the root alone, without what is mounted below: a detached copy of that one mount."""
    return View(syscalls.open_tree(view.root, "", _CLONE), view.own)


def mount_root(root: Mapping[str, Any], target: str) -> None:
    """A RootMount, in a mount namespace of our own from which nothing goes back."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    mount_at(root, target)


def mount_at(root: Mapping[str, Any], target: str) -> None:
    if root["type"] == "bind":
        syscalls.mount(root["source"], target, flags=syscalls.MS_BIND | syscalls.MS_REC)
        return
    if root["cwd"]:
        os.chdir(root["cwd"])
    syscalls.mount(root["source"], target, root["type"], 0, root["data"])


def _stand_alone(root: Mapping[str, Any], scratch: str, mounts: Sequence[Mapping[str, Any]], *, make: bool) -> None:
    mount_root(root, scratch)
    os.chdir(scratch)
    top = os.open(".", _PLACE | os.O_DIRECTORY)
    for mount in mounts:
        _mount_below(top, mount, make=make)
    os.close(top)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _mount_below(top: int, mount: Mapping[str, Any], *, make: bool) -> None:
    """A volume or bind at its place. A place that is not there is made only where the root may be written; a source
    that has gone is left out, as nothing of it could be copied."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if mount["recursive"] else 0)
        source = os.open(mount["source"], _PLACE)
        if mount.get("subpath"):
            source = syscalls.openat2(source, mount["subpath"], _PLACE, resolve=IN_ROOT)
        tree = syscalls.open_tree(source, "", flags | syscalls.AT_EMPTY_PATH)
        try:
            syscalls.mount_setattr(tree, propagation=syscalls.MS_PRIVATE, recursive=True)
            if mount["read_only"]:
                syscalls.mount_setattr(tree, set_=syscalls.MOUNT_ATTR_RDONLY, recursive=bool(mount["recursive"]))
            folder = stat.S_ISDIR(os.fstat(source).st_mode)
            place = _place(top, mount["target"], folder=folder, make=make)
            try:
                syscalls.move_mount(tree, place)
            finally:
                os.close(place)
        finally:
            os.close(tree)


def _place(top: int, target: str, *, folder: bool, make: bool) -> int:
    relative = target.strip("/") or "."
    try:
        return syscalls.openat2(top, relative, _PLACE, resolve=IN_ROOT)
    except FileNotFoundError:
        if not make:
            raise
    parts = [part for part in relative.split("/") if part not in ("", ".")]
    for depth in range(1, len(parts) + 1):
        _make(top, parts[:depth], folder=folder or depth < len(parts))
    return syscalls.openat2(top, relative, _PLACE, resolve=IN_ROOT)


def _make(top: int, parts: Sequence[str], *, folder: bool) -> None:
    """Through the descriptor of the folder above; links on the way are followed inside the root."""
    above = syscalls.openat2(top, "/".join(parts[:-1]) or ".", _PLACE | os.O_DIRECTORY, resolve=IN_ROOT)
    try:
        with contextlib.suppress(FileExistsError):
            if folder:
                os.mkdir(parts[-1], 0o755, dir_fd=above)
            else:
                os.close(os.open(parts[-1], _NEW, 0o644, dir_fd=above))
    finally:
        os.close(above)
