"""The two forms a log file has, read: Docker's json lines, and the records of driver local.

Both give text ready for the wire: a frame for each line without a terminal, in which clients look for lines. This is
where `docker logs` spends its time, so nothing here is done twice: the end of an entry (stream, attributes, time) is
the same for all lines that were written together and is looked at once.
"""

import json
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, Protocol
from urllib.parse import quote_plus

from node.containers import clock
from node.containers.model import LogQuery

BLOCK = 64 * 1024
STREAMS = {"stdout": 1, "stderr": 2}
MAX_LINE = 1024 * 1024
"""A line longer than the monitor ever writes is a damaged file."""

_FRAME = struct.Struct(">BxxxI")
_START, _MIDDLE = b'{"log":"', b'","stream":"'
_KNOWN_ENDS = 512
_LETTER_N = ord("n")
MAGIC = b"SWLOG01\n"
HEAD, FOOT = struct.Struct("<IBQ"), struct.Struct("<I")
LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of a log as its driver would send it on."""

    text: bytes
    stream: int
    time_ns: int


class Format(Protocol):
    """Reads one file after another of one log."""

    past_end: bool
    """Something after the query's `until` has been met: nothing more will come."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(what to send, what is not a whole entry yet)."""
        ...

    def seek_tail(self, file: BinaryIO, lines: int) -> tuple[int, bytes]:
        """Leave the file where `lines` lines follow; how many there are, and what is to be read before them. Bounded
        memory."""
        ...

    def seek_time(self, file: BinaryIO) -> None:
        """To the first entry, or past what is surely before the query's `since`."""
        ...


