"""`--security-opt`: every option of Docker's and Podman's, each taken apart here or refused by name.

Pure: what this host has (AppArmor, SELinux) is asked by `security.confine`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from posixpath import normpath

from node.containers.errors import InvalidSpec

HIDEPID = frozenset({"0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable"})
_LABELS = frozenset({"user", "role", "type", "level", "filetype"})
_APPARMOR = re.compile(r"[A-Za-z0-9_./@&:+~-][A-Za-z0-9_./@&:+~ -]{0,199}")


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked; None: nothing was said."""

    no_new_privileges: bool | None = None
    seccomp: str | None = None
    """unconfined, builtin, or a profile as JSON."""

    apparmor: str | None = None
    """A profile's name, or unconfined."""

    selinux: tuple[str, ...] = ()
    """Of label=: `disable`, `nested`, or KEY:VALUE."""

    bare_system_paths: bool = False
    """Nothing of /proc and /sys is masked or read-only."""

    writable_cgroups: bool = False
    proc: tuple[str, ...] = ()
    """Mount options of /proc."""

    masked: tuple[str, ...] = ()
    unmasked: tuple[str, ...] = field(default=())
    """Patterns of paths that are neither masked nor read-only; `ALL` stands for every one."""

    def uncovers(self, path: str) -> bool:
        return any(pattern == "ALL" or _matches(path, pattern) for pattern in self.unmasked)


def parse(texts: Sequence[str]) -> Options:
    """NAME=VALUE, or NAME:VALUE of older clients; of an option that is said twice the last counts, of masks all.
    Raises InvalidSpec."""
    found = Options()
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            name, separator, value = text.partition(":")
        reader = _READERS.get(name)
        if reader is None:
            raise InvalidSpec(f'invalid --security-opt: "{text[:300]}"')
        if not separator and name != "no-new-privileges":
            raise InvalidSpec(f'invalid --security-opt: "{text[:300]}": it wants {name}=VALUE')
        found = reader(found, value if separator else "true")
    return found


def _no_new_privileges(found: Options, value: str) -> Options:
    return replace(found, no_new_privileges=_boolean("no-new-privileges", value))


def _seccomp(found: Options, value: str) -> Options:
    return replace(found, seccomp=value)


def _apparmor(found: Options, value: str) -> Options:
    if not _APPARMOR.fullmatch(value):
        raise InvalidSpec(f"invalid --security-opt: apparmor={value[:100]!r} is no name of a profile")
    return replace(found, apparmor=value)


def _label(found: Options, value: str) -> Options:
    key, colon, rest = value.partition(":")
    if value not in ("disable", "nested") and not (colon and key in _LABELS and rest):
        raise InvalidSpec(f"invalid --security-opt: label={value[:100]!r}: want disable, nested or one of "
                          f"{', '.join(sorted(_LABELS))} with a value (type:NAME)")
    return replace(found, selinux=(*found.selinux, value))


def _system_paths(found: Options, value: str) -> Options:
    if value != "unconfined":
        raise InvalidSpec(f"invalid --security-opt: systempaths={value[:100]!r}: only unconfined is known")
    return replace(found, bare_system_paths=True)


def _writable_cgroups(found: Options, value: str) -> Options:
    return replace(found, writable_cgroups=_boolean("writable-cgroups", value))


def _proc(found: Options, value: str) -> Options:
    for option in value.split(","):
        name, _, said = option.partition("=")
        right = {"hidepid": said in HIDEPID, "gid": said.isascii() and said.isdigit() and len(said) < 11,
                 "subset": said == "pid"}.get(name, False)  # fmt: skip
        if not right:
            raise InvalidSpec(f"invalid --security-opt: proc-opts: {option[:100]!r}: want hidepid=0…4, gid=NUMBER or "
                              "subset=pid")
    return replace(found, proc=(*found.proc, *value.split(",")))


def _mask(found: Options, value: str) -> Options:
    return replace(found, masked=(*found.masked, *_paths("mask", value)))


def _unmask(found: Options, value: str) -> Options:
    patterns = ("ALL",) if value.upper() == "ALL" else _paths("unmask", value)
    return replace(found, unmasked=(*found.unmasked, *patterns))


def _windows(_found: Options, _value: str) -> Options:
    raise InvalidSpec("invalid --security-opt: credentialspec is for Windows containers, this node runs Linux ones")


_READERS: dict[str, Callable[[Options, str], Options]] = {
    "no-new-privileges": _no_new_privileges,
    "seccomp": _seccomp,
    "apparmor": _apparmor,
    "label": _label,
    "systempaths": _system_paths,
    "writable-cgroups": _writable_cgroups,
    "proc-opts": _proc,
    "mask": _mask,
    "unmask": _unmask,
    "credentialspec": _windows,
}


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise InvalidSpec(f"invalid --security-opt: {name}={value[:100]!r} is neither true nor false")
    return value.lower() in ("true", "1")


def _paths(name: str, value: str) -> tuple[str, ...]:
    paths = value.split(":")
    for path in paths:
        if not path.startswith("/") or "\0" in path or normpath(path) != path or path == "/":
            raise InvalidSpec(f"invalid --security-opt: {name}: {path[:200]!r} is no clean absolute path below /")
    return tuple(paths)


def _matches(path: str, pattern: str) -> bool:
    """Part by part, so that a * stays within its folder."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
