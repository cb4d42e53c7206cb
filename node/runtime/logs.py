"""The json-file log, as Docker writes it: one object a line with `log`, `stream`, `attrs` if any, and `time`."""

from __future__ import annotations

import json
import time

from node.runtime.logfile import RotatedFile

MAX_LINE = 16 * 1024
"""A longer line is written in pieces of at most this size, each without its newline but the last."""

_USUAL = bytes(byte for byte in range(256) if byte >= 0x20 or byte in b"\t\n\r\x1b")
"""What a chunk may hold to be escaped as a whole."""

_ESCAPES = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"), (b"\x1b", b"\\u001b"))


def timestamp() -> str:
    """RFC 3339 with nanoseconds, UTC."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{seconds}.{now % 1_000_000_000:09d}Z"


class JsonLog:
    """Lines into a RotatedFile. `attrs`: a JSON object that every line carries, or nothing."""

    def __init__(self, path: str, max_size: int, max_files: int, *, compress: bool = False, attrs: str = "") -> None:
        self._file = RotatedFile(path, max_size, max_files, compress=compress)
        self._attrs = f'"attrs":{attrs},' if attrs else ""
        self._partial = {"stdout": b"", "stderr": b""}

    @property
    def lost(self) -> int:
        return self._file.lost

    @property
    def busy(self) -> bool:
        """Whether `work` has something to do: rotated files to compress, a slice a call."""
        return self._file.busy

    def work(self) -> bool:
        return self._file.work()

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
            self._append([self._entry(stream, piece, stamp)])
            self._partial[stream] = rest[len(piece):]

    def close(self) -> None:
        """Write what was left without a newline."""
        for stream, rest in self._partial.items():
            if rest:
                self._append([self._entry(stream, rest, timestamp())])
        self._file.close()

    def _lines(self, stream: str, text: bytes, stamp: str) -> None:
        """Whole lines. Most text needs no look at each of them: it is escaped as one piece, ten times as fast."""
        if _is_plain(text) and not _has_long_line(text):
            tail = f"\\n{self._tail(stream, stamp)}".encode()
            escaped = text
            for plain, written in _ESCAPES:
                if plain in escaped:
                    escaped = escaped.replace(plain, written)
            block = b'{"log":"' + escaped[:-1].replace(b"\n", tail + b'{"log":"') + tail
            if self._file.within(len(block)):
                self._file.put(block)
                return
        entries = []
        for line in text.split(b"\n")[:-1]:
            whole = line + b"\n"
            start = 0
            while start < len(whole):
                end = _cut(whole, start)
                entries.append(self._entry(stream, whole[start:end], stamp))
                start = end
        self._append(entries)

    def _append(self, entries: list[bytes]) -> None:
        pending: list[bytes] = []
        size = 0
        for entry in entries:
            if self._file.size + size and not self._file.within(size + len(entry)):
                self._file.put(b"".join(pending))
                pending, size = [], 0
                self._file.rotate()
            pending.append(entry)
            size += len(entry)
        self._file.put(b"".join(pending))

    def _entry(self, stream: str, line: bytes, stamp: str) -> bytes:
        text = json.dumps(line.decode("utf-8", "replace"), ensure_ascii=False)
        return f'{{"log":{text[:-1]}{self._tail(stream, stamp)}'.encode()

    def _tail(self, stream: str, stamp: str) -> str:
        return f'","stream":"{stream}",{self._attrs}"time":"{stamp}"}}\n'


def _is_plain(text: bytes) -> bool:
    """UTF-8 without control characters but the most usual."""
    if text.translate(None, _USUAL):
        return False
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


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
