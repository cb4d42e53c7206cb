"""The json-file log, as Docker writes it: one object a line with `log`, `stream` and `time`, rotated by size."""

from __future__ import annotations

import json
import os
import re
import time

MAX_LINE = 16 * 1024
"""A longer line is written in pieces of at most this size, each without its newline but the last."""

_UNUSUAL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f-\xff]")
"""What keeps a chunk from being escaped as a whole: control characters and what may be broken UTF-8."""


def timestamp() -> str:
    """RFC 3339 with nanoseconds, UTC."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{seconds}.{now % 1_000_000_000:09d}Z"


class JsonLog:
    """Appends to `path`; beyond `max_size` bytes (0: never) the file becomes `path.1` and so on, `max_files` in all.

    A write that fails (a full disk) loses that text and never stops the container: `lost` counts the failures.
    """

    def __init__(self, path: str, max_size: int, max_files: int) -> None:
        self._path = path
        self._max_size = max_size
        self._max_files = max(1, max_files)
        self._partial = {"stdout": b"", "stderr": b""}
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        self.lost = 0

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def write(self, stream: str, data: bytes) -> None:
        head, newline, rest = data.rpartition(b"\n")
        stamp = timestamp()
        if newline:
            self._lines(stream, self._partial[stream] + head + newline, stamp)
            self._partial[stream] = rest
        else:
            self._partial[stream] += rest
        while len(rest := self._partial[stream]) >= MAX_LINE:
            piece = rest[:_cut(rest, 0)]
            self._append([_entry(stream, piece, stamp)])
            self._partial[stream] = rest[len(piece):]

    def close(self) -> None:
        """Write what was left without a newline. Not synced: what a host that loses power forgets of a log is not worth
        the wait of everyone who waits for a container's end."""
        for stream, rest in self._partial.items():
            if rest:
                self._append([_entry(stream, rest, timestamp())])
        os.close(self._fd)

    def _lines(self, stream: str, text: bytes, stamp: str) -> None:
        """Whole lines. Most text needs no look at each of them: it is escaped as one piece, ten times as fast."""
        if not _UNUSUAL.search(text) and not _has_long_line(text):
            tail = f'\\n","stream":"{stream}","time":"{stamp}"}}\n'.encode()
            escaped = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\t", b"\\t")
            block = b'{"log":"' + escaped[:-1].replace(b"\n", tail + b'{"log":"') + tail
            if not self._max_size or self._size + len(block) <= self._max_size:
                self._put(block)
                return
        entries = []
        for line in text.split(b"\n")[:-1]:
            whole = line + b"\n"
            start = 0
            while start < len(whole):
                end = _cut(whole, start)
                entries.append(_entry(stream, whole[start:end], stamp))
                start = end
        self._append(entries)

    def _append(self, entries: list[bytes]) -> None:
        pending: list[bytes] = []
        size = 0
        for entry in entries:
            if self._max_size and self._size + size and self._size + size + len(entry) > self._max_size:
                self._put(b"".join(pending))
                pending, size = [], 0
                self._rotate()
            pending.append(entry)
            size += len(entry)
        self._put(b"".join(pending))

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
        except OSError:
            self.lost += 1

    def _rotate(self) -> None:
        try:
            for number in range(self._max_files - 1, 0, -1):
                older = f"{self._path}.{number - 1}" if number > 1 else self._path
                try:
                    os.rename(older, f"{self._path}.{number}")
                except FileNotFoundError:
                    continue
            if self._max_files == 1:
                os.ftruncate(self._fd, 0)
            else:
                fresh = self._open()
                os.close(self._fd)
                self._fd = fresh
            self._size = 0
        except OSError:
            self.lost += 1


def _entry(stream: str, line: bytes, stamp: str) -> bytes:
    text = json.dumps(line.decode("utf-8", "replace"), ensure_ascii=False)
    return f'{{"log":{text},"stream":"{stream}","time":"{stamp}"}}\n'.encode()


def _has_long_line(text: bytes) -> bool:
    start = 0
    while len(text) - start > MAX_LINE:
        newline = text.rfind(b"\n", start, start + MAX_LINE)
        if newline < 0:
            return True
        start = newline + 1
    return False


def _cut(line: bytes, start: int) -> int:
    """Where the piece that begins at `start` ends: not inside a UTF-8 character, of which both halves would be lost."""
    end = min(start + MAX_LINE, len(line))
    if end == len(line):
        return end
    for back in range(4):
        if line[end - back] & 0xC0 != 0x80:
            return end - back
    return end  # not UTF-8 at all
