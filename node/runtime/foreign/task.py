"""A process that another runtime makes: the container's own (create, then start) or an exec (at once, detached)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from node.runtime.foreign.command import Command, failure
from node.runtime.poller import READ, Poller
from node.runtime.tasks import DIED, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from node.runtime.logchoice import Log

    End = Callable[[int], None]
    Begin = Callable[[tuple[int, int, int], str, End], Command]
    """Runs the command that makes the process: its stdio, the console's socket or "", and who hears of its end."""


class Commanded(Task):
    def __init__(self, poller: Poller, log: Log | None, *, tty: bool, stdin: bool, stdin_once: bool) -> None:
        super().__init__(poller, log, tty=tty, stdin=stdin, stdin_once=stdin_once)
        self._command: Command | None = None
        self._go: Callable[[], None] = lambda: None
        self._outputs: tuple[int, dict[int, int]] = (-1, {})
        self._console: socket.socket | None = None
        self._console_place: tuple[int, str] | None = None
        self._size = (0, 0)
        self._ended = False
        self._waits = True
        self._terminal = False
        self.explain: Callable[[], dict[str, object]] = lambda: failure(DIED)
        """Why the command that has just ended failed."""

    def make(self, begin: Begin, found: Callable[[], int], *, folder: int, name: str, size: tuple[int, int],
             waits: bool, then: Callable[[], None]) -> None:
        """`found` reads the process's pid when the command has succeeded; `then` is called when it is ours.

        `folder` and `name`: where a console's socket may stand. `waits`: the process does not run until it is started.
        Raises OSError.
        """
        self._size, self._waits = size, waits
        stdio, where = self._prepare(folder, name)
        try:
            self._command = begin(stdio, where, lambda status: self._made(status, found, then))
        finally:
            for fd in set(stdio):
                os.close(fd)
        if not self.streams.tty:
            # What comes before the process runs is the runtime's own noise: nobody reads it yet.
            self.streams.connect(self._outputs[0], {})

    def on_go(self, work: Callable[[], None]) -> None:
        """What leave to go means: for the container's process, the runtime's start."""
        self._go = work

    def tell(self, word: bytes) -> None:
        if word == b"go":
            self._go()

    def run(self, begin: Callable[[End], Command]) -> None:
        """A command about the process that stands ready: the runtime's start."""
        self._command = begin(self._gone)

    @property
    def making(self) -> bool:
        return self._command is not None

    def signal(self, number: int) -> None:
        if self.pidfd < 0 and number == signal.SIGKILL and self.status is None:
            self._give_up()
            return
        super().signal(number)

    def finish(self) -> None:
        if self._command is not None:
            self._command.kill()
        super().finish()
        if self.status is None:
            self._give_up()

    def _give_up(self) -> None:
        if self._command is not None:
            self._command.kill()
        else:
            self.failure = self.failure or failure(DIED)
            self._conclude(128 + signal.SIGKILL)

    # -- the command that makes it

    def _prepare(self, folder: int, name: str) -> tuple[tuple[int, int, int], str]:
        if not self.streams.tty:
            stdio, stdin, outputs = self._pipes()
            self._outputs = (stdin, outputs)
            given, out, err = stdio.fds
            return (_ended_pipe() if given < 0 else given, out, err), ""
        self._console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._console.bind(f"/proc/self/fd/{folder}/{name}")
        self._console_place = (folder, name)
        self._console.listen(1)
        self._console.setblocking(False)
        self._poller.watch(self._console.fileno(), READ, self._on_console)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # By our own /proc entry: a socket's path is bounded to 107 bytes, that of a container's folder is not.
        return (null, null, null), f"/proc/{os.getpid()}/fd/{folder}/{name}"

    def _made(self, status: int, found: Callable[[], int], then: Callable[[], None]) -> None:
        self._command = None
        if self._console is not None and not status:
            self._on_console(self._console.fileno(), READ)
        self._close_console()
        try:
            if status:
                raise _Failed(self.explain())
            if self.streams.tty and not self._terminal:
                raise _Failed(failure("the runtime gave no terminal"))
            self.pid = found()
            self.pidfd = os.pidfd_open(self.pid)
        except (_Failed, OSError, ValueError) as error:
            self.failure = error.failure if isinstance(error, _Failed) else failure(f"the runtime's pid file: {error}")
            self._discard()
            self._conclude(127)
            return
        if not self.streams.tty:
            self._discard_noise()
            self.streams.connect(*self._outputs)
        self._poller.watch(self.pidfd, READ, self._on_end)
        then()

    def _discard_noise(self) -> None:
        """Only of a process that does not run yet: what its command says stays its own."""
        for fd in self._outputs[1] if self._waits else ():
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                while os.read(fd, 64 * 1024):
                    pass

    def _discard(self) -> None:
        if not self.streams.tty:
            for fd in self._outputs[1]:
                os.close(fd)

    def _on_console(self, _fd: int, _events: int) -> None:
        assert self._console is not None
        try:
            channel, _ = self._console.accept()
        except OSError:
            return
        with channel:
            channel.settimeout(5)  # the message is on its way when the connection is
            try:
                _data, ancillary, _flags, _address = channel.recvmsg(4096, socket.CMSG_SPACE(4 * 8))
            except OSError:
                return
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._take_terminal(payload)
        self._close_console()

    def _take_terminal(self, payload: bytes) -> None:
        self._take_master(payload)
        self._terminal = True
        if all(self._size):
            with contextlib.suppress(OSError):
                self.streams.resize(*self._size)

    def _close_console(self) -> None:
        if self._console is not None:
            self._poller.forget(self._console.fileno())
            self._console.close()
            self._console = None
        if self._console_place is not None:
            folder, name = self._console_place
            self._console_place = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    # -- start and end

    def start_running(self) -> None:
        self.started = True
        self.on_started()

    def _gone(self, status: int) -> None:
        """The runtime's start has ended."""
        self._command = None
        if status == 0:
            self.start_running()
        else:
            self.failure = self.explain()
            with contextlib.suppress(ProcessLookupError):
                super().signal(signal.SIGKILL)
        if self._ended:
            self._on_end(self.pidfd, READ)

    def _on_end(self, _fd: int, _events: int) -> None:
        if self._command is not None:
            # A short-lived command: whether it was started is what the runtime's start still has to say.
            self._ended = True
            self._poller.forget(self.pidfd)
            return
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            self._conclude(255)  # a runtime that keeps its processes to itself: nobody tells us the status
            return
        if result is None:
            return
        if not self.started and self.failure is None:
            self.failure = failure(DIED)
        self._conclude(result.si_status + (0 if result.si_code == os.CLD_EXITED else 128))


def _ended_pipe() -> int:
    """Nothing to read: not the host's null device, whose mode a container's root could change through /proc."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(writing)
    return reading


class _Failed(Exception):
    def __init__(self, failure: dict[str, object]) -> None:
        super().__init__(failure)
        self.failure = failure
