"""The shape of a seccomp filter: from rules by name to intervals of call numbers to a search tree in BPF.

Neighbouring numbers with the same decision become one interval, and the tree searches intervals: a profile of
several hundred allowed calls makes some sixty of them, so any call is decided by six or seven comparisons. Linear
lists (what a naive compiler makes) cost hundreds.
"""

from __future__ import annotations

import errno
from _collections_abc import Iterator, Mapping, Sequence

from node.linux import bpf
from node.linux.syscall_numbers import FIRST_SHARED, X32_BIT, X32_FIRST_OWN, numbers

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
NOTIFY = 0x7FC00000
_KILL_PROCESS = 0x80000000
_ENOSYS = ERRNO | errno.ENOSYS

Condition = tuple[int, str, int, int]
"""(argument index, comparison, value, value two), the values unsigned 64-bit. MASKED_EQ: (argument & value) == two."""
Rule = tuple[tuple[Condition, ...], int]
"""(conditions that must all hold, the filter's return value)."""
Rules = Mapping[str, Sequence[Rule]]
"""Every name of a profile, also those whose rules change nothing (an empty sequence): they say how new it is."""
Decision = tuple[Rule, ...]
"""What happens to one call: rules in order, the last one without conditions."""
Line = list[tuple[int, Decision]]
"""A number line: each decision holds from its number up to the next one's."""

_AUDIT = {"x86_64": 0xC000003E, "x32": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}

# struct seccomp_data on a little-endian machine: nr, arch, instruction pointer (64 bit), six arguments (64 bit each).
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENTS = 0, 4, 16

_SOCKETCALL = ("socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send",
               "recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4",
               "recvmmsg", "sendmmsg")
