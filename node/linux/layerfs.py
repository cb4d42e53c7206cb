"""The few calls that snapshots and unpack workers need of the kernel (mount(2), unshare(2), syncfs(2))."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000
MS_RDONLY = 1
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _check(_libc.mount(source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags),
                       data.encode() or None), f"mount {kind or 'propagation'} on {target}")


def unmount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"umount {target}")


def syncfs(descriptor: int) -> None:
    _check(_libc.syncfs(ctypes.c_int(descriptor)), "syncfs")
