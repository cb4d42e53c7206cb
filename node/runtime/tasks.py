"""One process under a monitor: forked, waited for, its streams held. The container's own and its execs are alike."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
from abc import ABC, abstractmethod

from node.linux import syscalls
from node.runtime.birth import Stdio, Sync
from node.runtime.command import CannotExecute
from node.runtime.logs import timestamp
from node.runtime.poller import READ, Poller
from node.runtime.streams import PIPE_SIZE, Streams
from node.runtime.wire import STDERR, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from node.runtime.asking import Agent
    from node.runtime.logchoice import Log

    Birth = Callable[[Sync, Stdio | None], None]

F_SETPIPE_SZ = 1031
DIED = "the process died before it could run its command"


def nothing(_report: dict[str, object]) -> None:
    return


class Task(ABC):
    """Born, ready (all but executed), started (executed) or failed, ended. How it is born is a subclass' affair:
    `Forked` here, `Commanded` of node.runtime.foreign.

    `failure` says why the command was not executed: {"error", "kind"}. It is whole when `on_ended` is called, and a
    task that failed ends right away.
    """

    def __init__(self, poller: Poller, log: Log | None, *, tty: bool, stdin: bool, stdin_once: bool) -> None:
        self._poller = poller
        self._wants_stdin = stdin
        self.streams = Streams(poller, log, tty=tty, stdin_once=stdin_once)
        self.pid = 0
        self.pidfd = -1
        self.status: dict[str, object] | None = None
        self.failure: dict[str, object] | None = None
        self.started = False
        self.on_ready: Callable[[dict[str, object]], None] = nothing
        self.on_started: Callable[[], None] = lambda: None
        self.on_ended: Callable[[], None] = lambda: None

    @property
    def making(self) -> bool:
        """Whether a process is at work that makes another, which will be ours and must not be reaped as a stranger."""
        return False

    def signal(self, number: int) -> None:
        """Raises ProcessLookupError when it is gone; a pidfd never hits a stranger that got the same number."""
        if self.pidfd < 0:
            raise ProcessLookupError(errno.ESRCH, "no such process")
        signal.pidfd_send_signal(self.pidfd, number)

    def finish(self) -> None:
        """Kill it and wait for its end."""
        while self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
            self._on_end(self.pidfd, READ)

    def _pipes(self) -> tuple[Stdio, int, dict[int, int]]:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        for fd in (out_read, err_read):
            try:
                fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
            except OSError:
                continue  # the user's pipe quota is used up: a smaller pipe is only slower
        in_read, in_write = os.pipe2(os.O_CLOEXEC) if self._wants_stdin else (-1, -1)
        return Stdio(in_read, out_write, err_write), in_write, {out_read: STDOUT, err_read: STDERR}

    def _take_master(self, payload: bytes) -> None:
        """The first of the descriptors that came is a terminal's master."""
        fds = array.array("i")
        fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
        for fd in fds:
            os.set_inheritable(fd, False)
        for fd in fds[1:]:
            os.close(fd)
        self.streams.connect(fds[0], {fds[0]: STDOUT})

    @abstractmethod
    def tell(self, word: bytes) -> None:
        """Give leave to go on; b"go" is the last. Raises OSError when it is gone."""

    @abstractmethod
    def _on_end(self, _fd: int, _events: int) -> None:
        """The descriptor of its process is readable."""

    def _conclude(self, code: int) -> None:
        """Its process is reaped."""
        if self.pidfd >= 0:
            self._poller.forget(self.pidfd)
            os.close(self.pidfd)
        self.pidfd = -1
        self.status = {"exit_code": code, "finished_at": timestamp()}
        self.on_ended()


