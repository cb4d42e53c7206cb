"""Giving a bare layer's implied directories the attributes that they have in the layers below.

Overlayfs shows a merged directory with the attributes of its uppermost part. A layer that brings `usr/bin/x` without
entries for `usr` and `usr/bin` must therefore carry copies of what lies below. Whiteouts of what is not below must go:
where a directory is not merged with anything, overlayfs lists them as files.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from node.images.unpack.files import set_xattrs

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def adopt(target: int, lower: int, implied: list[bytes], whiteouts: list[bytes]) -> bool:
    """False when a path leads through a symbolic link below: then the layer must be unpacked upon the merged tree."""
    found: list[bytes] = []
    absent: list[bytes] = []
    for path in implied:
        try:
            os.close(_open(lower, path))
            found.append(path)
        except FileNotFoundError:
            absent.append(path)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            if _through_link(lower, path):
                return False
            absent.append(path)
    for path in whiteouts:
        if not _exists(lower, path):
            _take_away(target, path, os.unlink)
    for path in reversed(absent):
        with contextlib.suppress(OSError):  # not empty: it holds something of the layer
            _take_away(target, path, os.rmdir)
    for path in reversed(found):
        _copy(lower, target, path)
    return True


def _exists(root: int, path: bytes) -> bool:
    above, _, name = path.rpartition(b"/")
    try:
        parent = _open(root, above)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    finally:
        os.close(parent)
    return True


def _take_away(root: int, path: bytes, how: Callable[..., None]) -> None:
    """Without touching the parent's times."""
    above, _, name = path.rpartition(b"/")
    parent = _open(root, above)
    try:
        info = os.fstat(parent)
        how(name, dir_fd=parent)
        os.utime(parent, ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        os.close(parent)


def _open(root: int, path: bytes) -> int:
    descriptor = os.dup(root)
    for part in filter(None, path.split(b"/")):
        above = descriptor
        try:
            descriptor = os.open(part, _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def _through_link(root: int, path: bytes) -> bool:
    """Whether the first component that is no directory is a symbolic link."""
    parts = path.split(b"/")
    for depth in range(len(parts)):
        parent = _open(root, b"/".join(parts[:depth]))
        try:
            mode = os.stat(parts[depth], dir_fd=parent, follow_symlinks=False).st_mode
        finally:
            os.close(parent)
        if not stat.S_ISDIR(mode):
            return stat.S_ISLNK(mode)
    return False


def _copy(lower: int, target: int, path: bytes) -> None:
    source = _open(lower, path)
    try:
        with contextlib.suppress(FileNotFoundError):
            copy = _open(target, path)
            try:
                info = os.fstat(source)
                os.fchown(copy, info.st_uid, info.st_gid)
                set_xattrs(copy, {name: os.getxattr(source, name) for name in os.listxattr(source)})
                os.fchmod(copy, stat.S_IMODE(info.st_mode))
                os.utime(copy, ns=(info.st_atime_ns, info.st_mtime_ns))
            finally:
                os.close(copy)
    finally:
        os.close(source)
