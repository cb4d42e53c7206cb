"""Capabilities: names and numbers, what users write, and putting sets on a process. See capabilities(7).

A process that becomes a container takes three steps, in this order, with other work between them:

1. `drop_bounding(keep)` while it still has CAP_SETPCAP;
2. `keep_across_setuid()`, then setgroups/setgid/setuid;
3. `set_caps(...)`, which also sets the ambient set and ends what step 2 began.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
ALL: tuple[str, ...] = tuple(f"CAP_{name}" for name in _NAMES.split())
"""Every capability, a name's position being its number (linux/capability.h)."""

DEFAULT: tuple[str, ...] = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
    "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
)
"""What a container gets unless told otherwise: Podman's list."""

DOCKER: tuple[str, ...] = (*DEFAULT, "CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE")
"""Docker's: with device nodes, raw packets (forged ones, too) and the host's audit log."""

_libc = ctypes.CDLL(None, use_errno=True)
_NUMBER = {name: number for number, name in enumerate(ALL)}

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_KEEPCAPS = 23, 24, 8
_PR_CAP_AMBIENT, _AMBIENT_RAISE, _AMBIENT_CLEAR = 47, 2, 4
_VERSION_3 = 0x20080522
_CAPSET_CALL = {"x86_64": 126, "aarch64": 91}.get(os.uname().machine, -1)
_CAPGET_CALL = _CAPSET_CALL - 1


class UnknownCapability(ValueError):
    """The user named a capability that Linux, or this kernel, does not have."""


def parse(names: Iterable[str], *, last: int | None = None) -> tuple[str, ...]:
    """What users write (`net_admin`, `CAP_NET_ADMIN`, `ALL`) as names of `ALL`, without repeats, in `ALL`'s order.

    ALL stands for everything up to number `last` (this kernel's last one by default). Raises UnknownCapability.
    """
    highest = last_cap() if last is None else last
    found: set[str] = set()
    for written in names:
        name = written.strip().upper()
        if name in ("ALL", "CAP_ALL"):
            found.update(ALL[: highest + 1])
            continue
        name = name if name.startswith("CAP_") else f"CAP_{name}"
        if name not in _NUMBER:
            raise UnknownCapability(f"unknown capability: {written!r}")
        if _NUMBER[name] > highest:
            raise UnknownCapability(f"this kernel does not have the capability {name}")
        found.add(name)
    return tuple(name for name in ALL if name in found)


def last_cap() -> int:
    """The highest capability number of this kernel that we have a name for."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return min(int(file.read()), len(ALL) - 1)


def drop_bounding(keep: Collection[str]) -> None:
    """Drop all but `keep` from the bounding set: nothing this process ever executes can gain the others.

    Counts up to the kernel's own end, so that capabilities newer than `ALL` go too. A name in `keep` that was not in
    the set is no error: it stays out. Raises OSError (EPERM without CAP_SETPCAP).
    """
    kept = {_NUMBER[name] for name in keep}
    number = 0
    while True:
        try:
            held = _prctl(_PR_CAPBSET_READ, number)
        except OSError as error:
            if error.errno == errno.EINVAL and number:
                return
            raise
        if held and number not in kept:
            _prctl(_PR_CAPBSET_DROP, number)
        number += 1


def keep_across_setuid() -> None:
    """Keep the permitted set when setuid leaves root; `set_caps` turns it off again. execve turns it off as well."""
    _prctl(_PR_SET_KEEPCAPS, 1)


def set_caps(*, effective: Collection[str], permitted: Collection[str], inheritable: Collection[str] = (),
             ambient: Collection[str] = ()) -> None:
    """Set this thread's sets and end `keep_across_setuid`. A capability the process does not have cannot be set.

    Ambient capabilities must be in permitted and inheritable. Raises OSError (EPERM).
    """
    _capset(_mask(effective), _mask(permitted), _mask(inheritable))
    _prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR)
    for name in ambient:
        _prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, _NUMBER[name])
    _prctl(_PR_SET_KEEPCAPS, 0)


def replace_sets(*, effective: Collection[str], permitted: Collection[str], inheritable: Collection[str]) -> None:
    """capset(2) and nothing else. What is no longer permitted and inheritable is no longer ambient either."""
    _capset(_mask(effective), _mask(permitted), _mask(inheritable))


def saved() -> bytes:
    """This thread's effective, permitted and inheritable sets, for `restore`: capget(2)."""
    header, sets = struct.pack("=Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    if _libc.syscall(ctypes.c_long(_CAPGET_CALL), header, sets) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capget: {os.strerror(code)}")
    return sets.raw


def restore(sets: bytes) -> None:
    """What setfsuid(2) or the like has taken from them; what is no longer permitted cannot be had again."""
    header = struct.pack("=Ii", _VERSION_3, 0)
    if _libc.syscall(ctypes.c_long(_CAPSET_CALL), header, sets) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")


def current() -> dict[str, tuple[str, ...]]:
    """This thread's sets by name: inheritable, permitted, effective, bounding, ambient."""
    sets = {"CapInh": "inheritable", "CapPrm": "permitted", "CapEff": "effective", "CapBnd": "bounding",
            "CapAmb": "ambient"}
    found: dict[str, tuple[str, ...]] = {}
    with open("/proc/thread-self/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in sets:
                mask = int(value, 16)
                found[sets[key]] = tuple(name for number, name in enumerate(ALL) if mask >> number & 1)
    return found


def _mask(names: Collection[str]) -> int:
    mask = 0
    for name in names:
        mask |= 1 << _NUMBER[name]
    return mask


def _capset(effective: int, permitted: int, inheritable: int) -> None:
    """Version 3 of capset(2): two structures of 32-bit masks. libc has no wrapper for it."""
    low, high = (tuple(mask >> shift & 0xFFFFFFFF for mask in (effective, permitted, inheritable)) for shift in (0, 32))
    restore(struct.pack("=6I", *low, *high))


def _prctl(option: int, first: int, second: int = 0) -> int:
    zero = ctypes.c_ulong(0)
    result: int = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(first), ctypes.c_ulong(second), zero, zero)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}, {first}): {os.strerror(code)}")
    return result
