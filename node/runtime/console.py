"""Terminal and standard streams of a process that is being born."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios

from node.linux import syscalls as sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace
    from node.runtime.processspec import Process

TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
PTMX, NULL = os.makedev(5, 2), os.makedev(1, 3)


class Stdio:
    """Descriptors for the process's 0 (-1: the container's null device), 1 and 2."""

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self.fds = (stdin, stdout, stderr)


def open_terminal(process: Process, *, bind: bool) -> tuple[int, int]:
    """(master, slave) of a new pty of the container's own devpts.

    The slave comes from the master by TIOCGPTPEER: no path that the container could swap (CVE-2025-52565).
    """
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
    status = os.fstat(master)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != PTMX:
        raise OSError(errno.ENOTTY, "/dev/pts/ptmx in the container is no pseudo-terminal")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    rows, columns = process.console
    if rows and columns:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    if bind:
        try:
            node = os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
            os.close(node)
        except OSError:
            return master, slave
        place = os.open("/dev/console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        copy = sys.open_tree(slave, "", sys.OPEN_TREE_CLONE | sys.AT_EMPTY_PATH)
        sys.move_mount(copy, place)
        os.close(copy)
        os.close(place)
    return master, slave


def take(
    process: Process, stdio: Stdio | None, console: tuple[int, int] | None, *, lead: bool, given_away: bool
) -> int | None:
    """Put stdio on 0, 1, 2 and give it to the user. The master of a console is for the monitor."""
    if console is not None:
        slave = console[1]
        if lead:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        fds: tuple[int, int, int] = (slave, slave, slave)
    else:
        assert stdio is not None
        stdin, stdout, stderr = stdio.fds
        fds = (_no_input() if stdin < 0 else _not_the_hosts(stdin), _not_the_hosts(stdout), _not_the_hosts(stderr))
    for number, fd in enumerate(fds):
        os.dup2(fd, number, inheritable=True)
        status = os.fstat(number)
        ours = console is not None or (stat.S_ISFIFO(status.st_mode) and not given_away)
        if ours and process.uid != status.st_uid:
            os.fchown(number, process.uid, status.st_gid)
    return console[0] if console is not None else None


def _no_input() -> int:
    """The container's own null device. Through the host's, /proc/self/fd/0 would let root in the container change the
    mode or owner of the host's. Where the container has something else there: a pipe that has ended."""
    if (null := _own_null(os.O_RDONLY)) >= 0:
        return null
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(writing)
    return reading


def _not_the_hosts(fd: int) -> int:
    """A stream of a caller's that is the host's null device: the container's own in its place, if there is one."""
    if not _is_null(fd):
        return fd
    null = _own_null(os.O_RDWR)
    return fd if null < 0 else null


def _own_null(access: int) -> int:
    """-1: the container has none."""
    try:
        null = os.open("/dev/null", access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    if _is_null(null):
        os.set_blocking(null, True)
        return null
    os.close(null)
    return -1


def _is_null(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL


def give_away(stdio: Stdio | None, user: UserNamespace, process: Process) -> None:
    """Pipes to the container's user; its root could not, for it does not own them."""
    for fd in () if stdio is None else stdio.fds:
        if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, user.host_uid(process.uid), -1)
