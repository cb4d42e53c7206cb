"""Being told that a folder's files changed, by a file descriptor that an event loop can watch. See inotify(7)."""

import ctypes
import os

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE_SELF = 0x2, 0x80, 0x100, 0x400
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


def watch(folder: str, mask: int = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF) -> int:
    """A non-blocking descriptor, readable when something in `folder` changed. The caller closes it. Raises OSError."""
    descriptor = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if descriptor < 0:
        raise _error(folder)
    if _libc.inotify_add_watch(descriptor, os.fsencode(folder), mask) < 0:
        error = _error(folder)
        os.close(descriptor)
        raise error
    return int(descriptor)


def drain(descriptor: int) -> None:
    """Take all events that wait; what they say does not matter to who looks again anyway."""
    try:
        while os.read(descriptor, 65536):
            pass
    except BlockingIOError:
        pass


def _error(folder: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), folder)
