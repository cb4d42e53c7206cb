"""`RUN --mount=…`: what is put into the file tree of one instruction, and gone after it."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal, Self, cast

from node.dockerfile.errors import InvalidInstruction

Kind = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_SIZE = re.compile(r"(\d+)([kmgt]?)i?b?", re.IGNORECASE)
_KEYS = {
    "type": "kind", "target": "target", "dst": "target", "destination": "target", "source": "source", "src": "source",
    "from": "source_stage", "id": "id", "sharing": "sharing", "size": "size", "mode": "mode", "uid": "uid",
    "gid": "gid", "required": "required", "readonly": "read_only", "ro": "read_only", "readwrite": "writable",
    "rw": "writable", "env": "variable",
}  # fmt: skip
_ALLOWED = {
    "bind": {"kind", "target", "source", "source_stage", "read_only", "writable"},
    "cache": {"kind", "id", "target", "source", "source_stage", "sharing", "mode", "uid", "gid", "read_only",
              "writable"},
    "tmpfs": {"kind", "target", "size"},
    "secret": {"kind", "id", "target", "required", "mode", "uid", "gid", "variable", "source"},
    "ssh": {"kind", "id", "target", "required", "mode", "uid", "gid"},
}  # fmt: skip
_NUMBERS = {"mode": 8, "uid": 10, "gid": 10}
_FLAGS = frozenset(("required", "read_only", "writable"))


@dataclass(frozen=True, slots=True)
class RunMount:
    """Empty texts: not said. `mode` etc. None: the default of its kind."""

    kind: Kind = "bind"
    target: str = ""
    source: str = ""
    source_stage: str = ""
    id: str = ""
    sharing: str = "shared"
    size: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    required: bool = False
    read_only: bool = True
    variable: str = ""
    """Of a secret: the environment variable that holds it."""

    def expanded(self, word: Callable[[str], str]) -> Self:
        """Where variables may stand: paths, the stage and the id."""
        return replace(self, target=word(self.target), source=word(self.source), id=word(self.id),
                       source_stage=word(self.source_stage))


def parse_mount(text: str) -> RunMount:
    """Raises InvalidInstruction."""
    found: dict[str, str] = {}
    try:
        parts = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise InvalidInstruction(f"failed to parse csv mounts: {error}") from error
    for part in parts:
        key, equals, value = part.partition("=")
        name = _KEYS.get(key.strip().lower())
        if name is None:
            raise InvalidInstruction(f"unexpected key '{key[:50]}' in '{part[:100]}'")
        if not equals and name not in _FLAGS:
            raise InvalidInstruction(f"invalid field '{part[:100]}' must be a key=value pair")
        if name in found:
            raise InvalidInstruction(f"'{key}' is said twice in --mount={text[:200]}")
        found[name] = value if equals else "true"
    kind = found.pop("kind", "bind").lower()
    if kind not in KINDS:
        raise InvalidInstruction(f'unsupported mount type "{kind[:50]}"')
    if wrong := found.keys() - _ALLOWED[kind]:
        raise InvalidInstruction(f"'{min(wrong)}' is not an option of a mount of type {kind}")
    return _checked(kind, found)


def _checked(kind: str, found: dict[str, str]) -> RunMount:
    values: dict[str, object] = {name: _value(name, text) for name, text in found.items()}
    writable = values.pop("writable", None)
    if writable is not None and "read_only" in values:
        raise InvalidInstruction("a mount is either readonly or readwrite")
    if writable is not None:
        values["read_only"] = not writable
    else:
        # What a bind of the context gets written into it is thrown away, a cache is there to be written.
        values.setdefault("read_only", kind == "bind")
    known = {field.name for field in fields(RunMount)}
    mount = RunMount(kind=cast("Kind", kind), **{name: values[name] for name in values if name in known})  # type: ignore[arg-type]
    # A bind without one lies on the working folder.
    if kind in ("cache", "tmpfs") and not mount.target:
        raise InvalidInstruction(f"invalid mount: a {kind} mount needs a target")
    if mount.sharing not in SHARING:
        raise InvalidInstruction(f'unsupported sharing value "{mount.sharing[:50]}": one of {", ".join(SHARING)}')
    if kind == "secret" and not mount.id:
        mount = replace(mount, id=mount.target.rpartition("/")[2])
        if not mount.id:
            raise InvalidInstruction("a secret mount needs an id or a target")
    return mount


def _value(name: str, text: str) -> object:
    if name in _FLAGS:
        if text.lower() not in ("true", "false", "1", "0"):
            raise InvalidInstruction(f"invalid value for {name}: {text[:50]}")
        return text.lower() in ("true", "1")
    if name in _NUMBERS:
        try:
            number = int(text, _NUMBERS[name])
        except ValueError as error:
            raise InvalidInstruction(f"invalid value {text[:50]} for {name}") from error
        if not 0 <= number < (1 << 32):
            raise InvalidInstruction(f"invalid value {text[:50]} for {name}")
        return number
    if name == "size":
        match = _SIZE.fullmatch(text)
        if match is None:
            raise InvalidInstruction(f"invalid value for size: {text[:50]}")
        return int(match[1]) << (10 * " kmgt".index(match[2].lower() or " "))
    return text