class Forked(Task):
    """A fork of the monitor that becomes what it is to be by `node.runtime.birth`."""

    def __init__(self, poller: Poller, log: Log | None, *, tty: bool, stdin: bool, stdin_once: bool) -> None:
        super().__init__(poller, log, tty=tty, stdin=stdin, stdin_once=stdin_once)
        self._leave = False
        self._outside = False
        self._sync: socket.socket | None = None
        self.agent: Agent | None = None
        """Who is asked by the filter, if anybody is."""

    def fork(self, birth: Birth, keep: Collection[int] = (), *, outside: bool = False,
             make: Callable[[], int] = os.fork) -> None:
        """`keep`: descriptors that `birth` needs. `outside`: what is forked gives birth to the task itself, our child
        too, and says so by its report. `make`: forks. Raises OSError."""
        self._outside = outside
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stdio, stdin, outputs = (None, -1, {}) if self.streams.tty else self._pipes()
        given = {fd for fd in stdio.fds if fd >= 0} if stdio is not None else set()
        try:
            pid = make()
        except OSError:
            for fd in {*given, stdin, *outputs} - {-1}:
                os.close(fd)
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            _child(theirs, birth, stdio, {*given, *keep})
        theirs.close()
        for fd in given:
            os.close(fd)
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._sync = ours
        if not self.streams.tty:
            self.streams.connect(stdin, outputs)
        ours.setblocking(False)
        self._poller.watch(ours.fileno(), READ, self._on_sync)
        self._poller.watch(self.pidfd, READ, self._on_end)

    def tell(self, word: bytes) -> None:
        """Give the child leave to go on; b"go" is the last. Raises OSError when it is gone."""
        if self._sync is None:
            raise ProcessLookupError(errno.ESRCH, "the process is gone")
        self._leave = self._leave or word == b"go"
        self._sync.send(word)

    def _on_sync(self, _fd: int, _events: int) -> None:
        assert self._sync is not None
        try:
            data, ancillary, _flags, _address = self._sync.recvmsg(64 * 1024, 1024)
        except (BlockingIOError, ConnectionResetError):
            return  # reset: it went without reading what we said; what it said is still to be read
        rights = [payload for level, kind, payload in ancillary
                  if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS]
        if data:
            report = json.loads(data)
            if "asking" in report or "listener" in report:
                self._ask(report, rights)
                return
            for payload in rights:
                self._take_master(payload)
            if self._outside and "pid" in report:
                self._hand_over(report["pid"])
            if "error" in report:
                self.failure = self.failure or report
            elif "ready" in report:
                self.on_ready(report)
            return
        self._close_sync()
        # The channel closes at execve. A child that fails says so first; one that is killed before it can was either
        # never given leave, or has an exit status that says as much.
        if self.failure is None and self._leave:
            self.started = True
            self.on_started()
        elif self.failure is None:
            self.failure = {"error": DIED, "kind": "other"}

    def _ask(self, report: dict[str, object], rights: list[bytes]) -> None:
        """The filter has an agent (`asking`). Without one the process could not go on: it ends."""
        if self.failure is not None:
            return  # it has not died of it yet
        try:
            if self.agent is None:
                raise OSError(errno.ENOENT, "seccomp: there is no agent to ask")
            if "asking" in report:
                self.agent.expect(int.from_bytes(rights[0][:4], "little"))
            else:
                self.agent.give(self.pid, int(str(report["listener"])), "created")
        except OSError as error:
            self.failure = {"error": error.strerror or str(error), "kind": "other"}
            self.signal(signal.SIGKILL)

    def _hand_over(self, pid: int) -> None:
        """From the process that prepared it to the task's own. The new descriptor is opened first: under the old one's
        number an event that is still to be handled would be taken for its end."""
        old, self.pid, self.pidfd = self.pidfd, pid, os.pidfd_open(pid)
        self._outside = False
        self._poller.forget(old)
        os.waitid(os.P_PIDFD, old, os.WEXITED)
        os.close(old)
        self._poller.watch(self.pidfd, READ, self._on_end)

    def _close_sync(self) -> None:
        if self._sync is not None:
            self._poller.forget(self._sync.fileno())
            self._sync.close()
            self._sync = None

    def _on_end(self, _fd: int, _events: int) -> None:
        if self._outside and self._sync is not None:
            known = self.pid
            self._on_sync(self._sync.fileno(), READ)
            if self.pid != known:
                return
            # It went without a word. Should it have had a child, that one waits for leave and goes when we close.
            self._close_sync()
            self.failure = self.failure or {"error": DIED, "kind": "other"}
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return  # an event of a descriptor that had this number before
        # A short-lived command may have executed and ended before its channel was read: read what it holds. The
        # other end is closed, since nobody but the child ever had it.
        while self._sync is not None:
            self._on_sync(self._sync.fileno(), READ)
        code = result.si_status
        if result.si_code != os.CLD_EXITED:
            code += 128
            if self.failure is not None and self.failure["error"] == DIED:
                # A filter that forbids what even execve needs ends it with SIGSYS, a memory limit with SIGKILL.
                self.failure["error"] = f"{DIED}: signal {result.si_status}"
        self._conclude(code)


def _child(channel: socket.socket, birth: Birth, stdio: Stdio | None, keep: set[int]) -> None:
    """Never returns: the copy of the monitor must not go on as a second monitor."""
    sync = Sync(channel)
    try:
        # The monitor's own descriptors go at once: while this process waits for its start, a copy of another's stdin
        # would keep that one from ending.
        syscalls.close_all_but({0, 1, 2, channel.fileno(), *keep})
        birth(sync, stdio)
    except CannotExecute as error:
        _report(sync, {"error": error.message, "kind": error.kind})
    except BaseException as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, OSError) and error.filename:
            text = f"{os.fsdecode(error.filename)}: {text}"
        _report(sync, {"error": text or type(error).__name__, "kind": "other"})
    finally:
        os._exit(127)


def _report(sync: Sync, message: dict[str, object]) -> None:
    try:
        sync.report(message)
    except OSError:
        return
