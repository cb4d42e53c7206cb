"""Carries a container's log from its spool to a log service, from where it was left, until the container has ended.

Each line at least once, in order: what had been sent is written down beside the spool (`delivered.json`) once a second
and at the end, so that a daemon that was killed repeats a second at most.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from node.containers import logdrivers
from node.containers.delivery.journald import JournalSender, field_name
from node.containers.delivery.senders import Sender
from node.containers.delivery.syslog import SyslogSender, SyslogTarget
from node.containers.live import Live
from node.containers.logfiles import LogFile, open_newer
from node.containers.logformats import FOOT, HEAD, MAGIC, Entry, record
from node.containers.logs import changed, close_all
from node.containers.model import Container
from node.containers.tasks import Tasks
from node.linux import inotify

log = logging.getLogger(__name__)

POSITION = "delivered.json"
BLOCK = 256 * 1024
THREADS = 4
"""Of their own: a log service that does not answer must not take the threads that everything else uses."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
PATIENCE = 10.0
"""Seconds that the service is tried for after the container's end."""

SAVE_SECONDS = 1.0


class Couriers:
    def __init__(self, tasks: Tasks, journal_socket: str) -> None:
        self._tasks = tasks
        self._journal_socket = journal_socket
        self._threads = ThreadPoolExecutor(THREADS, "deliver")

    def begin(self, live: Live) -> None:
        """For a container that has been started or taken over, or that ended while no daemon was there."""
        if live.container.spec.log.driver not in (logdrivers.SYSLOG, logdrivers.JOURNALD):
            return
        sender = sender_of(live.container, self._journal_socket)
        before = live.courier
        courier = Courier(Path(live.container.log_path), sender, live.exited.is_set, self._threads)
        live.courier = self._tasks.spawn(courier.run(before), f"watch delivery {live.id}")


def sender_of(container: Container, journal_socket: str) -> Sender:
    options, tag = container.spec.log.options, logdrivers.tag(container)
    if container.spec.log.driver == logdrivers.SYSLOG:
        return SyslogSender(SyslogTarget.parse(options), tag)
    fields = {
        "CONTAINER_ID": container.id[:12],
        "CONTAINER_ID_FULL": container.id,
        "CONTAINER_NAME": container.name,
        "CONTAINER_TAG": tag,
        "SYSLOG_IDENTIFIER": tag,
        "IMAGE_NAME": container.image,
    }
    more = {field_name(name): value for name, value in logdrivers.attrs(container).items() if name != "tag"}
    return JournalSender(journal_socket, {name: value for name, value in more.items() if name} | fields)


class Courier:
    def __init__(
        self, path: Path, sender: Sender, ended: Callable[[], bool], threads: ThreadPoolExecutor
    ) -> None:
        self._path = path
        self._sender = sender
        self._ended = ended
        self._threads = threads
        self._saved_at = 0.0

    async def run(self, before: "asyncio.Task[None] | None" = None) -> None:
        """`before`: the delivery of the container's run before, whose order is kept."""
        if before is not None:
            await asyncio.wait({before})
        files = deque(await asyncio.to_thread(self._unread))
        with contextlib.ExitStack() as stack:
            stack.callback(self._sender.close)
            stack.callback(close_all, files)
            watch = inotify.watch(str(self._path.parent))
            stack.callback(os.close, watch)
            while True:
                over = self._ended()
                while files:
                    if not await self._drain(files[0]):
                        return
                    if len(files) == 1:
                        break
                    files.popleft().close()
                current = files[0] if files else None
                if fresh := await asyncio.to_thread(open_newer, self._path, current):
                    for file in fresh:
                        file.file.seek(len(MAGIC))
                    files.extend(fresh)
                elif over:
                    if current is not None:
                        await asyncio.to_thread(self._save, current)
                    return
                else:
                    await changed(watch)

    async def _drain(self, file: LogFile) -> bool:
        """False: the service could not be reached in time, and nobody waits any longer."""
        while entries := await asyncio.to_thread(_take, file):
            if not await self._deliver(entries):
                return False
            now = asyncio.get_running_loop().time()
            if now - self._saved_at > SAVE_SECONDS:
                self._saved_at = now
                await asyncio.to_thread(self._save, file)
        return True

    async def _deliver(self, entries: list[Entry]) -> bool:
        loop = asyncio.get_running_loop()
        pause, deadline = FIRST_PAUSE, 0.0
        while True:
            try:
                await loop.run_in_executor(self._threads, self._sender.send, entries)
            except OSError as error:
                now = loop.time()
                if self._ended():
                    deadline = deadline or now + PATIENCE
                    if now > deadline:
                        log.warning("the log of %s was not delivered to its end: %s", self._path.parent.name, error)
                        return False
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0 if deadline else LONGEST_PAUSE)
            else:
                return True

    def _unread(self) -> list[LogFile]:
        files = open_newer(self._path, None)
        identity, offset = self._position()
        known = [file.identity for file in files]
        if identity in known:
            for file in files[: known.index(identity)]:
                file.close()
            files = files[known.index(identity) :]
        for file in files:
            file.file.seek(offset if file.identity == identity else len(MAGIC))
        return files

    def _position(self) -> tuple[int, int]:
        try:
            held = json.loads((self._path.parent / POSITION).read_bytes())
            return int(held["file"]), max(len(MAGIC), int(held["offset"]))
        except (OSError, ValueError, KeyError, TypeError):
            return 0, len(MAGIC)

    def _save(self, file: LogFile) -> None:
        place = {"file": file.identity, "offset": file.file.tell() - len(file.rest)}
        temporary = self._path.parent / f".{POSITION}"
        with contextlib.suppress(OSError):  # the container has been removed
            temporary.write_text(json.dumps(place))
            temporary.replace(self._path.parent / POSITION)


def _take(file: LogFile) -> list[Entry]:
    """The next whole records; none when there are none now."""
    data = file.rest + file.file.read(BLOCK)
    entries: list[Entry] = []
    at = 0
    while len(data) - at >= HEAD.size + FOOT.size:
        entry, after = record(data, at)
        if entry is None:
            at = at if after else len(data)  # torn: nothing behind it can be found
            break
        entries.append(entry)
        at = after
    file.rest = data[at:]
    return entries
