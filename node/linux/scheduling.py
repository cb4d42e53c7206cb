"""How the kernel is to treat a process: sched_setattr(2), ioprio_set(2), personality(2)."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_SCHED_SETATTR, _IOPRIO_SET, _PERSONALITY = (
    (314, 251, 135) if os.uname().machine == "x86_64" else (274, 30, 92)
)
RESET_ON_FORK = 1


def _call(number: int, what: str, *arguments: object) -> None:
    if _libc.syscall(ctypes.c_long(number), *arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def set_scheduler(
    policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int
) -> None:
    """Of the calling thread. Raises OSError."""
    attributes = struct.pack("=IIQiIQQQ", 48, policy, flags, nice, priority, runtime, deadline, period)
    _call(_SCHED_SETATTR, "sched_setattr", ctypes.c_int(0), attributes, ctypes.c_uint(0))


def set_io_priority(priority: int) -> None:
    """Of the calling process: class << 13 | priority. Raises OSError."""
    _call(_IOPRIO_SET, "ioprio_set", ctypes.c_int(1), ctypes.c_int(0), ctypes.c_int(priority))


def set_personality(domain: int) -> None:
    """Of the calling process and all it executes. Raises OSError."""
    _call(_PERSONALITY, "personality", ctypes.c_ulong(domain))
