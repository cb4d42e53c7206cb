"""System calls that Python's standard library does not offer, one thin function each.

Every function raises OSError with the kernel's errno and the name of the call; none takes a path apart or decides
anything. Numbers are those of x86_64 and aarch64, which agree for every call added since 5.0.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # signal itself takes enum along, 3 ms of a start

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
CLONE_NEWTIME = 0x80
CLONE_PARENT = 0x8000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 32, 4096, 8192, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000

RESOLVE_NO_XDEV = 1
RESOLVE_NO_MAGICLINKS = 2
RESOLVE_NO_SYMLINKS = 4
RESOLVE_BENEATH = 8
RESOLVE_IN_ROOT = 16

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR__ATIME, MOUNT_ATTR_RELATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME = 0x70, 0, 0x10, 0x20
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_IDMAP = 0x80, 0x200000, 0x100000

PROC_SUPER_MAGIC = 0x9FA0
NS_GET_USERNS, NS_GET_NSTYPE = 0xB701, 0xB703

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME = 1, 4, 15
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_FSPICK, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 433, 436, 437, 442
_FSPICK_CLOEXEC, _FSPICK_EMPTY_PATH, _FSCONFIG_CMD_RECONFIGURE = 1, 8, 7
_PIVOT_ROOT, _KEYCTL, _GETCWD, _RT_SIGACTION, _CLONE = (
    (155, 250, 79, 13, 56) if os.uname().machine == "x86_64" else (41, 219, 17, 134, 220)
)
_BUSY_LOOKUPS = 64


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(result)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def fork_sibling() -> int:
    """clone(2) with CLONE_PARENT: the child is our parent's, not ours. 0 in it, which is a copy without Python's own
    care for forks: single-threaded processes only, and on the way to execve."""
    flags = ctypes.c_ulong(CLONE_PARENT | signal.SIGCHLD)
    return _checked(_syscall(ctypes.c_long(_CLONE), flags, None, None, None, None), "clone")


def fork_first() -> int:
    """clone(2) with CLONE_NEWPID: the child is the first of a new pid namespace, and we go on in ours: whoever is root
    in a user namespace alone could not come back to the host's (setns(2)). 0 in it; like `fork_sibling`'s."""
    flags = ctypes.c_ulong(CLONE_NEWPID | signal.SIGCHLD)
    return _checked(_syscall(ctypes.c_long(_CLONE), flags, None, None, None, None), "clone")


def setns(fd: int, kind: int) -> None:
    """setns(2); `fd` is of a namespace, or a pidfd, then `kind` may name several."""
    _checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). An empty `fstype` or `data` is NULL."""
    _checked(_libc.mount(os.fsencode(source) or None, os.fsencode(target), fstype.encode() or None,
                         ctypes.c_ulong(flags), os.fsencode(data) or None), f"mount {fstype or source or target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"umount {target}")


def setfsuid(uid: int) -> None:
    """setfsuid(2), which says nothing of a failure: asked again it does. Raises OSError."""
    _set_file_id(_libc.setfsuid, uid, "setfsuid")


def setfsgid(gid: int) -> None:
    """setfsgid(2), as `setfsuid`."""
    _set_file_id(_libc.setfsgid, gid, "setfsgid")


def _set_file_id(call: Callable[[object], int], wanted: int, what: str) -> None:
    call(ctypes.c_uint(wanted))
    if call(ctypes.c_uint(0xFFFF_FFFF)) & 0xFFFF_FFFF != wanted:
        raise OSError(errno.EPERM, f"{what} {wanted}: {os.strerror(errno.EPERM)}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _checked(_syscall(ctypes.c_long(_PIVOT_ROOT), os.fsencode(new), os.fsencode(old)), "pivot_root")


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); O_CLOEXEC is always added.

    A restricted lookup answers EAGAIN when something was renamed anywhere while it met a "..": it is tried again.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_BUSY_LOOKUPS):
        result = _syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(directory), os.fsencode(path), ctypes.byref(how),
                          ctypes.c_size_t(ctypes.sizeof(how)))
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _checked(result, f"open {path}")


def open_tree(directory: int, path: str, flags: int) -> int:
    """open_tree(2): with OPEN_TREE_CLONE a detached copy of the mount, which nobody can see yet."""
    return _checked(_syscall(ctypes.c_long(_OPEN_TREE), ctypes.c_int(directory), os.fsencode(path),
                             ctypes.c_uint(flags | OPEN_TREE_CLOEXEC)), f"open_tree {path}")


