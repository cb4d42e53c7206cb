"""Reading a container's log back: files oldest first, filtered, framed as the API wants them, followed."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from node.containers.logfiles import LogFile, open_all, open_newer
from node.containers.logformats import Format, JsonLines, LocalRecords
from node.containers.model import LogQuery
from node.linux import inotify

BLOCK = 512 * 1024


async def read_log(path: Path, query: LogQuery, *, tty: bool, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Bytes ready for the wire, in batches. Following, it ends when `ended()` and everything written was given."""
    form = format_of(path, query, tty=tty)
    with contextlib.ExitStack() as stack:
        # Watched before the first read: nothing written between the read and the wait is missed.
        watch = _watched(path, stack) if query.follow else None
        waiting = deque(await asyncio.to_thread(open_all, path, form.seek_tail, query.tail))
        stack.callback(close_all, waiting)
        while True:
            # Asked before the read: what was written before the end is in the file by now.
            over = ended()
            while waiting:
                async for batch in _drain(waiting[0], form):
                    yield batch
                if len(waiting) == 1:
                    break
                waiting.popleft().close()
            if form.past_end or watch is None:
                return
            if fresh := await asyncio.to_thread(open_newer, path, waiting[0] if waiting else None):
                # The old one is read once more: it may have grown before it was renamed.
                waiting.extend(fresh)
            elif over:
                return
            else:
                await changed(watch)


def close_all(files: deque[LogFile]) -> None:
    for file in files:
        file.close()


def format_of(path: Path, query: LogQuery, *, tty: bool) -> Format:
    return JsonLines(query, tty=tty) if path.name.endswith("json.log") else LocalRecords(query, tty=tty)


async def _drain(file: LogFile, form: Format) -> AsyncIterator[bytes]:
    while not form.past_end:
        batch, more = await asyncio.to_thread(_take, file, form)
        if batch:
            yield batch
        if not more:
            return


def _take(file: LogFile, form: Format) -> tuple[bytes, bool]:
    """(what is ready, whether the file held a whole block: there may be more)."""
    if not file.begun:
        file.begun = True
        form.seek_time(file.file)
    read = file.file.read(BLOCK)
    batch, file.rest = form.feed(file.rest + read)
    return batch, len(read) == BLOCK


def _watched(path: Path, stack: contextlib.ExitStack) -> int:
    descriptor = inotify.watch(str(path.parent))
    stack.callback(os.close, descriptor)
    return descriptor


async def changed(descriptor: int) -> None:
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
