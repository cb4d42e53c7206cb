"""A finished filter program, handed to the kernel. Small, for it is imported on every way to a new process."""

from __future__ import annotations

import ctypes
import errno
import os

NEW_LISTENER = 8
"""Among the flags: `load` gives the descriptor by which an agent is asked (SCMP_ACT_NOTIFY, seccomp_unotify(2))."""

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS, the kernel's limit for one classic program."""

_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine, 0)
"""Asked at import: a process with the personality LINUX32 hears another name."""

_SET_MODE_FILTER = 1
_INSTRUCTION = 8


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program: bytes, flags: int = 0) -> int:
    """Put this thread, and all it will ever start, under the filter. There is no way back. See seccomp(2).

    The answer is the listener's descriptor (close-on-exec) where `flags` has NEW_LISTENER, and -1 otherwise.

    The thread needs no_new_privs or CAP_SYS_ADMIN. From here on even this interpreter's own calls are filtered: call
    it last before execve. Raises OSError (EACCES without the right, EINVAL for a program the kernel refuses).
    """
    length, rest = divmod(len(program), _INSTRUCTION)
    if rest or not 0 < length <= MAX_INSTRUCTIONS:
        raise OSError(errno.EINVAL, f"not a filter program: {len(program)} bytes")
    libc = ctypes.CDLL(None, use_errno=True)
    argument = _Program(length, program)
    result = libc.syscall(ctypes.c_long(_SECCOMP_CALL), ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(flags),
                          ctypes.byref(argument))
    if flags & NEW_LISTENER and result >= 0:
        return int(result)
    if result == 0:
        return -1
    if result > 0:
        raise OSError(errno.ESRCH, f"seccomp: thread {result} cannot be put under the filter")
    code = ctypes.get_errno()
    raise OSError(code, f"seccomp: {os.strerror(code)}")
