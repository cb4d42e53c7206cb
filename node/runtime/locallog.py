"""The log of driver `local`: records of raw text, a record for what was written together.

A file begins with MAGIC. A record is, little-endian: u32 length of the text, u8 stream (1 or 2), u64 nanoseconds since
the epoch, the text, u32 length again (so that a reader finds the last records first). The text is whole lines, but for
a line longer than MAX_LINE, which may be spread over several records. See docs/logs.md.
"""

from __future__ import annotations

import struct
import time

from node.runtime.logfile import RotatedFile
from node.runtime.logs import MAX_LINE

MAGIC = b"SWLOG01\n"
HEAD = struct.Struct("<IBQ")
FOOT = struct.Struct("<I")
NUMBERS = {"stdout": 1, "stderr": 2}


class LocalLog:
    """As JsonLog: the same calls, the same rotation."""

    def __init__(self, path: str, max_size: int, max_files: int, *, compress: bool = False) -> None:
        self._file = RotatedFile(path, max_size, max_files, compress=compress)
        self._partial = {"stdout": b"", "stderr": b""}
        if self._file.size and not self._whole():
            self._file.rotate()  # a host that lost power tore it: nothing may follow what cannot be read
        self._begin()

    @property
    def lost(self) -> int:
        return self._file.lost

    @property
    def busy(self) -> bool:
        return self._file.busy

    def work(self) -> bool:
        return self._file.work()

    def write(self, stream: str, data: bytes) -> None:
        head, newline, rest = data.rpartition(b"\n")
        if newline:
            text, self._partial[stream] = self._partial[stream] + head + newline, rest
            self._record(stream, text)
        else:
            self._partial[stream] += rest
        if len(self._partial[stream]) >= MAX_LINE:
            text, self._partial[stream] = self._partial[stream], b""
            self._record(stream, text)

    def close(self) -> None:
        """Write what was left without a newline."""
        for stream, rest in self._partial.items():
            if rest:
                self._record(stream, rest)
        self._file.close()

    def _record(self, stream: str, text: bytes) -> None:
        size = len(text) + HEAD.size + FOOT.size
        if self._file.size > len(MAGIC) and not self._file.within(size):
            self._file.rotate()
            self._begin()
        head = HEAD.pack(len(text), NUMBERS[stream], time.time_ns())
        self._file.put(head + text + FOOT.pack(len(text)))

    def _begin(self) -> None:
        if not self._file.size:
            self._file.put(MAGIC)

    def _whole(self) -> bool:
        """Whether the last record is there to its end."""
        size = self._file.size
        if self._file.read_at(len(MAGIC), 0) != MAGIC:
            return False
        if size == len(MAGIC):
            return True
        foot = self._file.read_at(FOOT.size, size - FOOT.size)
        start = size - FOOT.size - FOOT.unpack(foot)[0] - HEAD.size if len(foot) == FOOT.size else 0
        if start < len(MAGIC):
            return False
        head = self._file.read_at(HEAD.size, start)
        return len(head) == HEAD.size and head[:4] == foot
