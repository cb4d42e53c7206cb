"""This side of an attached stream: raw mode, the window's size, signals, and the bytes in both directions."""

import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from node.api.detach import DetachKeys
from node.cli.frames import Frames
from node.client import Hijacked
from ocispec.errors import FailedPrecondition, SeawallError

CHUNK = 64 * 1024
# What the terminal, the kernel or Python itself send for reasons of their own is not the container's affair.
_NOT_PROXIED = frozenset({
    signal.SIGCHLD, signal.SIGPIPE, signal.SIGWINCH, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP,
    signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL,
})  # fmt: skip


class NoTerminal(FailedPrecondition):
    """`-t` with input that is no terminal."""


def check_tty(*, tty: bool, interactive: bool) -> None:
    """Raises NoTerminal, with Docker's words."""
    if tty and interactive and not sys.stdin.isatty():
        raise NoTerminal("the input device is not a TTY")


@contextmanager
def raw_mode(*, wanted: bool) -> Iterator[None]:
    """Keys as they are typed, not lines; put back however the block ends."""
    if not (wanted and sys.stdin.isatty()):
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    # At once, without the flush that is setraw's default: what was typed ahead is for the container.
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def resized(tell: Callable[[int, int], object]) -> Iterator[None]:
    """`tell(height, width)` now and whenever the window changes. That it cannot be told (the process has just ended)
    is no reason to fail."""
    if not sys.stdout.isatty():
        yield
        return

    def told(_number: int = 0, _frame: FrameType | None = None) -> None:
        with suppress(OSError, SeawallError):
            size = os.get_terminal_size(sys.stdout.fileno())
            tell(size.lines, size.columns)

    with handled({signal.SIGWINCH: told}):
        told()
        yield


@contextmanager
def proxied(send: Callable[[str], object]) -> Iterator[None]:
    """`send(name)` for every signal this process gets; a container that has ended takes none."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with suppress(SeawallError):
            send(signal.Signals(number).name)

    catchable = [number for number in signal.Signals if number not in _NOT_PROXIED]
    with handled(dict.fromkeys(catchable, pass_on)):
        yield


@contextmanager
def handled(handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for number, handler in handlers.items():
            before = signal.signal(number, handler)
            stack.callback(signal.signal, number, before if before is not None else signal.SIG_DFL)
        yield


class Attachment:
    """The bytes between this process's standard streams and a container's."""

    def __init__(self, stream: Hijacked, *, stdin: bool, keys: DetachKeys | None) -> None:
        """`keys`: of a terminal; None: nothing typed means anything to us."""
        self._stream = stream
        self._stdin = stdin
        self._keys = keys
        self._frames = Frames(multiplexed=stream.multiplexed)

    def run(self) -> bool:
        """Until the other side ends (False) or the detach keys are typed (True)."""
        self._show(self._stream.leftover)
        connection = self._stream.socket
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if self._stdin:
            poll.register(sys.stdin.fileno(), select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if connection.fileno() in ready:
                data = self._receive(connection)
                if not data:
                    return False
                self._show(data)
            if self._stdin and sys.stdin.fileno() in ready:
                data = _read_stdin()
                if data and self._send(connection, data):
                    return True
                if not data:
                    poll.unregister(sys.stdin.fileno())
                    self._stdin = False
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)

    def _send(self, connection: socket.socket, data: bytes) -> bool:
        detached = False
        if self._keys is not None:
            data, detached = self._keys.feed(data)
        # A process that reads no more does not end the output.
        with suppress(ConnectionError):
            connection.sendall(data)
        return detached

    def _show(self, data: bytes) -> None:
        for number, part in self._frames.feed(data):
            write_all(sys.stderr.fileno() if number == 2 else sys.stdout.fileno(), part)

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        try:
            return connection.recv(CHUNK)
        except ConnectionError:
            return b""


def _read_stdin() -> bytes:
    try:
        return os.read(sys.stdin.fileno(), CHUNK)
    except OSError:
        # EIO: our terminal has gone.
        return b""


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
