"""Seccomp filters: from the OCI runtime-spec object `linux.seccomp` to a loaded BPF program.

`compile_profile` reads the object (runtime-spec, config-linux.md "Seccomp"), `load` hands the program to the kernel.
Compiling is separate because it can be done, and cached, before a container's process exists.

What a profile means, decided as libseccomp-based runtimes decide it where those agree with each other:
- A call's rules are alternatives; the conditions inside one rule must all hold.
- A rule without conditions wins over all rules with conditions; of several, the first one listed counts. Among rules
  with conditions the first one listed that matches counts.
- A rule that does what the default does is no rule. Names that no listed machine has are ignored, so that a profile
  may name the calls of newer kernels.
- Calls newer than every call the profile names answer ENOSYS rather than the default's error: programs then fall back
  to an older call, while EPERM makes them fail. Not where the default lets calls through.
- A program for a machine that is not listed is killed; x32 calls answer ENOSYS where x32 is not listed.
- i386 also has its sockets and System V IPC behind socketcall(2) and ipc(2). A rule for such a call covers that door
  too. Arguments behind it lie in memory, out of a filter's sight: a conditional rule that forbids then forbids
  the call altogether there, and one that allows does not open the door (stricter than libseccomp, which opens it).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping, Sequence

from node.linux import bpf
from node.linux.seccomp_filter import ALLOW, ERRNO, LOG, TRACE, Condition, Rule, Rules, build_filter
from node.linux.seccomp_profile import default_profile

__all__ = ("InvalidProfile", "compile_profile", "default_profile", "filter_flags", "load")

_U64 = 1 << 64
_MAX_ERRNO = 4095
_ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_TRACE": TRACE, "SCMP_ACT_LOG": LOG,
}
_COMPARISONS = ("EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ")
_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}

_NATIVE = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64",)}
_LISTED = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "i386", "SCMP_ARCH_X32": "x32",
           "SCMP_ARCH_AARCH64": "aarch64"}
# Machines a profile may list that we have no numbers for. Their programs are killed like those of any unlisted one.
_OTHER_MACHINES = frozenset(
    f"SCMP_ARCH_{name}" for name in ("ARM", "LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64",
                                     "MIPSEL64N32", "PARISC", "PARISC64", "PPC", "PPC64", "PPC64LE", "RISCV64", "S390",
                                     "S390X", "SH", "SHEB"))

_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_INSTRUCTION = 8


class InvalidProfile(ValueError):
    """The seccomp profile says something impossible, or something Seawall does not do; the text names it."""


def compile_profile(profile: Mapping[str, object], *, arch: str | None = None) -> bytes:
    """Compile a runtime-spec `linux.seccomp` object to a `struct sock_filter` array for `load`.

    `arch` is the kernel's machine name (uname -m), this machine's by default; that machine's own calls are always
    part of the filter, others where the profile lists them. The same input gives the same bytes: cache by content.
    Raises InvalidProfile, also when the filter would be longer than the kernel takes.
    """
    host = arch or os.uname().machine
    if host not in _NATIVE:
        raise InvalidProfile(f"seccomp is not supported on the machine {host!r}")
    for key in ("listenerPath", "listenerMetadata"):
        if profile.get(key):
            raise InvalidProfile(f"seccomp {key} is not supported: notifications to an agent are not implemented")
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), "default")
    rules = _rules_by_name(_list(profile.get("syscalls"), "syscalls"), default)
    machines = _machines(_list(profile.get("architectures"), "architectures"), host)
    try:
        return build_filter(machines, rules, default)
    except bpf.ProgramTooLong as error:
        raise InvalidProfile(f"the seccomp profile is too large: {error}") from None


def filter_flags(profile: Mapping[str, object]) -> int:
    """The profile's `flags` as `load` takes them. Raises InvalidProfile for a flag that is not supported."""
    bits = 0
    for name in _list(profile.get("flags"), "flags"):
        if not isinstance(name, str) or name not in _FLAGS:
            raise InvalidProfile(f"seccomp flag {name!r} is not supported")
        bits |= _FLAGS[name]
    return bits


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program: bytes, flags: int = 0) -> None:
    """Put this thread, and all it will ever start, under the filter. There is no way back. See seccomp(2).

    The thread needs no_new_privs or CAP_SYS_ADMIN. From here on even this interpreter's own calls are filtered: call
    it last before execve. Raises OSError (EACCES without the right, EINVAL for a program the kernel refuses).
    """
    length, rest = divmod(len(program), _INSTRUCTION)
    if rest or not 0 < length <= bpf.MAX_INSTRUCTIONS:
        raise OSError(errno.EINVAL, f"not a filter program: {len(program)} bytes")
    libc = ctypes.CDLL(None, use_errno=True)
    call = _SECCOMP_CALL[os.uname().machine]
    argument = _Program(length, program)
    result = libc.syscall(ctypes.c_long(call), ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(flags),
                          ctypes.byref(argument))
    if result == 0:
        return
    if result > 0:
        raise OSError(errno.ESRCH, f"seccomp: thread {result} cannot be put under the filter")
    code = ctypes.get_errno()
    raise OSError(code, f"seccomp: {os.strerror(code)}")


