"""Which device nodes a group may open or make: an ordered list of rules of which, for each kind of access, the last
one that matches decides. Without any matching rule access is denied.

Version 2 takes the list as a program (`device_program.py`) and means exactly this. Version 1 knows a default and a
set of exceptions instead; `reduce_rules` turns the list into that, and refuses what cannot be said there rather than
leaving a hole (the kernel would ignore it silently: a denied node below an allowed wildcard stays allowed).
"""

from __future__ import annotations

from _collections_abc import Mapping, Sequence

MKNOD, READ, WRITE = 1, 2, 4
_BITS = {"m": MKNOD, "r": READ, "w": WRITE}
ANY_ACCESS = MKNOD | READ | WRITE


class InvalidResources(ValueError):
    """A limit that cannot be right on any host; the text names it."""


class DeviceRule:
    """Allow or deny `access` (bits) to `kind` "b", "c" or "a" (both), `major`:`minor`, None standing for all."""

    __slots__ = ("access", "allow", "kind", "major", "minor")

    def __init__(self, allow: bool, kind: str, major: int | None, minor: int | None, access: int) -> None:
        self.allow = allow
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access

    def is_everything(self) -> bool:
        return self.kind == "a" and self.major is None and self.minor is None and self.access == ANY_ACCESS


Node = tuple[str, int | None, int | None]
"""(kind "b" or "c", major, minor) of a version 1 exception."""


def read_rules(entries: Sequence[Mapping[str, object]]) -> tuple[DeviceRule, ...]:
    """The runtime-spec's `devices` list. Raises InvalidResources."""
    return tuple(_rule(entry) for entry in entries)


def _rule(entry: Mapping[str, object]) -> DeviceRule:
    kind = entry.get("type") or "a"
    if kind not in ("a", "b", "c", "u"):
        raise InvalidResources(f"device type {kind!r}: it must be a, b or c")
    access = entry.get("access") or "rwm"
    if not isinstance(access, str) or set(access) - set(_BITS):
        raise InvalidResources(f"device access {access!r}: it must be made of r, w and m")
    if not isinstance(entry.get("allow"), bool):
        raise InvalidResources("a device rule must say allow: true or false")
    bits = 0
    for letter in access:
        bits |= _BITS[letter]
    return DeviceRule(entry["allow"] is True, "c" if kind == "u" else str(kind), _number(entry, "major"),
                      _number(entry, "minor"), bits)


def _number(entry: Mapping[str, object], key: str) -> int | None:
    value = entry.get(key)
    if value is None or value == -1:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise InvalidResources(f"device {key} {value!r} is not a device number")
    return value


def reduce_rules(rules: Sequence[DeviceRule]) -> tuple[bool, dict[Node, int]]:
    """The rules as version 1's (default, exceptions). Raises InvalidResources for a list it has no words for."""
    default = False
    exceptions: dict[Node, int] = {}
    for rule in rules:
        if rule.is_everything():
            default = rule.allow
            exceptions.clear()
            continue
        for kind in ("b", "c") if rule.kind == "a" else (rule.kind,):
            if rule.allow != default:
                node = (kind, rule.major, rule.minor)
                exceptions[node] = exceptions.get(node, 0) | rule.access
            else:
                _take_back(exceptions, kind, rule)
    return default, {node: access for node, access in exceptions.items() if access}


def _take_back(exceptions: dict[Node, int], kind: str, rule: DeviceRule) -> None:
    for node, access in exceptions.items():
        if node[0] != kind or not access & rule.access:
            continue
        if all(mine is None or mine == theirs for mine, theirs in zip((rule.major, rule.minor), node[1:], strict=True)):
            exceptions[node] = access & ~rule.access
        elif all(mine is None or theirs is None or mine == theirs
                 for mine, theirs in zip((rule.major, rule.minor), node[1:], strict=True)):
            # Making a node that nobody may open harms nobody, and engines' default lists ask for just that.
            if access & rule.access == MKNOD and not rule.allow:
                continue
            raise InvalidResources(
                f"the device rule {describe(kind, rule.major, rule.minor, rule.access)} is narrower than the earlier "
                f"{describe(*node, access)}: cgroup version 1 cannot make an exception from an exception")


def describe(kind: str, major: int | None, minor: int | None, access: int) -> str:
    """A rule as version 1 writes it: `c 1:3 rwm`."""
    numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
    return f"{kind} {numbers} {''.join(letter for letter, bit in _BITS.items() if access & bit)}"
