"""Staying with a process: signals go on to it, its terminal is ours, its exit status becomes ours."""

from __future__ import annotations

import fcntl
import os
import select
import termios

from node.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from node.runtime.oci.parent import Child
else:
    import _signal

_KEPT = frozenset((_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGWINCH,
                   _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGABRT, _signal.SIGTRAP,
                   _signal.SIGURG))
_CHUNK = 32 * 1024


def adopt() -> None:
    """Before the fork: orphans of a container without a pid namespace come to us."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def listen() -> int:
    """From here on signals do nothing to us and wait in the returned descriptor for `attend`: so nothing that comes
    while the process is being born is lost."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in range(1, _signal.NSIG):
        if number not in _KEPT:
            try:
                _signal.signal(number, _nothing)
            except (OSError, ValueError):
                continue  # 32 and 33 are libc's
    _signal.signal(_signal.SIGWINCH, _nothing)
    _signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def attend(child: Child, signals: int) -> int:
    """Until it has ended. Its exit status, 128 and the number for a signal."""
    pidfd = os.pidfd_open(child.pid)
    terminal = _Terminal(child.console) if child.console >= 0 else None
    try:
        _relay(pidfd, signals, terminal)
    finally:
        if terminal is not None:
            terminal.close()
    _, status = os.waitpid(child.pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _nothing(_number: int, _frame: object) -> None:
    return


def _relay(pidfd: int, signals: int, terminal: _Terminal | None) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(signals, select.POLLIN)
    if terminal is not None:
        terminal.watch(poll)
    while True:
        for fd, events in poll.poll():
            if fd == pidfd:
                if terminal is not None:
                    terminal.drain()
                return
            if fd == signals:
                _pass_on(pidfd, os.read(signals, 4096), terminal)
            elif terminal is not None:
                terminal.handle(fd, events, poll)


def _pass_on(pidfd: int, numbers: bytes, terminal: _Terminal | None) -> None:
    for number in numbers:
        if number == _signal.SIGWINCH:
            if terminal is not None:
                terminal.resize()
            continue
        try:
            _signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return


class _Terminal:
    """The master of the container's terminal, between our own standard input and output."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._saved = termios.tcgetattr(0) if os.isatty(0) else None
        self._pending = b""
        os.set_blocking(master, False)
        if self._saved is not None:
            _make_raw(self._saved)
            self.resize()

    def watch(self, poll: select.poll) -> None:
        poll.register(self._master, select.POLLIN)
        poll.register(0, select.POLLIN)

    def handle(self, fd: int, events: int, poll: select.poll) -> None:
        if fd == 0:
            data = _read(0)
            if data:
                self._pending += data
            else:
                poll.unregister(0)
        elif events & (select.POLLIN | select.POLLHUP):
            data = _read(self._master)
            if data:
                _write(1, data)
            elif data is not None:
                poll.unregister(self._master)  # the last slave is closed
                return
        if self._pending:
            try:
                self._pending = self._pending[os.write(self._master, self._pending):]
            except BlockingIOError:
                pass
            except OSError:
                self._pending = b""
        if fd == 0 or events & select.POLLOUT:
            poll.modify(self._master, select.POLLIN | (select.POLLOUT if self._pending else 0))

    def drain(self) -> None:
        """What the process wrote before its end."""
        while data := _read(self._master):
            _write(1, data)

    def resize(self) -> None:
        try:
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        except OSError:
            return  # our input is no terminal

    def close(self) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        os.close(self._master)


def _read(fd: int) -> bytes | None:
    """b"" at the end, None when there is nothing now."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # EIO: nobody holds the other side of the terminal


def _write(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data):]
        except OSError:
            return


def _make_raw(saved: list[object]) -> None:
    """cfmakeraw(3); output processing stays as the container's own terminal does it."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = saved
    assert isinstance(iflag, int) and isinstance(oflag, int) and isinstance(cflag, int) and isinstance(lflag, int)
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
               | termios.ICRNL | termios.IXON)
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    oflag &= ~termios.OPOST
    raw: list[object] = [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]
    termios.tcsetattr(0, termios.TCSADRAIN, raw)  # type: ignore[arg-type]
