"""The files of one log: PATH is written by the monitor, PATH.1 was the one before, PATH.2 before that, as they are or
compressed (PATH.1.gz).

Rotation renames, so a reader keeps what it has open and goes on with the new PATH when the file under that name is
another. A compressed file says in its header which file it was made of (node.runtime.logfile).
"""

import gzip
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

MAX_FILES = 1001
CHUNK = 1024 * 1024
_EXTRA = b"SW\x08\x00"


class LogFile:
    """An open file and who it is. `size` is what it held when it was opened."""

    def __init__(self, file: BinaryIO, identity: int) -> None:
        self.file = file
        self.identity = identity
        self.rest = b""
        """Of what was read, what no whole entry has come of yet."""

        self.begun = False

    def close(self) -> None:
        self.file.close()


def open_all(path: Path, seek: Callable[[BinaryIO, int], tuple[int, bytes]], tail: int | None) -> list[LogFile]:
    """All files, oldest first, positioned so that `tail` lines are left. `seek` places one file so that so many lines
    follow; it says how many there are and what is to be read before them."""
    opened: list[LogFile] = []
    left = tail
    for number in range(MAX_FILES):
        found = open_one(path, number)
        if found is None:
            if number:
                break
            continue
        opened.insert(0, found)
        if left is not None:
            count, found.rest = seek(found.file, left)
            left -= count
            found.begun = True
            if left <= 0:
                break
    return opened


def open_newer(path: Path, current: LogFile | None) -> list[LogFile]:
    """The files begun since `current`, oldest first; more than one when rotation was faster than the reader."""
    opened: list[LogFile] = []
    for number in range(MAX_FILES):
        found = open_one(path, number, current)
        if found is None:
            break
        opened.insert(0, found)
    return opened


def open_one(path: Path, number: int, unless: LogFile | None = None) -> LogFile | None:
    """None: there is none, or it is `unless`."""
    plain = path.with_name(path.name + (f".{number}" if number else ""))
    for name in (plain, plain.with_name(f"{plain.name}.gz")):
        try:
            file = cast("BinaryIO", open(name, "rb", opener=_opener))  # noqa: SIM115 -- the caller closes it
        except OSError:
            continue
        identity = _origin(file) if name.suffix == ".gz" else os.fstat(file.fileno()).st_ino
        if unless is not None and identity == unless.identity:
            file.close()
            return None
        return LogFile(_inflated(file, path.parent) if name.suffix == ".gz" else file, identity)
    return None


def _opener(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _origin(file: BinaryIO) -> int:
    """The inode that the compressed file was made of; 0 for one of another's making."""
    head = os.pread(file.fileno(), 24, 0)
    return int.from_bytes(head[16:24], "little") if head[12:16] == _EXTRA else 0


def _inflated(file: BinaryIO, folder: Path) -> BinaryIO:
    """A nameless file beside it, so that it can be searched from its end; what is damaged ends it."""
    plain = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 -- the caller closes it
    try:
        with file, gzip.open(file) as packed:
            while data := packed.read(CHUNK):
                plain.write(data)
    except (OSError, EOFError, zlib.error):
        pass
    plain.seek(0)
    return plain
