"""Processes of ours that outlive who started them: found by a socket in a folder, or started, one at a time."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

BACKLOG = 16


def connect(folder: Path, name: str, patience: float | None = None) -> socket.socket | None:
    """None where nobody listens. The path goes by a descriptor: a socket's may have 107 bytes only (unix(7)).
    `patience`: seconds that an answer may take. Raises OSError when there is no such folder."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(patience)
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        channel.close()
        raise
    try:
        channel.connect(f"/proc/self/fd/{descriptor}/{name}")
    except OSError:
        channel.close()
        return None
    finally:
        os.close(descriptor)
    return channel


def connect_or_start(folder: Path, name: str, complaints: str, start: Callable[[int, int], None],
                     patience: float | None = None) -> socket.socket | None:  # fmt: skip
    """The one that is there, or a new one; None when that ended at once. A lock on the folder keeps two from being
    started. `start` gets the listening socket and the file called `complaints`, which are closed afterwards. Raises
    OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if (found := connect(folder, name, patience)) is not None:
            return found
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=descriptor)
            listener.bind(f"/proc/self/fd/{descriptor}/{name}")
            listener.listen(BACKLOG)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            told = os.open(complaints, flags, 0o600, dir_fd=descriptor)
            try:
                start(listener.fileno(), told)
            finally:
                os.close(told)
        return connect(folder, name, patience)
    finally:
        os.close(descriptor)
