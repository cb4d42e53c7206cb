"""A parent for one birth (`node.runtime.birth`) that may leave before its child has executed anything.

The two talk over a socket pair, as monitor and child do; only the last word, "go", may come by another way: in a
container that was created and not started the child waits on a socket in the container's folder, to which `start`
connects (`Store`). There the child also says why the command could not be executed.
"""

from __future__ import annotations

import _socket
import os

from node.linux import syscalls
from node.runtime import jsontext
from node.runtime.birth import Sync
from node.runtime.command import CannotExecute
from node.runtime.oci.failure import Failure, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from node.runtime.asking import Agent

_MAX_MESSAGE = 64 * 1024
_MAX_FDS = 16
_MAX_PRESERVED = 1024


def preserved(count: int) -> tuple[int, int]:
    """How many descriptors from 3 on the process gets, and how many of them are a service manager's (LISTEN_FDS).
    Before anything is opened: one that is not there would be taken by something of ours. Raises Failure."""
    text = os.environ.get("LISTEN_FDS", "")
    listening = int(text) if text.isascii() and text.isdecimal() else 0
    if not 0 <= count + listening <= _MAX_PRESERVED:
        raise Failure(f"--preserve-fds: {count} descriptors cannot be passed on")
    for fd in range(3, 3 + count + listening):
        try:
            os.fstat(fd)
        except OSError:
            raise Failure(f"--preserve-fds: descriptor {fd} is not open") from None
    return count + listening, listening


def pair() -> tuple[_socket.socket, _socket.socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


class Line(Sync):
    """The child's end. `door`: a listening socket where the last word comes; None: it comes like the others."""

    def __init__(self, channel: _socket.socket, door: _socket.socket | None) -> None:
        super().__init__(channel)  # type: ignore[arg-type]  # it needs no more of it than this class has
        self._door = door

    def report(self, message: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        if "ready" in message:
            _outlive()
        rights = b"".join(fd.to_bytes(4, "little") for fd in fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
        self._channel.sendmsg([jsontext.dumps(message).encode()], ancillary)

    def wait_for(self, word: bytes) -> None:
        """Until somebody says it; ends the process when there is nobody any more who could."""
        if word == b"go":
            _outlive()  # it may be another process that reported
        if word == b"go" and self._door is not None:
            self._wait_at(self._door)
        elif self._channel.recv(16) != word:
            os._exit(1)

    def _wait_at(self, door: _socket.socket) -> None:
        self._channel.close()
        while True:
            fd, _ = door._accept()  # type: ignore[attr-defined]  # noqa: SLF001 -- socket.accept() without its module
            channel = _socket.socket(fileno=fd)
            if channel.recv(16) == b"go":
                self._channel = channel  # type: ignore[assignment]  # as above
                door.close()
                return
            channel.close()  # a start that was killed in the middle: the next one may come


def _outlive() -> None:
    """Until it is ready a process goes when its parent does; from here on that one may."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)


class Child:
    """A process that is being born: the one that was forked, or the one that it brought forth in its place."""

    def __init__(self, pid: int, channel: _socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.warnings: list[str] = []
        self.agent: Agent | None = None
        """Who is asked by its filter, if anybody is."""

        self.console = -1
        """The master of its terminal, once it is ready."""

    def tell(self, word: bytes) -> None:
        """Where it is gone it has said why, or has not: `follow` and `executed` find out."""
        try:
            self.channel.send(word)
        except OSError:
            return

    def follow(self, steps: dict[str, Callable[[], None]]) -> None:
        """Until it is ready; `steps`: what is to be done when it reports one of these. Raises Failure with its own
        words when it cannot."""
        while True:
            message, fds = self._hear()
            if message is None:
                raise Failure("unable to start container process: it died before it could run its command"
                              f"{self._fate()}")
            if "error" in message:
                raise Failure(f"unable to start container process: {message['error']}")
            if "pid" in message:
                forked, self.pid = self.pid, int(str(message["pid"]))
                os.waitpid(forked, 0)
            for name in message:
                if name in steps:
                    steps[name]()
            if "ready" in message:
                warnings = message.get("warnings", ())
                assert isinstance(warnings, list)
                self.warnings = [str(warning) for warning in warnings]
                self.console = fds[0] if fds else -1
                return

    def executed(self) -> None:
        """Until its channel closes, which is when it has executed its command. Raises Failure when it could not."""
        message, _ = self._hear()
        if message is not None:
            raise Failure(f"unable to start container process: {message.get('error')}")

    def _hear(self) -> tuple[dict[str, object] | None, list[int]]:
        """What it says that is not of its filter's agent."""
        while True:
            message, fds = receive(self.channel)
            if message is None or not ("asking" in message or "listener" in message):
                return message, fds
            try:
                if self.agent is None:
                    raise OSError("seccomp: there is no agent to ask")
                if "asking" in message:
                    self.agent.expect(fds[0])
                else:
                    self.agent.give(self.pid, int(str(message["listener"])), "created")
            except OSError as error:
                os.kill(self.pid, 9)  # without an agent it could not go on
                raise Failure(f"unable to start container process: {error.strerror or error}") from error

    def kill(self) -> None:
        for act in (lambda: os.kill(self.pid, 9), lambda: os.waitpid(self.pid, 0)):
            try:
                act()
            except (ProcessLookupError, ChildProcessError):
                continue

    def _fate(self) -> str:
        """A memory limit ends it with SIGKILL, a filter that forbids what even execve needs with SIGSYS."""
        pid, result = os.waitpid(self.pid, os.WNOHANG)
        return f" (signal {os.WTERMSIG(result)})" if pid and os.WIFSIGNALED(result) else ""


def fork(birth: Callable[[Line], None], keep: Collection[int], door: _socket.socket | None = None) -> Child:
    """`keep`: descriptors that `birth` needs, beside the standard three. Raises OSError."""
    ours, theirs = pair()
    pid = os.fork()
    if pid == 0:
        _be(Line(theirs, door), birth, {0, 1, 2, theirs.fileno(), *keep, *([] if door is None else [door.fileno()])})
    theirs.close()
    return Child(pid, ours)


def _be(line: Line, birth: Callable[[Line], None], keep: set[int]) -> None:
    """Never returns: a copy of the command must not go on as a second one."""
    try:
        syscalls.close_all_but(keep)
        birth(line)
    except CannotExecute as error:
        _say(line, {"error": error.message, "kind": error.kind})
    except BaseException as error:
        _say(line, {"error": reason(error), "kind": "other"})
    finally:
        os._exit(1)


def _say(line: Line, message: dict[str, object]) -> None:
    try:
        line.report(message)
    except OSError:
        return


def receive(channel: _socket.socket) -> tuple[dict[str, object] | None, list[int]]:
    """One message and its descriptors; None at the end."""
    try:
        data, ancillary, _, _ = channel.recvmsg(_MAX_MESSAGE, _socket.CMSG_SPACE(4 * _MAX_FDS))
    except ConnectionResetError:
        return None, []
    fds = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += [int.from_bytes(payload[at:at + 4], "little") for at in range(0, len(payload) - 3, 4)]
    for fd in fds:
        os.set_inheritable(fd, False)
    if not data:
        return None, fds
    message = jsontext.loads(data)
    assert isinstance(message, dict)
    return message, fds
