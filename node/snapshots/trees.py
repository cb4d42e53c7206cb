"""Whole directory trees whose names and depth an image or a container chose: measure, copy, remove.

Every step goes through a directory's descriptor and never follows a symbolic link, so no name in the tree can lead out
of it. Nothing recurses: a container may nest directories deeper than Python's stack or the kernel's path limit allow.
These functions block; call them in a thread.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from node.linux import syscalls
from node.linux.usernamespaces import ANY_OVERLAY_XATTRS

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DEPTH = 512  # open descriptors on one way down; what lies deeper is handled apart
_FICLONE = 0x40049409  # linux/fs.h _IOW(0x94, 9, int)
_PIECE = 1 << 20
_COPY_CHUNK = 1 << 30


def remove_tree(path: Path) -> None:
    """Remove a tree; no error when it is absent. Directories below _MAX_DEPTH are first moved up beside `path`."""
    pending = [path]
    while pending:
        top = pending.pop()
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(top.lstat().st_mode):
                top.unlink()
                continue
            descriptor = os.open(top, _DIRECTORY)
            try:
                pending.extend(_empty(descriptor, path, len(pending)))
            finally:
                os.close(descriptor)
            top.rmdir()


def _empty(top: int, beside: Path, count: int) -> list[Path]:
    """Remove everything in directory `top`; gives the deep directories that were moved out of it."""
    moved: list[Path] = []
    levels: list[tuple[int, str]] = [(top, "")]
    while levels:
        here, name = levels[-1]
        below = _remove_files(here)
        if below is None:
            levels.pop()
            if levels:
                os.close(here)
                os.rmdir(name, dir_fd=levels[-1][0])
        elif len(levels) > _MAX_DEPTH:
            place = beside.with_name(f"{beside.name}.deep{count + len(moved)}")
            os.rename(below, place, src_dir_fd=here)
            moved.append(place)
        else:
            levels.append((os.open(below, _DIRECTORY, dir_fd=here), below))
    return moved


def _remove_files(directory: int) -> str | None:
    """Unlink the non-directories; gives one sub-directory that is left, or None."""
    left = None
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                left = entry.name
            else:
                os.unlink(entry.name, dir_fd=directory)
    return left


def disk_usage(path: Path) -> int:
    """Sum of the sizes of the regular files, each inode once. Deeper than _MAX_DEPTH is not counted."""
    seen: set[int] = set()
    total = 0
    levels = [os.open(path, _DIRECTORY)]
    pending: list[Iterator[str]] = []
    try:
        while levels:
            if len(pending) < len(levels):
                size, below = _measure(levels[-1], seen)
                total += size
                pending.append(iter(below))
            name = next(pending[-1], None)
            if name is None:
                pending.pop()
                os.close(levels.pop())
            elif len(levels) <= _MAX_DEPTH:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    levels.append(os.open(name, _DIRECTORY, dir_fd=levels[-1]))
    finally:
        for descriptor in levels:
            os.close(descriptor)
    return total


def _measure(directory: int, seen: set[int]) -> tuple[int, list[str]]:
    total, below = 0, []
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                    continue
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(info.st_mode) and info.st_ino not in seen:
                    seen.add(info.st_ino)
                    total += info.st_size
    return total, below


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree into the existing directory `target`: owners, modes, times, xattrs, hard links, holes, devices.

    File bytes are shared (reflink) where the file system can.
    """
    _Copy(source, target).run()


def copy_attributes(source: int, target: int) -> None:
    """Owner, xattrs, mode and times of one open file or directory to another. The order matters: chown(2) clears
    setuid bits and file capabilities."""
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    copy_xattrs(source, target)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def copy_xattrs(source: int | str, target: int | str) -> None:
    """All but overlayfs' own, which mean something only where they are."""
    follow = {} if isinstance(source, int) else {"follow_symlinks": False}
    for name in os.listxattr(source, **follow):
        if name.startswith(ANY_OVERLAY_XATTRS):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name, **follow), **follow)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


class _Copy:
    def __init__(self, source: Path, target: Path) -> None:
        self._top = (os.open(source, _DIRECTORY), os.open(target, _DIRECTORY))
        self._links: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        levels = [(*self._top, "")]
        pending: list[list[str]] = []
        try:
            while levels:
                source, target, path = levels[-1]
                if len(pending) < len(levels):
                    pending.append(os.listdir(source))
                if not pending[-1]:
                    copy_attributes(source, target)
                    pending.pop()
                    levels.pop()
                    os.close(source)
                    os.close(target)
                    continue
                name = pending[-1].pop()
                if self._entry(source, target, name, f"{path}{name}"):
                    levels.append((os.open(name, _DIRECTORY, dir_fd=source),
                                   os.open(name, _DIRECTORY, dir_fd=target), f"{path}{name}/"))
        finally:
            for source, target, _ in levels:
                os.close(source)
                os.close(target)

    def _entry(self, source: int, target: int, name: str, path: str) -> bool:
        """Copy one entry; True when it is a directory that is still to be filled."""
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            return True
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), path)
            if first is not path:
                self._link(first, name, target)
                return False
        if kind == stat.S_IFREG:
            _copy_file(source, target, name, info.st_size)
            return False
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        copy_xattrs(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}")
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        return False

    def _link(self, first: str, name: str, target: int) -> None:
        """Somebody may have the target already (a volume that a container has): no symlink leads out of it."""
        folder, _, last = first.rpartition("/")
        parent = syscalls.openat2(self._top[1], folder or ".", os.O_PATH | os.O_DIRECTORY,
                                  resolve=syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS)
        try:
            os.link(last, name, src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
        finally:
            os.close(parent)


def _copy_file(source: int, target: int, name: str, size: int) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            try:
                fcntl.ioctl(writing, _FICLONE, reading)
            except OSError:
                _copy_bytes(reading, writing, size)
            copy_attributes(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_bytes(reading: int, writing: int, size: int) -> None:
    """Data only; holes stay holes."""
    os.ftruncate(writing, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(reading, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end
                return
            raise
        end = os.lseek(reading, position, os.SEEK_HOLE)
        while position < end:
            done = _copy_piece(reading, writing, position, min(end - position, _COPY_CHUNK))
            if not done:
                return
            position += done


def _copy_piece(reading: int, writing: int, position: int, length: int) -> int:
    """Bytes copied; 0 at the end. In the kernel where it can, which is not between any two file systems."""
    try:
        return os.copy_file_range(reading, writing, length, position, position)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP):
            raise
    data = os.pread(reading, min(length, _PIECE), position)
    view = memoryview(data)
    while view:
        written = os.pwrite(writing, view, position)
        position += written
        view = view[written:]
    return len(data)