_IPC = {"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
        "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24}


def build_filter(machines: Sequence[str], rules: Rules, default: int) -> bytes:
    """The program for `machines`, the host's own first. Raises bpf.ProgramTooLong."""
    lines: dict[int, Line] = {}
    for machine in sorted(machines, key=lambda name: name == "x32"):  # x32's numbers continue x86_64's line
        lines.setdefault(_AUDIT[machine], []).extend(_line(machine, rules, default))
    if "x86_64" in machines and "x32" not in machines:
        lines[_AUDIT["x86_64"]].append((X32_BIT, _constant(_ENOSYS)))
    return _Compiler().program(lines, first=_AUDIT[machines[0]])


# --- which number gets which decision ---------------------------------------------------------------------------------


def _line(machine: str, rules: Rules, default: int) -> Line:
    table = numbers(machine)
    named = _decisions(machine, table, rules, default)
    background = _background(machine, table, rules, default)
    cuts = sorted({*named, *(number + 1 for number in named), *(start for start, _ in background)})
    line: Line = []
    position = 0
    for cut in cuts:
        while position + 1 < len(background) and background[position + 1][0] <= cut:
            position += 1
        decision = named.get(cut, background[position][1])
        if not line or line[-1][1] != decision:
            line.append((cut, decision))
    return line


def _decisions(machine: str, table: Mapping[str, int], rules: Rules, default: int) -> dict[int, Decision]:
    collected: dict[int, list[Rule]] = {}
    for name, listed in rules.items():
        for number, rule in _placed(machine, table, name, listed):
            collected.setdefault(number, []).append(rule)
    return {number: _decision(listed, default) for number, listed in collected.items()}


def _placed(machine: str, table: Mapping[str, int], name: str, rules: Sequence[Rule]) -> Iterator[tuple[int, Rule]]:
    """Where a call's rules belong: at its number and, on i386, behind the door it shares with others.

    The arguments behind a door cannot be seen: a conditional rule that lets calls through stays out of it, any other
    holds there without its conditions.
    """
    if name in table:
        yield from ((table[name], rule) for rule in rules)
    if machine != "i386":
        return
    if name in _SOCKETCALL:
        door, condition = table["socketcall"], (0, "EQ", _SOCKETCALL.index(name) + 1, 0)
    elif name in _IPC:
        # The upper half of ipc's first argument is a version, which the kernel cuts off.
        door, condition = table["ipc"], (0, "MASKED_EQ", 0xFFFF, _IPC[name])
    else:
        return
    yield from ((door, ((condition,), action)) for conditions, action in rules if not (conditions and _permits(action)))


def _decision(rules: Sequence[Rule], default: int) -> Decision:
    for conditions, action in rules:
        if not conditions:
            return _constant(action)
    return (*dict.fromkeys(rules), ((), default))


def _permits(action: int) -> bool:
    return action & 0xFFFF0000 in (ALLOW, LOG, TRACE)


def _constant(action: int) -> Decision:
    return (((), action),)


def _background(machine: str, table: Mapping[str, int], rules: Rules, default: int) -> Line:
    """What holds for numbers that no rule names: the default, and ENOSYS from the first call newer than the profile.

    Calls older than Linux 5.1 are never "newer", however little a profile names.
    """
    base, last = (X32_BIT, max(table.values())) if machine == "x32" else (0, 0)
    named = (table[name] - base for name in rules if name in table)
    newest = max([FIRST_SHARED - 1, *(number for number in named if number < X32_FIRST_OWN)])
    beyond = _constant(default if _permits(default) else _ENOSYS)
    line = [(base, _constant(default)), (base + newest + 1, beyond)]
    if machine == "x32":
        line += [(base + X32_FIRST_OWN, _constant(default)), (last + 1, beyond)]
    return line


# --- instructions -----------------------------------------------------------------------------------------------------


class _Compiler:
    """Turns number lines into one program, from its end to its beginning."""

    def __init__(self) -> None:
        self._out = bpf.Assembler()
        self._known: dict[Decision, bpf.Label] = {}

    def program(self, lines: Mapping[int, Line], first: int) -> bytes:
        """Check for the machine `first` first: it is the one nearly all calls come from."""
        order = sorted(lines, key=lambda audit: audit == first)
        roots = [(audit, self._out.emit(bpf.LOAD, _AT_NUMBER, self._tree(lines[audit]))) for audit in order]
        entry = self._out.ret(_KILL_PROCESS)
        for audit, root in roots:
            entry = self._out.branch(bpf.JUMP_EQ, audit, root, entry)
        return self._out.program(self._out.emit(bpf.LOAD, _AT_ARCH, entry))

    def _tree(self, line: Line) -> bpf.Label:
        if len(line) == 1:
            return self._leaf(line[0][1])
        middle = len(line) // 2
        above = self._tree(line[middle:])
        below = self._tree(line[:middle])
        return self._out.branch(bpf.JUMP_GE, line[middle][0], above, below)

    def _leaf(self, decision: Decision) -> bpf.Label:
        if len(decision) == 1:
            return self._out.ret(decision[0][1])
        if decision not in self._known:
            self._known[decision] = self._chain(decision)
        return self._known[decision]

    def _chain(self, decision: Decision) -> bpf.Label:
        otherwise = self._out.ret(decision[-1][1])
        for conditions, action in reversed(decision[:-1]):
            target = self._out.ret(action)
            for condition in reversed(conditions):
                target = self._condition(condition, target, otherwise)
            otherwise = target
        return otherwise

    def _condition(self, condition: Condition, yes: bpf.Label, no: bpf.Label) -> bpf.Label:
        index, comparison, value, two = condition
        if comparison == "MASKED_EQ":
            return self._masked(index, value, two, yes, no)
        if comparison in ("NE", "LT", "LE"):
            comparison, yes, no = {"NE": "EQ", "LT": "GE", "LE": "GT"}[comparison], no, yes
        high, low = value >> 32, value & 0xFFFFFFFF
        at = _AT_ARGUMENTS + 8 * index
        jump = {"EQ": bpf.JUMP_EQ, "GE": bpf.JUMP_GE, "GT": bpf.JUMP_GT}[comparison]
        lower = self._out.emit(bpf.LOAD, at, self._out.branch(jump, low, yes, no))
        upper = self._out.branch(bpf.JUMP_EQ, high, lower, no)
        if comparison != "EQ":
            upper = self._out.branch(bpf.JUMP_GT, high, yes, upper)
        return self._out.emit(bpf.LOAD, at + 4, upper)

    def _masked(self, index: int, mask: int, value: int, yes: bpf.Label, no: bpf.Label) -> bpf.Label:
        """(argument & mask) == value, half by half; a half that the mask leaves out is not looked at."""
        if value & ~mask:
            return no
        for half in (0, 4):
            wanted = mask >> 8 * half & 0xFFFFFFFF
            if wanted:
                test = self._out.branch(bpf.JUMP_EQ, value >> 8 * half & 0xFFFFFFFF, yes, no)
                masked = self._out.emit(bpf.AND, wanted, test)
                yes = self._out.emit(bpf.LOAD, _AT_ARGUMENTS + 8 * index + half, masked)
        return yes
