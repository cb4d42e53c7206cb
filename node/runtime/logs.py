"""The json-file log, as Docker writes it: one object a line with `log`, `stream` and `time`, rotated by size."""

from __future__ import annotations

import json
import os
import time

MAX_LINE = 16 * 1024
"""A longer line is written in pieces of this size, each without its newline but the last."""


def timestamp() -> str:
    """RFC 3339 with nanoseconds, UTC."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{seconds}.{now % 1_000_000_000:09d}Z"


class JsonLog:
    """Appends to `path`; beyond `max_size` bytes (0: never) the file becomes `path.1` and so on, `max_files` in all.

    A write that fails (a full disk) loses that line and never stops the container: `lost` counts them.
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
        lines = (self._partial[stream] + data).split(b"\n")
        rest = lines.pop()
        stamp = timestamp()
        out: list[bytes] = []
        for line in lines:
            whole = line + b"\n"
            out.extend(self._entry(stream, whole[start:start + MAX_LINE], stamp)
                       for start in range(0, len(whole), MAX_LINE))
        while len(rest) >= MAX_LINE:
            out.append(self._entry(stream, rest[:MAX_LINE], stamp))
            rest = rest[MAX_LINE:]
        self._partial[stream] = rest
        self._append(out)

    def close(self) -> None:
        """Write what was left without a newline, and make the file durable."""
        for stream, rest in self._partial.items():
            if rest:
                self._append([self._entry(stream, rest, timestamp())])
        try:
            os.fdatasync(self._fd)
        except OSError:
            self.lost += 1
        os.close(self._fd)

    @staticmethod
    def _entry(stream: str, line: bytes, stamp: str) -> bytes:
        text = json.dumps(line.decode("utf-8", "replace"), ensure_ascii=False)
        return f'{{"log":{text},"stream":"{stream}","time":"{stamp}"}}\n'.encode("utf-8", "replace")

    def _append(self, entries: list[bytes]) -> None:
        pending = b""
        for entry in entries:
            if self._max_size and self._size + len(pending) + len(entry) > self._max_size and self._size + len(pending):
                self._put(pending)
                pending = b""
                self._rotate()
            pending += entry
        self._put(pending)

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
                os.close(self._fd)
                self._fd = self._open()
            self._size = 0
        except OSError:
            self.lost += 1
