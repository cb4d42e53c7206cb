"""Seccomp filters: from the OCI runtime-spec object `linux.seccomp` to a loaded BPF program.

`compile_profile` reads the object (runtime-spec, config-linux.md "Seccomp"), `load` hands the program to the kernel.
Compiling is separate because it can be done, and cached (`seccomp_cache`), before a container's process exists; a
process that has a finished program needs `seccomp_load` alone.

What a profile means, decided as libseccomp-based runtimes decide it where those agree with each other:
- A call's rules are alternatives; the conditions inside one rule must all hold.
- A rule without conditions wins over all rules with conditions; of several, the first one listed counts. Among rules
  with conditions the first one listed that matches counts.
- A rule that does what the default does is no rule. Names that no listed machine has are ignored, so that a profile
  may name the calls of newer kernels.
- Calls newer than every call the profile names answer ENOSYS rather than the default's error: programs then fall back
  to an older call, while EPERM makes them fail. Not where the default lets calls through.
- A program for a machine that is not listed is killed (SIGSYS, status 159); x32 calls answer ENOSYS where x32 is not
  listed.
- i386 also has its sockets and System V IPC behind socketcall(2) and ipc(2). A rule for such a call covers that door
  too. Arguments behind it lie in memory, out of a filter's sight: a conditional rule that forbids then forbids
  the call altogether there, and one that allows does not open the door (stricter than libseccomp, which opens it).
"""

from __future__ import annotations

import errno
import os
from _collections_abc import Mapping, Sequence

from node.linux import bpf
from node.linux.seccomp_filter import ALLOW, ERRNO, LOG, NOTIFY, TRACE, Condition, Rule, Rules, build_filter
from node.linux.seccomp_load import NEW_LISTENER, load
from node.linux.seccomp_profile import default_profile

__all__ = ("NEW_LISTENER", "InvalidProfile", "compile_profile", "default_profile", "filter_flags", "load")

_U64 = 1 << 64
_MAX_ERRNO = 4095
ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_TRACE": TRACE, "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": NOTIFY,
}
_COMPARISONS = ("EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ")
_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
          "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32}
_TSYNC, _TSYNC_ESRCH, _WAIT_KILLABLE = 1, 16, 32
_TOLD_BY = "write"
"""How a process that is under its filter already says so to its runtime: an agent cannot be asked about it."""

_NATIVE = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64", "arm")}
_LISTED = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "i386", "SCMP_ARCH_X32": "x32",
           "SCMP_ARCH_AARCH64": "aarch64", "SCMP_ARCH_ARM": "arm"}
# Machines a profile may list that we have no numbers for. Their programs are killed like those of any unlisted one.
_OTHER_MACHINES = frozenset(
    f"SCMP_ARCH_{name}" for name in ("LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64",
                                     "MIPSEL64N32", "PARISC", "PARISC64", "PPC", "PPC64", "PPC64LE", "RISCV64", "S390",
                                     "S390X", "SH", "SHEB"))


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
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), "default")
    if default == NOTIFY:
        raise InvalidProfile("seccomp: SCMP_ACT_NOTIFY cannot be the default action: the runtime's own calls, too, "
                             "would wait for the agent that it is to call")
    rules = _rules_by_name(_list(profile.get("syscalls"), "syscalls"), default)
    _check_listener(profile, rules)
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
    if _notifies(profile):
        # A listener and a failing thread would come back as the same number, without the second flag.
        bits |= NEW_LISTENER | (_TSYNC_ESRCH if bits & _TSYNC else 0)
    elif bits & _WAIT_KILLABLE:
        raise InvalidProfile("seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for SCMP_ACT_NOTIFY, which no "
                             "rule has")
    return bits


def _notifies(profile: Mapping[str, object]) -> bool:
    blocks = _list(profile.get("syscalls"), "syscalls")
    return any(isinstance(block, Mapping) and block.get("action") == "SCMP_ACT_NOTIFY" for block in blocks)


def _check_listener(profile: Mapping[str, object], rules: Rules) -> None:
    path, metadata = profile.get("listenerPath"), profile.get("listenerMetadata")
    for key, value in (("listenerPath", path), ("listenerMetadata", metadata)):
        if value is not None and not isinstance(value, str):
            raise InvalidProfile(f"seccomp {key} must be a string, not {value!r}")
    asking = [name for name, listed in rules.items() if any(action == NOTIFY for _conditions, action in listed)]
    if asking and not path:
        raise InvalidProfile(f"seccomp: {asking[0]} has SCMP_ACT_NOTIFY, but there is no listenerPath: nobody to ask")
    if _TOLD_BY in asking:
        raise InvalidProfile(f"seccomp: {_TOLD_BY} cannot have SCMP_ACT_NOTIFY: the runtime needs it to call the agent")
    if metadata and not path:
        raise InvalidProfile("seccomp listenerMetadata without a listenerPath")


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
    if not isinstance(name, str) or name not in ACTIONS:
        raise InvalidProfile(f"unknown seccomp action {name!r} ({what})")
    base = ACTIONS[name]
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