class JsonLines:
    def __init__(self, query: LogQuery, *, tty: bool) -> None:
        self._query = query
        self._tty = tty
        self._since = clock.written(query.since).encode() if query.since else b""
        self._until = clock.written(query.until).encode() if query.until else b""
        self._ends: dict[bytes, tuple[int, bytes] | None] = {}
        self.past_end = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        lines = data.split(b"\n")
        rest = lines.pop()
        out: list[bytes] = []
        ends, frame, tty = self._ends, _FRAME.pack, self._tty
        for line in lines:
            head, middle, tail = line.partition(_MIDDLE)
            if not middle or head[:8] != _START:
                line = _rewritten(line)
                head, _, tail = line.partition(_MIDDLE)
            try:
                end = ends[tail]
            except KeyError:
                end = self._end(tail)
            if end is None:
                if self.past_end:
                    break
                continue
            stream, prefix = end
            slash = head.find(b"\\")
            if slash < 0:
                body = head[8:]
            elif slash == len(head) - 2 and head[-1] == _LETTER_N:
                body = head[8:-2] + b"\n"
            else:
                body = _unescaped(head[8:])
            if not tty:
                out.append(frame(stream, len(prefix) + len(body)))
            if prefix:
                out.append(prefix)
            out.append(body)
        return b"".join(out), rest if len(rest) < MAX_LINE else b""

    def seek_tail(self, file: BinaryIO, lines: int) -> tuple[int, bytes]:
        position = file.seek(0, os.SEEK_END)
        if not lines:
            return 0, b""
        found = 0
        while position > 0:
            size = min(BLOCK, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            count = block.count(b"\n")
            # The newline before the wanted first line is one more than the lines wanted.
            if found + count <= lines:
                found += count
                continue
            at = len(block)
            for _ in range(lines - found + 1):
                at = block.rfind(b"\n", 0, at)
            file.seek(position + at + 1)
            return lines, b""
        file.seek(0)
        return found, b""

    def seek_time(self, file: BinaryIO) -> None:
        """Times rise within a file (but for a clock that was set back, as far as which a search may miss)."""
        low, high = 0, os.fstat(file.fileno()).st_size
        while self._since and high - low > 4 * BLOCK:
            middle = (low + high) // 2
            file.seek(middle)
            line = file.read(BLOCK).split(b"\n", 2)
            time = _time_of(line[1]) if len(line) > 2 else b""
            if not time or time >= self._since:
                high = middle
            else:
                low = middle
        file.seek(low)
        if low:
            skipped = file.read(BLOCK).find(b"\n") + 1
            file.seek(low + skipped)

    def _end(self, tail: bytes) -> tuple[int, bytes] | None:
        """What an entry's end says: stream and what goes before the text; None for what is not wanted."""
        if len(self._ends) >= _KNOWN_ENDS:
            self._ends.clear()
        query = self._query
        stream, time, attrs = _parsed_end(tail)
        wanted = query.stdout if stream == 1 else query.stderr
        if self._until and time > self._until:
            self.past_end = True
            return None
        found = None
        if stream and wanted and time >= self._since:
            stamp = time + b" " if query.timestamps else b""
            found = stream, stamp + _details(attrs) if query.details else stamp
        self._ends[tail] = found
        return found


class LocalRecords:
    def __init__(self, query: LogQuery, *, tty: bool) -> None:
        self._query = query
        self._tty = tty
        self.past_end = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        out: list[bytes] = []
        query, at = self._query, 0
        while len(data) - at >= HEAD.size + FOOT.size:
            entry, after = record(data, at)
            if entry is None:
                # Torn by a host that lost power: nothing behind it can be found. Or not all there yet.
                return b"".join(out), data[at:] if after else b""
            at = after
            if entry.time_ns < query.since:
                continue
            if query.until and entry.time_ns > query.until:
                self.past_end = True
                break
            if query.stdout if entry.stream == 1 else query.stderr:
                self._render(entry, out)
        return b"".join(out), data[at:]

    def seek_tail(self, file: BinaryIO, lines: int) -> tuple[int, bytes]:
        """Record by record from the end. Of one that is wanted in part a shorter one is made."""
        end = position = file.seek(0, os.SEEK_END)
        found = 0
        while lines and position > len(MAGIC):
            start, entry = _record_before(file, position)
            if entry is None:
                break
            count = entry.text.count(b"\n") + (not entry.text.endswith(b"\n"))
            if found + count > lines:
                file.seek(position)
                text = b"".join(_lines(entry.text)[found - lines:])
                return lines, HEAD.pack(len(text), entry.stream, entry.time_ns) + text + FOOT.pack(len(text))
            found += count
            position = start
        file.seek(max(position, len(MAGIC)) if lines else end)
        return found, b""

    def seek_time(self, file: BinaryIO) -> None:
        """A file is small (20 MB unless asked otherwise) and has no line breaks to find an entry by."""
        file.seek(len(MAGIC))

    def _render(self, entry: Entry, out: list[bytes]) -> None:
        prefix = clock.written(entry.time_ns).encode() + b" " if self._query.timestamps else b""
        prefix += b" " if self._query.details else b""
        if self._tty and not prefix:
            out.append(entry.text)
            return
        for line in entry.text.splitlines(keepends=True) if b"\r" not in entry.text else _lines(entry.text):
            if not self._tty:
                out.append(_FRAME.pack(entry.stream, len(prefix) + len(line)))
            out.append(prefix + line)


def record(data: bytes, at: int) -> tuple[Entry | None, int]:
    """The record at `at` and where the next begins; (None, 1) when it is not all there, (None, 0) when it is torn."""
    length, stream, time_ns = HEAD.unpack_from(data, at)
    if length > LARGEST or stream not in (1, 2):
        return None, 0
    start = at + HEAD.size
    end = start + length
    if len(data) < end + FOOT.size:
        return None, 1
    if FOOT.unpack_from(data, end)[0] != length:
        return None, 0
    return Entry(data[start:end], stream, time_ns), end + FOOT.size


def _record_before(file: BinaryIO, position: int) -> tuple[int, Entry | None]:
    """Where the record that ends at `position` begins, and it; None when there is no such record."""
    file.seek(position - FOOT.size)
    length = FOOT.unpack(file.read(FOOT.size))[0]
    start = position - FOOT.size - length - HEAD.size
    if length > LARGEST or start < len(MAGIC):
        return start, None
    file.seek(start)
    return start, record(file.read(position - start), 0)[0]


def _lines(text: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _parsed_end(tail: bytes) -> tuple[int, bytes, bytes]:
    """(stream, time, attributes) of `stdout","time":"…"}`; stream 0 for what is damaged."""
    try:
        entry = json.loads(b'{"stream":"' + tail)
        stream, time = STREAMS[entry["stream"]], entry["time"]
        attrs = entry.get("attrs") or {}
        return stream, time.encode(), json.dumps(attrs).encode() if attrs else b""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # A torn line of a machine that lost power; the lines around it are good.
        return 0, b"", b""


def _time_of(line: bytes) -> bytes:
    return _parsed_end(line.partition(_MIDDLE)[2])[1]


def _details(attrs: bytes) -> bytes:
    """`key=value,key=value `, as Docker writes them; a space where there are none."""
    values = json.loads(attrs) if attrs else {}
    words = (f"{quote_plus(str(key))}={quote_plus(str(values[key]))}" for key in sorted(values))
    return ",".join(words).encode() + b" "


def _unescaped(text: bytes) -> bytes:
    try:
        value: str = json.loads(b'"' + text + b'"')
    except (ValueError, RecursionError):
        return text
    return value.encode("utf-8", "replace")


def _rewritten(line: bytes) -> bytes:
    """An entry of another's spelling (spaces, another order) in ours; b"" for what is none."""
    try:
        entry = json.loads(line)
        text, stream, time = entry["log"], entry["stream"], entry["time"]
        if not all(isinstance(value, str) for value in (text, stream, time)):
            return b""
        rest = {"stream": stream, **({"attrs": entry["attrs"]} if "attrs" in entry else {}), "time": time}
    except (ValueError, KeyError, TypeError, RecursionError):
        return b""
    tail = json.dumps(rest, separators=(",", ":"))[1:]
    return f'{{"log":{json.dumps(text)},{tail}'.encode()
