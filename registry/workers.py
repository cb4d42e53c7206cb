"""Several processes behind one port: sockets, and a parent that keeps the processes alive.

Every worker has its own listening socket on the same address (SO_REUSEPORT, socket(7)); the kernel spreads connections
over them. The parent makes all of them before it forks and keeps them: when a worker dies, the connections that wait in
its queue are served by its successor. The parent imports everything once, so that workers share those pages, and has
neither event loop nor threads: forking is safe.
"""

import contextlib
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ocispec.errors import FailedPrecondition, InvalidArgument

BACKLOG = 1024
QUICK = 10.0
"""Seconds. A worker that lived shorter is started again only after a pause."""

COLLECT = (50_000, 20, 20)
PAUSE = 1.0
COULD_NOT_START = 3
"""Exit status of a worker that will never run as things are (bad settings, no database): all is over then."""

log = logging.getLogger(__name__)

Sockets = Sequence[socket.socket]


class AddressUnusable(FailedPrecondition):
    """The address to listen on is taken, or is not this machine's."""


def resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """The addresses that `host` means. Raises InvalidArgument."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidArgument(f"cannot listen on {host!r}: {error}") from error
    return list(dict.fromkeys((item[0], (str(item[4][0]), port)) for item in found))


def listen(host: str, port: int, count: int, stall: float) -> list[list[socket.socket]]:
    """`count` lists of listening sockets, one list for each worker. Port 0 becomes one free port for all.

    `stall`: seconds after which the kernel drops a connection that takes no byte. Raises AddressUnusable.
    """
    workers: list[list[socket.socket]] = [[] for _ in range(count)]
    for family, (address, wanted) in resolve(host, port):
        where = (address, wanted or port)
        if where[1]:
            _bind(family, where, shared=False).close()  # with SO_REUSEPORT a second registry would get in unnoticed
        for sockets in workers:
            listening = _bind(family, where, shared=True)
            where = (address, listening.getsockname()[1])
            port = where[1]
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall * 1000))
            listening.listen(BACKLOG)
            listening.setblocking(False)
            sockets.append(listening)
    return workers


def close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _bind(family: socket.AddressFamily, where: tuple[str, int], *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(where)
        if not shared:
            made.listen(1)  # Linux checks a listener against another only here when SO_REUSEADDR is set
    except OSError as error:
        made.close()
        raise AddressUnusable(f"cannot listen on {where[0]}:{where[1]}: {error.strerror}") from error
    return made


def raise_descriptors() -> None:
    """Let this process open as many files and connections as its hard limit allows: what a shell sets as the soft one
    (1024) is less than the connections of a busy hour."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(slots=True)
class _Worker:
    index: int
    pid: int = 0
    started: float = 0.0
    again_at: float = field(default=0.0)


Run = Callable[[int, int, Callable[[], None]], int]
"""Runs one worker: its number, a descriptor that reads end-of-file when the parent is gone, and what to call when it
serves. Gives the exit status."""


def settle_memory() -> None:
    """To be called when everything is loaded. Python's cycle collector looks at all young objects every 700
    allocations, and now and then at all there are, hundreds of thousands of them for the modules alone: with 64 clients
    pushing that took a third to a half of the processor time. What is loaded by now is taken out of its view,
    and it looks so rarely that garbage in cycles may come to some ten megabytes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


class Supervisor:
    """Starts `count` workers, starts dead ones again, stops all of them on SIGTERM or SIGINT."""

    def __init__(self, count: int, run: Run, ready: Callable[[], None], stopping: Callable[[], None],
                 patience: float) -> None:
        """`ready` is called once, when all serve; `stopping` when they are told to end; `patience`: seconds that
        workers get to end by themselves."""
        self._workers = [_Worker(index) for index in range(count)]
        self._run = run
        self._ready = ready
        self._leave = stopping
        self._patience = patience
        self._stopping = False
        self._status = 0
        # A worker holds the reading end of `alive`; nobody writes: it ends when the parent does, however that ends.
        self._alive, self._alive_end = os.pipe()
        self._news, self._news_end = os.pipe()
        self._wakeup, self._wakeup_end = os.pipe()

    def serve(self) -> int:
        """The exit status, when all have ended."""
        os.set_blocking(self._wakeup_end, False)
        signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        gc.freeze()  # what is loaded by now stays where it is, so the workers go on sharing its pages
        waiting = len(self._workers)
        for worker in self._workers:
            self._start(worker)
        deadline = float("inf")
        while any(worker.pid for worker in self._workers) or not self._stopping:
            events = self._wait()
            if signal.SIGHUP in events:
                self._signal(signal.SIGHUP)
            if signal.SIGTERM in events or signal.SIGINT in events:
                deadline = min(deadline, self._stop())
            if waiting and (waiting := waiting - self._readied()) <= 0:
                waiting = 0
                self._ready()
            if self._reap():
                deadline = min(deadline, self._stop())
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            self._restart()
        return self._status

    def _wait(self) -> bytes:
        readable, _, _ = select.select([self._wakeup, self._news], [], [], 0.5)
        return os.read(self._wakeup, 512) if self._wakeup in readable else b""

    def _readied(self) -> int:
        readable, _, _ = select.select([self._news], [], [], 0)
        return len(os.read(self._news, 512)) if readable else 0

    def _start(self, worker: _Worker) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        worker.started = time.monotonic()
        worker.again_at = 0.0
        worker.pid = os.fork()
        if worker.pid == 0:
            self._become(worker.index)

    def _become(self, index: int) -> None:
        """The child: never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it has a handler of its own; the default would end it
            for end in (self._alive_end, self._news, self._wakeup, self._wakeup_end):
                os.close(end)
            status = self._run(index, self._alive, self._tell)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _tell(self) -> None:
        os.write(self._news_end, b"r")

    def _reap(self) -> bool:
        """Whether a worker told that it cannot run."""
        hopeless = False
        for worker in self._workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            worker.pid = 0
            now = time.monotonic()
            worker.again_at = now + (PAUSE if now - worker.started < QUICK else 0.0)
            if os.waitstatus_to_exitcode(status) == COULD_NOT_START:
                self._status, hopeless = 1, True
            elif not self._stopping:
                log.warning("worker %d ended (%s), starting it again", worker.index, _how(status))
        return hopeless

    def _restart(self) -> None:
        for worker in self._workers:
            if not worker.pid and not self._stopping and time.monotonic() >= worker.again_at:
                self._start(worker)

    def _stop(self) -> float:
        self._stopping = True
        self._leave()
        self._signal(signal.SIGTERM)
        return time.monotonic() + self._patience

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"status {code}" if code >= 0 else f"signal {-code}"