def move_mount(source: int, target: int) -> None:
    """move_mount(2) of a detached mount onto an opened place: two descriptors, no path."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _checked(_syscall(ctypes.c_long(_MOVE_MOUNT), ctypes.c_int(source), b"", ctypes.c_int(target), b"",
                      ctypes.c_uint(flags)), "move_mount")


class _MountAttr(ctypes.Structure):
    _fields_ = (("attr_set", ctypes.c_uint64), ("attr_clr", ctypes.c_uint64), ("propagation", ctypes.c_uint64),
                ("userns_fd", ctypes.c_uint64))


def mount_setattr(
    fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False, userns: int = 0
) -> None:
    """mount_setattr(2) on an opened mount; `userns`: a user namespace, for MOUNT_ATTR_IDMAP."""
    attr = _MountAttr(set_, clear, propagation, userns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _checked(_syscall(ctypes.c_long(_MOUNT_SETATTR), ctypes.c_int(fd), b"", ctypes.c_uint(flags), ctypes.byref(attr),
                      ctypes.c_size_t(ctypes.sizeof(attr))), "mount_setattr")


def new_mount(fstype: str, options: list[tuple[str, str | None]], attributes: int = 0, source: str = "") -> int:
    """A detached mount of a new file system instance: fsopen(2), fsconfig(2) for each option, fsmount(2). `source` is
    what mountinfo names it, or the device it lies on.

    An option without a value is a flag. Raises OSError naming the option that the file system refused.
    """
    context = _checked(_syscall(ctypes.c_long(_FSOPEN), fstype.encode(), ctypes.c_uint(FSOPEN_CLOEXEC)),
                       f"mount {fstype}")
    try:
        for name, value in (*((("source", source),) if source else ()), *options):
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            _fsconfig(context, command, name.encode(), None if value is None else os.fsencode(value),
                      f"mount {fstype}: option {name}")
        _fsconfig(context, FSCONFIG_CMD_CREATE, None, None, f"mount {fstype}")
        return _checked(_syscall(ctypes.c_long(_FSMOUNT), ctypes.c_int(context), ctypes.c_uint(FSMOUNT_CLOEXEC),
                                 ctypes.c_uint(attributes)), f"mount {fstype}")
    finally:
        os.close(context)


def reconfigure(place: int, options: list[tuple[str, str | None]]) -> None:
    """Change a mounted file system's own options (fspick(2)); `place` is its root. Raises OSError naming the option."""
    flags = _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH
    context = _checked(_syscall(ctypes.c_long(_FSPICK), ctypes.c_int(place), b"", ctypes.c_uint(flags)), "remount")
    try:
        for name, value in options:
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            _fsconfig(context, command, name.encode(), None if value is None else os.fsencode(value),
                      f"remount: option {name}")
        _fsconfig(context, _FSCONFIG_CMD_RECONFIGURE, None, None, "remount")
    finally:
        os.close(context)


def _fsconfig(context: int, command: int, key: bytes | None, value: bytes | None, what: str) -> None:
    _checked(_syscall(ctypes.c_long(_FSCONFIG), ctypes.c_int(context), ctypes.c_uint(command), key, value,
                      ctypes.c_int(0)), what)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor, which closes at execve."""
    return _checked(_syscall(ctypes.c_long(438), ctypes.c_int(pidfd), ctypes.c_int(number), ctypes.c_uint(0)),
                    "pidfd_getfd")


def syncfs(fd: int) -> None:
    """syncfs(2): everything of the file system that holds `fd` is on disk."""
    _checked(_libc.syncfs(ctypes.c_int(fd)), "syncfs")


def prctl(option: int, value: int = 0) -> int:
    """prctl(2) with one argument."""
    return _checked(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0),
                                ctypes.c_ulong(0)), "prctl")


def set_name(name: str) -> None:
    """What ps shows as the command (15 bytes)."""
    _libc.prctl(ctypes.c_int(PR_SET_NAME), name.encode()[:15], 0, 0, 0)


def close_all_but(kept: set[int]) -> None:
    """close_range(2) of everything else."""
    first = 0
    for fd in sorted(kept):
        if fd > first:
            _close_range(first, fd - 1, 0)
        first = fd + 1
    _close_range(first, 0xFFFF_FFFF, 0)


def close_on_exec_from(first: int) -> None:
    """close_range(2) with CLOSE_RANGE_CLOEXEC: every descriptor from `first` on closes at execve."""
    _close_range(first, 0xFFFF_FFFF, 4)


def _close_range(first: int, last: int, flags: int) -> None:
    _checked(_syscall(ctypes.c_long(_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(flags)),
             "close_range")


def getcwd() -> str:
    """getcwd(2) itself: "(unreachable)/…" for a folder outside this process's root, where libc's looks for it."""
    buffer = ctypes.create_string_buffer(4096)
    _checked(_syscall(ctypes.c_long(_GETCWD), buffer, ctypes.c_size_t(len(buffer))), "getcwd")
    return os.fsdecode(buffer.value)


class _Statfs(ctypes.Structure):
    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_long * 31))


def filesystem_type(fd: int) -> int:
    """The magic number of the file system behind a descriptor (fstatfs(2))."""
    buffer = _Statfs()
    _checked(_libc.fstatfs(ctypes.c_int(fd), ctypes.byref(buffer)), "fstatfs")
    return int(buffer.type)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    text = name.encode()
    _checked(_libc.sethostname(text, ctypes.c_size_t(len(text))), "sethostname")


def join_new_session_keyring() -> None:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): the keys of whoever started us stay behind."""
    _checked(_syscall(ctypes.c_long(_KEYCTL), ctypes.c_int(1), None), "keyctl")


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    text = name.encode()
    _checked(_libc.setdomainname(text, ctypes.c_size_t(len(text))), "setdomainname")


def reset_signals() -> None:
    """Empty the signal mask of this thread, and give every signal its default action.

    Python ignores SIGPIPE and an ignored signal stays ignored across execve(2): a container's `yes | head` would
    never end.
    """
    default = bytes(32)  # struct kernel_sigaction: SIG_DFL, no flags, no restorer, an empty mask
    for number in range(1, signal.NSIG):
        # The call itself and not libc's wrapper, which refuses 32 and 33: make ignores those for what it starts.
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            _checked(_syscall(ctypes.c_long(_RT_SIGACTION), ctypes.c_int(number), default, None, ctypes.c_size_t(8)),
                     f"sigaction {number}")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
