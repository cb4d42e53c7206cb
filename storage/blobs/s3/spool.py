"""The bytes that one upload gathers for its next part: a temporary file, so that memory does not grow with the number
of clients that upload slowly."""

import base64
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK = 1024 * 1024
MOST_VIEWS = 1024
"""In one writev (IOV_MAX)."""


class Spool:
    """Every method may block. The file has no name: it goes with the process."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self.size = 0

    def fill(self, views: list[memoryview], limit: int) -> None:
        """Take from the front of `views` until they are used up or `size` is `limit`."""
        file = self._open()
        while views and self.size < limit:
            room = limit - self.size
            if len(views[0]) > room:
                written = os.pwrite(file.fileno(), views[0][:room], self.size)
            else:
                written = os.pwritev(file.fileno(), _fitting(views, room), self.size)
            self.size += written
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]

    def clear(self) -> None:
        """Without giving the file back: the next part goes into it."""
        self.size = 0

    def body(self) -> BinaryIO:
        """The file from its beginning, as long as `size`; to be read before the next call."""
        file = self._open()
        os.ftruncate(file.fileno(), self.size)
        file.seek(0)
        return file

    def md5(self) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        for block in self._blocks():
            digest.update(block)
        return base64.b64encode(digest.digest()).decode()

    def crc32(self) -> str:
        value = 0
        for block in self._blocks():
            value = zlib.crc32(block, value)
        return base64.b64encode(value.to_bytes(4, "big")).decode()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self.size = 0

    def _blocks(self) -> Iterator[bytes]:
        file = self._open()
        for first in range(0, self.size, BLOCK):
            yield os.pread(file.fileno(), min(BLOCK, self.size - first), first)

    def _open(self) -> BinaryIO:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  # closed by `close`
        assert self._file is not None
        return self._file


def check(folder: Path | None) -> None:
    """Raises OSError when nothing can be gathered there."""
    spool = Spool(folder)
    spool.body()
    spool.close()


def _fitting(views: list[memoryview], room: int) -> list[memoryview]:
    """The views from the front that fit into `room` whole."""
    count = 0
    for view in views[:MOST_VIEWS]:
        room -= len(view)
        if room < 0:
            break
        count += 1
    return views[:count]
