"""A source on this machine.

It may have been written by a process that was broken into, and we are often root: every component is opened relative
to the folder above it and never through a symbolic link (O_NOFOLLOW, openat(2)), and what is opened must be a regular
file. So nothing outside the source is ever read, whatever is swapped meanwhile. openat2(2) with RESOLVE_BENEATH would
need one call where this needs one a component, but the standard library has none and ctypes is not for this room.
"""

import errno
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ocispec.errors import InvalidArgument
from registry.importing.journal import Class, Damaged
from registry.importing.tree import CHUNK, Absent, Content, Entry, Kind

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting: to open a pipe for reading blocks until somebody writes.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class FolderTree:
    """Tree. The folder itself may be named through symbolic links: the operator says what is meant."""

    def __init__(self, root: Path) -> None:
        """Raises InvalidArgument."""
        try:
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidArgument(f"cannot read {root}: {error.strerror}") from error

    def close(self) -> None:
        os.close(self._root)

    def list(self, path: str) -> list[Entry]:
        folder = self._folder(path)
        try:
            with os.scandir(folder) as entries:
                return sorted((_entry(entry) for entry in entries), key=lambda entry: entry.name)
        except OSError as error:
            raise _damaged(path, error) from error
        finally:
            os.close(folder)

    def read(self, path: str, limit: int) -> Content:
        file = self._file(path)
        try:
            status = os.fstat(file)
            data = b""
            while len(data) < limit and (more := os.read(file, limit - len(data))):
                data += more
            return Content(data, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
        except OSError as error:
            raise _damaged(path, error) from error
        finally:
            os.close(file)

    def open(self, path: str) -> "LocalFile":
        return LocalFile(path, self._file(path))

    def _folder(self, path: str) -> int:
        folder = os.dup(self._root)
        for part in path.split("/") if path else ():
            assert part not in (".", ".."), path
            try:
                below = os.open(part, FOLDER, dir_fd=folder)
            except OSError as error:
                raise _damaged(path, error) from error
            finally:
                os.close(folder)
            folder = below
        return folder

    def _file(self, path: str) -> int:
        above, _, name = path.rpartition("/")
        assert name not in ("", ".", ".."), path
        folder = self._folder(above)
        try:
            file = os.open(name, FILE, dir_fd=folder)
        except OSError as error:
            raise _damaged(path, error) from error
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise Damaged(Class.NOT_A_FILE, path)
        return file


class LocalFile:
    """OpenFile."""

    def __init__(self, path: str, file: int) -> None:
        self._path = path
        self._file = file
        self._size = os.fstat(file).st_size

    @property
    def size(self) -> int:
        return self._size

    @property
    def descriptor(self) -> int:
        return self._file

    def chunks(self) -> Iterator[bytes]:
        offset = 0
        while True:
            try:
                data = os.pread(self._file, CHUNK, offset)
            except OSError as error:
                raise _damaged(self._path, error) from error
            if not data:
                return
            offset += len(data)
            yield data

    def close(self) -> None:
        os.close(self._file)


def _entry(entry: "os.DirEntry[str]") -> Entry:
    if entry.is_symlink():
        return Entry(entry.name, Kind.SYMLINK)
    if entry.is_dir(follow_symlinks=False):
        return Entry(entry.name, Kind.FOLDER)
    if entry.is_file(follow_symlinks=False):
        return Entry(entry.name, Kind.FILE, entry.stat(follow_symlinks=False).st_size)
    return Entry(entry.name, Kind.OTHER)


def _damaged(path: str, error: OSError) -> Damaged:
    if error.errno == errno.ENOENT:
        return Absent(path)
    if error.errno == errno.ELOOP:
        return Damaged(Class.SYMLINK, path)
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
        return Damaged(Class.NOT_A_FILE, path, "a symbolic link or file where a folder should be"
                       if error.errno == errno.ENOTDIR else "")
    return Damaged(Class.UNREADABLE, path, error.strerror or str(error))
