"""Reading a container's log back: json-file lines, oldest rotated file first, filtered, framed as the API wants them.

Files: PATH is written by the monitor, PATH.1 was the one before, PATH.2 before that. Rotation renames, so a reader
keeps what it has open and goes on with the new PATH when the inode under that name changed.
"""

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from node.containers import clock
from node.containers.model import LogQuery
from node.linux import inotify

BLOCK = 256 * 1024
MAX_LINE = 1024 * 1024
"""A line longer than the monitor ever writes is a damaged file; its pieces are skipped."""

MAX_FILES = 1000
STREAMS = {"stdout": 1, "stderr": 2}


async def read_log(path: Path, query: LogQuery, *, tty: bool, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Bytes ready for the wire, in batches. Following, it ends when `ended()` and everything written was given."""
    formatter = Formatter(query, tty=tty)
    with contextlib.ExitStack() as stack:
        # Watched before the first read: nothing written between the read and the wait is missed.
        watch = _watched(path, stack) if query.follow else None
        waiting = deque(await asyncio.to_thread(_open, path, query.tail))
        stack.callback(lambda: [file.close() for file in waiting])
        while True:
            # Asked before the read: what was written before the end is in the file by now.
            over = ended()
            while waiting:
                async for batch in _drain(waiting[0], formatter):
                    yield batch
                if len(waiting) == 1:
                    break
                waiting.popleft().close()
            if formatter.past_end or watch is None:
                return
            if fresh := await asyncio.to_thread(_newer, path, waiting[0] if waiting else None):
                # The old one is read once more: it may have grown before it was renamed.
                waiting.extend(fresh)
            elif over:
                return
            else:
                await _changed(watch)


async def _drain(file: BinaryIO, formatter: "Formatter") -> AsyncIterator[bytes]:
    while not formatter.past_end:
        batch, more = await asyncio.to_thread(formatter.take, file)
        if batch:
            yield batch
        if not more:
            return


class Formatter:
    """Turns log lines into what is sent; keeps an unfinished last line of a file for the next call."""

    def __init__(self, query: LogQuery, *, tty: bool) -> None:
        self._query = query
        self._tty = tty
        self._rest: dict[int, bytes] = {}
        self.past_end = False

    def take(self, file: BinaryIO) -> tuple[bytes, bool]:
        """(what is ready, whether the file held a whole block: there may be more)."""
        read = file.read(BLOCK)
        data = self._rest.pop(file.fileno(), b"") + read
        lines = data.split(b"\n")
        if lines[-1] and len(lines[-1]) < MAX_LINE:
            self._rest[file.fileno()] = lines[-1]
        return b"".join(self._lines(lines[:-1])), len(read) == BLOCK

    def _lines(self, lines: list[bytes]) -> Iterator[bytes]:
        for line in lines:
            entry = _entry(line)
            if entry is None:
                continue
            text, stream, time = entry
            if self._query.since or self._query.until:
                moment = clock.nanoseconds(time)
                if moment < self._query.since:
                    continue
                if self._query.until and moment > self._query.until:
                    self.past_end = True
                    return
            if self._query.stdout if stream == 1 else self._query.stderr:
                yield self._render(text, stream, time)

    def _render(self, text: str, stream: int, time: str) -> bytes:
        body = text.encode("utf-8", "surrogateescape")
        if self._query.timestamps:
            body = f"{time} ".encode() + body
        return body if self._tty else bytes((stream, 0, 0, 0)) + len(body).to_bytes(4, "big") + body


def _entry(line: bytes) -> tuple[str, int, str] | None:
    try:
        entry = json.loads(line)
        text, stream, time = entry["log"], STREAMS[entry["stream"]], entry["time"]
    except (ValueError, KeyError, TypeError, RecursionError):
        # A torn line of a machine that lost power; the lines around it are good.
        return None
    return (text, stream, time) if isinstance(text, str) and isinstance(time, str) else None


def _open(path: Path, tail: int | None) -> list[BinaryIO]:
    """All files, oldest first, positioned so that `tail` lines are left."""
    opened: list[BinaryIO] = []
    left = tail
    for number in range(MAX_FILES):
        try:
            file = path.with_name(path.name + (f".{number}" if number else "")).open("rb")
        except OSError:
            if number:
                break
            continue
        opened.insert(0, file)
        if left is not None:
            left -= _seek_to_tail(file, left)
            if left <= 0:
                break
    return opened


def _seek_to_tail(file: BinaryIO, lines: int) -> int:
    """Leave the file where `lines` whole lines follow; gives how many there are. Reads backwards, bounded memory."""
    position = file.seek(0, os.SEEK_END)
    found = 0
    while position > 0:
        size = min(65536, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            # The newline before the wanted first line is one more than the lines wanted.
            if found == lines:
                file.seek(position + at + 1)
                return lines
            found += 1
    if lines == 0:
        file.seek(0, os.SEEK_END)
        return 0
    file.seek(0)
    return found


def _newer(path: Path, current: BinaryIO | None) -> list[BinaryIO]:
    """The files begun since `current`, oldest first; more than one when rotation was faster than the reader."""
    opened: list[BinaryIO] = []
    for number in range(MAX_FILES):
        try:
            file = path.with_name(path.name + (f".{number}" if number else "")).open("rb")
        except OSError:
            break
        if current is not None and os.path.sameopenfile(file.fileno(), current.fileno()):
            file.close()
            break
        opened.insert(0, file)
    return opened


def _watched(path: Path, stack: contextlib.ExitStack) -> int:
    descriptor = inotify.watch(str(path.parent))
    stack.callback(os.close, descriptor)
    return descriptor


async def _changed(descriptor: int) -> None:
    """Until something in the folder changes: the log, or exit.json when the container ends. A second at most, because
    the end itself is known a moment after the last file was written."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), 1.0)
    except TimeoutError:
        return
    finally:
        loop.remove_reader(descriptor)
    inotify.drain(descriptor)