def _list(value: object, what: str) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InvalidProfile(f"seccomp {what} must be a list")
    return value


def _number(value: object, limit: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise InvalidProfile(f"seccomp {what} must be a number from 0 to {limit - 1}, not {value!r}")
    return value


def _action(name: object, errno_ret: object, what: str) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise InvalidProfile("seccomp action SCMP_ACT_NOTIFY is not supported: there is no agent to ask")
    if not isinstance(name, str) or name not in _ACTIONS:
        raise InvalidProfile(f"unknown seccomp action {name!r} ({what})")
    base = _ACTIONS[name]
    if base not in (ERRNO, TRACE):
        if errno_ret is not None:
            raise InvalidProfile(f"seccomp action {name} takes no errnoRet ({what})")
        return base
    if errno_ret is None:
        return base | errno.EPERM
    return base | _number(errno_ret, (_MAX_ERRNO if base == ERRNO else 0xFFFF) + 1, f"errnoRet of {what}")


def _condition(arg: object, what: str) -> Condition:
    if not isinstance(arg, Mapping):
        raise InvalidProfile(f"an argument condition of {what} must be an object")
    comparison = str(arg.get("op", "")).removeprefix("SCMP_CMP_")
    if comparison not in _COMPARISONS:
        raise InvalidProfile(f"unknown seccomp comparison {arg.get('op')!r} ({what})")
    return (_number(arg.get("index"), 6, f"argument index of {what}"), comparison,
            _number(arg.get("value", 0), _U64, f"value of {what}"),
            _number(arg.get("valueTwo", 0), _U64, f"valueTwo of {what}"))


def _rules_by_name(blocks: Sequence[object], default: int) -> Rules:
    """Every name of the profile with its rules in order, without those that do what the default does."""
    rules: dict[str, list[Rule]] = {}
    for block in blocks:
        if not isinstance(block, Mapping):
            raise InvalidProfile("an entry of seccomp syscalls must be an object")
        names = _list(block.get("names"), "names")
        if not names:
            raise InvalidProfile("an entry of seccomp syscalls has no names")
        what = str(names[0])
        action = _action(block.get("action"), block.get("errnoRet"), what)
        conditions = tuple(_condition(arg, what) for arg in _list(block.get("args"), "args"))
        for name in names:
            if not isinstance(name, str):
                raise InvalidProfile(f"a system call's name must be a string, not {name!r}")
            known = rules.setdefault(name, [])
            if action != default:
                known.append((conditions, action))
    return rules


def _machines(listed: Sequence[object], host: str) -> list[str]:
    """Our names of the machines in the filter, the host's own first."""
    found = [host]
    for name in listed:
        machine = _LISTED.get(str(name))
        if machine is None and name not in _OTHER_MACHINES:
            raise InvalidProfile(f"unknown seccomp architecture {name!r}")
        if machine in _NATIVE[host] and machine not in found:
            found.append(machine)
    return found
