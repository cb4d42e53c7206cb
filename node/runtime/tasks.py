"""One process under a monitor: forked, waited for, its streams held. The container's own and its execs are alike."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
from collections.abc import Callable

from node.linux import syscalls
from node.runtime.birth import Stdio, Sync
from node.runtime.command import CannotExecute
from node.runtime.logs import JsonLog, timestamp
from node.runtime.streams import Streams
from node.runtime.wire import STDERR, STDOUT

PIPE_SIZE = 256 * 1024
F_SETPIPE_SZ = 1031

Born = Callable[[dict[str, object]], None]
Birth = Callable[[Sync, Stdio | None], None]


class Task:
    """`born` is told the child's reports: ready, started, or an error with its kind; `ended` that it is gone."""

    def __init__(
        self, selector: selectors.BaseSelector, log: JsonLog | None, *, tty: bool, stdin: bool, stdin_once: bool
    ) -> None:
        self._selector = selector
        self._wants_stdin = stdin
        self.streams = Streams(selector, log, tty=tty, stdin_once=stdin_once)
        self.pid = 0
        self.pidfd = -1
        self.status: dict[str, object] | None = None
        self.started = False
        self._leave = False
        self._failed = False
        self._sync: socket.socket | None = None
        self._born: Born = lambda _report: None
        self._ended: Callable[[], None] = lambda: None

    def fork(self, birth: Birth, born: Born, ended: Callable[[], None]) -> None:
        """Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stdio, stdin, outputs = (None, -1, {}) if self.streams.tty else self._pipes()
        pid = os.fork()
        if pid == 0:
            _child(Sync(theirs), birth, stdio)
        theirs.close()
        for fd in set(stdio.fds) if stdio is not None else ():
            os.close(fd)
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._sync, self._born, self._ended = ours, born, ended
        if not self.streams.tty:
            self.streams.connect(stdin, outputs)
        ours.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ, self._on_sync)
        self._selector.register(self.pidfd, selectors.EVENT_READ, self._on_end)

    def go(self) -> None:
        """Let the child execute its command. Raises OSError when it is gone."""
        if self._sync is None:
            raise OSError(errno.ESRCH, "the process is gone")
        self._leave = True
        self._sync.send(b"go")

    def signal(self, number: int) -> None:
        """Raises ProcessLookupError when it is gone; a pidfd never hits a stranger that got the same number."""
        if self.pidfd < 0:
            raise ProcessLookupError(errno.ESRCH, "no such process")
        signal.pidfd_send_signal(self.pidfd, number)

    def _pipes(self) -> tuple[Stdio, int, dict[int, int]]:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        for fd in (out_read, err_read):
            try:
                fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
            except OSError:
                continue  # the user's pipe quota is used up: a smaller pipe is only slower
        if self._wants_stdin:
            in_read, in_write = os.pipe2(os.O_CLOEXEC)
        else:
            in_read, in_write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
        return Stdio(in_read, out_write, err_write), in_write, {out_read: STDOUT, err_read: STDERR}

    def _on_sync(self, _fd: int, _mask: int) -> None:
        assert self._sync is not None
        try:
            data, ancillary, _flags, _address = self._sync.recvmsg(64 * 1024, 1024)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []  # the other end was reset
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._take_master(payload)
        if data:
            report = json.loads(data)
            self._failed = self._failed or "error" in report
            self._born(report)
            return
        self._close_sync()
        # The channel closes at execve. A child that fails says so first; one that was killed before it could has
        # an exit status, which says as much.
        if self._leave and not self._failed:
            self.started = True
            self._born({"started": True})
        elif not self._failed:
            self._failed = True
            self._born({"error": "the process died before it could run its command", "kind": "other"})

    def _take_master(self, payload: bytes) -> None:
        fds = array.array("i")
        fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
        for fd in fds:
            os.set_inheritable(fd, False)
        self.streams.connect(fds[0], {fds[0]: STDOUT})

    def _close_sync(self) -> None:
        if self._sync is not None:
            self._selector.unregister(self._sync)
            self._sync.close()
            self._sync = None

    def _on_end(self, _fd: int, _mask: int) -> None:
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        assert result is not None
        if self._sync is not None:
            # A short-lived command may have executed and ended before its channel was read: read what it holds.
            while self._sync is not None:
                self._on_sync(self._sync.fileno(), 0)
        code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        self._selector.unregister(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        self.status = {"exit_code": code, "finished_at": timestamp()}
        self._ended()


def _child(sync: Sync, birth: Birth, stdio: Stdio | None) -> None:
    """Never returns: the copy of the monitor must not go on as a second monitor."""
    try:
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


def become_subreaper(name: str) -> None:
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    syscalls.set_name(name)
