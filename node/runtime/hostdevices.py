"""Device nodes where none may be made: in a user namespace mknod(2) is forbidden, whoever we are there. The host's own
node is bound in its place, as far as there is one that is the same device."""

from __future__ import annotations

import errno
import os
import stat

from node.linux import syscalls as sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.spec import Device

_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK}


def bind_node(folder: int, name: str, device: Device) -> None:
    """Before the pivot, while /dev is the host's. Raises OSError (EPERM) where the host has no such node."""
    source = _host_node(device)
    try:
        made = sys.openat2(folder, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode=0o644)
        os.close(made)
        place = sys.openat2(folder, name, os.O_PATH | os.O_NOFOLLOW)
        tree = sys.open_tree(source, "", sys.OPEN_TREE_CLONE | sys.AT_EMPTY_PATH)
        sys.move_mount(tree, place)
        os.close(tree)
        os.close(place)
    finally:
        os.close(source)


def _host_node(device: Device) -> int:
    """An O_PATH descriptor of it: of that name, or any in /dev."""
    for path in (device.path, *_all("/dev", 3)):
        try:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        if _is(fd, device):
            return fd
        os.close(fd)
    raise OSError(errno.EPERM, f"the device {device.path} ({device.major}:{device.minor}) cannot be made in a user "
                               "namespace, and the host's /dev has none that could be bound")


def _is(fd: int, device: Device) -> bool:
    status = os.fstat(fd)
    return (stat.S_IFMT(status.st_mode) == _KINDS.get(device.kind)
            and status.st_rdev == os.makedev(device.major, device.minor))


def _all(folder: str, depth: int) -> list[str]:
    """Of a few levels: pts and the like hold nobody else's."""
    found: list[str] = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return found
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if depth and entry.name not in ("pts", "shm", "mqueue"):
                found += _all(entry.path, depth - 1)
        else:
            found.append(entry.path)
    return found
