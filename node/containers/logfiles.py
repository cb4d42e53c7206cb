"""The files of one log: PATH is written by the monitor, PATH.1 was the one before, PATH.2 before that, as they are or
compressed (PATH.1.gz).

Rotation renames, so a reader keeps what it has open and goes on with the new PATH when the file under that name is
another. A compressed file says in its header which file it was made of (node.runtime.logfile).
"""

import gzip
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

MAX_FILES = 1001
TRIES = 100
"""Of a look at files that are being rotated, a millisecond apart."""

CHUNK = 1024 * 1024
_EXTRA = b"SW\x08\x00"


class LogFile:
    """An open file and who it is: its inode, or the inode of the file that a compressed one was made of.

    That one is gone, and the kernel gives its number to a newer file of the same log, on most file systems at once. So
    a number alone proves nothing; that of a file which is held open does.
    """

    def __init__(self, file: BinaryIO, identity: int, *, packed: bool) -> None:
        self.file = file
        self.identity = identity
        self.packed = packed
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
    for held in _snapshot(path, None):
        if left is not None and left <= 0 and opened:
            held.file.close()
            continue
        found = held.plain(path.parent)
        opened.insert(0, found)
        if left is not None:
            count, found.rest = seek(found.file, left)
            left -= count
            found.begun = True
    return opened


def open_newer(path: Path, current: LogFile | None) -> list[LogFile]:
    """The files begun since `current`, oldest first; more than one when rotation was faster than the reader."""
    return [held.plain(path.parent) for held in reversed(_snapshot(path, current))]


@dataclass(frozen=True, slots=True)
class _Held:
    """An open file as it is on disk."""

    file: BinaryIO
    inode: int
    identity: int
    packed: bool

    def plain(self, folder: Path) -> LogFile:
        file = _inflated(self.file, folder) if self.packed else self.file
        return LogFile(file, self.identity, packed=self.packed)


class _Moving(Exception):
    """The monitor is renaming files at this moment."""


def _snapshot(path: Path, unless: LogFile | None) -> list[_Held]:
    """The files, newest first, up to `unless`. Rotation renames them one after the other, the oldest first: who looks
    meanwhile sees a gap, or a file twice, and looks again."""
    for again in range(TRIES):
        held: list[_Held] = []
        try:
            _collect(path, unless, held)
        except _Moving:
            if again == TRIES - 1:
                break
            for one in held:
                one.file.close()
            time.sleep(0.001)
        else:
            return held
    return held


def _collect(path: Path, unless: LogFile | None, held: list[_Held]) -> None:
    seen = set[int]()
    before: _Held | None = None
    for number in range(MAX_FILES):
        found = _open_one(path, number)
        if found is None:
            # A file once rotated away for good leaves no gap: behind the last there is nothing.
            if _exists(path, number + 1):
                raise _Moving
            return
        if unless is not None and _is(found, unless, path, number):
            found.file.close()
            return
        held.append(found)
        # The same file again, or what it was compressed into; further away that would be another's old number.
        again = before is not None and not before.packed and found.packed and found.identity == before.identity
        if again or found.inode in seen:
            raise _Moving
        seen.add(found.inode)
        before = found


def _is(found: _Held, known: LogFile, path: Path, number: int) -> bool:
    if found.identity != known.identity:
        return False
    # Known from its compressed form, found as it was before: only while there are both.
    return found.packed or not known.packed or _names(path, number)[1].exists()


def _open_one(path: Path, number: int) -> _Held | None:
    for name in _names(path, number):
        try:
            file = cast("BinaryIO", open(name, "rb", opener=_opener))  # noqa: SIM115 -- the caller closes it
        except OSError:
            continue
        packed = name.suffix == ".gz"
        inode = os.fstat(file.fileno()).st_ino
        return _Held(file, inode, _origin(file) if packed else inode, packed)
    return None


def _names(path: Path, number: int) -> tuple[Path, ...]:
    plain = path.with_name(path.name + (f".{number}" if number else ""))
    return plain, plain.with_name(f"{plain.name}.gz")


def _exists(path: Path, number: int) -> bool:
    return any(name.exists() for name in _names(path, number))


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
