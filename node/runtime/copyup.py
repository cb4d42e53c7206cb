"""What lies below a fresh tmpfs copied into it (the mount option tmpcopyup): by descriptors, no link is followed."""

from __future__ import annotations

import contextlib
import os
import stat

from node.linux import syscalls as sys

_CHUNK = 1 << 20


def copy(source: int, target: int) -> None:
    """The folder `source` (closed here) into the folder `target`, with owners, modes, times and extended attributes.
    Raises OSError, also when the tmpfs is too small."""
    try:
        with os.scandir(source) as listing:
            names = [entry.name for entry in listing]
        for name in names:
            _entry(source, name, target)
        _dress(os.fstat(source), source, sys.openat2(target, ".", os.O_RDONLY | os.O_DIRECTORY))
    finally:
        os.close(source)


def _entry(source: int, name: str, target: int) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        os.mkdir(name, 0o700, dir_fd=target)
        below = sys.openat2(target, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            copy(_open(source, name, os.O_RDONLY | os.O_DIRECTORY), below)
        finally:
            os.close(below)
    elif stat.S_ISREG(mode):
        _file(source, name, target, status)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    else:
        os.mknod(name, mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _open(folder: int, name: str, flags: int) -> int:
    return sys.openat2(folder, name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=sys.RESOLVE_BENEATH
                       | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_XDEV)


def _file(source: int, name: str, target: int, status: os.stat_result) -> None:
    reading = _open(source, name, os.O_RDONLY)
    try:
        writing = sys.openat2(target, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode=0o600)
        while part := os.read(reading, _CHUNK):
            while part:
                part = part[os.write(writing, part):]
        _dress(status, reading, writing)
    finally:
        os.close(reading)


def _dress(status: os.stat_result, source: int, target: int) -> None:
    """Owner first: it clears set-user-id bits and file capabilities. `target` is closed."""
    try:
        os.fchown(target, status.st_uid, status.st_gid)
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(source):
            with contextlib.suppress(OSError):  # a name that tmpfs does not take
                os.setxattr(target, name, os.getxattr(source, name))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(target)
