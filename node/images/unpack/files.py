"""What is done to one file or directory by its descriptor: content, attributes, removal."""

import errno
import os
import stat

from node.images.unpack.errors import DiskFull, InvalidLayer
from node.images.unpack.paths import shown
from node.images.unpack.tar import Entry, TarReader
from node.linux.usernamespaces import INITIAL, LAST_GROUP, LAST_USER

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DRIVER_XATTRS = ("trusted.overlay.", "user.overlay.")  # an image may not speak to the file system that shows it
_INT64 = (1 << 63) - 1


def owner(entry: Entry) -> tuple[int, int]:
    """In a user namespace of a single id everything is root's: nobody else is there whose it could be.

    Raises InvalidLayer.
    """
    if LAST_USER == 0:
        return 0, 0
    if entry.uid > LAST_USER or entry.gid > LAST_GROUP:
        raise InvalidLayer(f"{shown(entry.name)} belongs to {entry.uid}:{entry.gid}, and this node has ids up to "
                           f"{LAST_USER}:{LAST_GROUP} (/etc/subuid, /etc/subgid)")
    return entry.uid, entry.gid


def write(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece):]


def write_sparse(descriptor: int, entry: Entry, archive: TarReader) -> None:
    regions = iter(entry.regions or ())
    offset = left = 0
    for piece in archive.data():
        while piece:
            if not left:
                offset, left = next(regions)
                continue
            done = os.pwrite(descriptor, piece[:left], offset)
            offset, left, piece = offset + done, left - done, piece[done:]
    os.ftruncate(descriptor, entry.size)


def set_xattrs(target: int | bytes, xattrs: dict[str, bytes]) -> None:
    for name, value in xattrs.items():
        if name.startswith(_DRIVER_XATTRS):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            # The file system or the kernel's configuration lacks the name space (a label of another host's SELinux).
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise


def may_make(mode: int, device: int) -> bool:
    """Whether such a node can be made: no device in a user namespace, but overlayfs' whiteouts (mknod(2))."""
    return INITIAL or not (stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and device))


def times(entry: Entry) -> tuple[int, int]:
    modified = max(-_INT64, min(entry.mtime_ns, _INT64))
    accessed = modified if entry.atime_ns is None else max(-_INT64, min(entry.atime_ns, _INT64))
    return accessed, modified


def remove_directory(parent: int, name: bytes) -> None:
    """Remove a directory tree by descriptors; its depth is bounded by MAX_PATH."""
    levels: list[tuple[int, bytes]] = [(os.open(name, DIRECTORY, dir_fd=parent), name)]
    while levels:
        here, own_name = levels[-1]
        below = _unlink_files(here)
        if below is not None:
            levels.append((os.open(below, DIRECTORY, dir_fd=here), below))
            continue
        levels.pop()
        os.close(here)
        os.rmdir(own_name, dir_fd=levels[-1][0] if levels else parent)


def _unlink_files(directory: int) -> bytes | None:
    left = None
    for name in map(os.fsencode, os.listdir(directory)):
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            left = name
    return left


def explained(error: OSError, name: bytes) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("no space left on the disk while unpacking a layer")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ENOTDIR, errno.EMLINK, errno.ELOOP):
        return InvalidLayer(f"{shown(name)} cannot be made: {os.strerror(error.errno)}")
    return error
