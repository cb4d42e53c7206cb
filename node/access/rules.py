"""The operator's rules: who has which rights. A TOML file, the first rule that matches decides, nobody else gets in.

    [[rule]]
    group = "platform"        # or user = "ada", or certificate = "ci-*" (a client certificate's common name)
    rights = "full"

    [[rule]]
    group = "auditors"
    rights = "read"

    [[rule]]
    user = "shop"
    project = "shop"          # its own containers, networks and volumes
    binds = ["/srv/shop"]     # host paths it may mount, exactly these

Root always has full rights: it could open the node's files. Without a file who can open the socket has them, as with
Docker.
"""

import grp
import pwd
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from posixpath import normpath
from typing import Any

from node.access.callers import Caller
from ocispec.errors import InvalidArgument, PermissionDenied

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_WHO = ("user", "group", "certificate")
_KNOWN = {*_WHO, "rights", "project", "binds"}


class InvalidRules(InvalidArgument):
    """The file cannot be read or says what cannot be; the message names the rule."""


class NotAllowed(PermissionDenied):
    """The caller's rights do not reach that far. 403."""


class Level(StrEnum):
    FULL = "full"
    READ = "read"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Rights:
    level: Level
    project: str = ""
    binds: frozenset[str] = frozenset()
    """Absolute, normalised."""


FULL = Rights(Level.FULL)


@dataclass(frozen=True, slots=True)
class Rule:
    rights: Rights
    uid: int | None = None
    gid: int | None = None
    certificate: str = ""

    def matches(self, caller: Caller) -> bool:
        if self.uid is not None:
            return caller.uid == self.uid
        if self.gid is not None:
            return caller.uid is not None and self.gid in caller.gids
        return caller.uid is None and fnmatchcase(caller.certificate, self.certificate)


@dataclass(frozen=True, slots=True)
class Rules:
    rules: Sequence[Rule]

    def rights_of(self, caller: Caller) -> Rights:
        """Raises NotAllowed."""
        if caller.root:
            return FULL
        for rule in self.rules:
            if rule.matches(caller):
                return rule.rights
        raise NotAllowed(f"{caller} has no rights on this node: no rule names it")


class Access:
    """The rules in force: those of the file, read again when told to; no file, no rules."""

    def __init__(self, file: Path | None) -> None:
        """Raises InvalidRules."""
        self._file = file
        self._rules = load(file) if file else None

    def rights_of(self, caller: Caller) -> Rights:
        """Raises NotAllowed."""
        return self._rules.rights_of(caller) if self._rules is not None else FULL

    @property
    def restricted(self) -> bool:
        return self._rules is not None

    def reload(self) -> None:
        """Raises InvalidRules; then the rules of before stay in force."""
        if self._file:
            self._rules = load(self._file)


def load(file: Path) -> Rules:
    """Raises InvalidRules."""
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise InvalidRules(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRules(f"{file}: {error}") from error
    entries = document.pop("rule", [])
    if document:
        raise InvalidRules(f"{file}: unknown entry {next(iter(document))!r}: want [[rule]] tables only")
    if not isinstance(entries, list):
        raise InvalidRules(f"{file}: rule is no list of tables: write [[rule]]")
    return Rules([_rule(entry, f"{file}: rule {number}") for number, entry in enumerate(entries, 1)])


def _rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, dict):
        raise InvalidRules(f"{where}: no table")
    if unknown := set(entry) - _KNOWN:
        raise InvalidRules(f"{where}: unknown key {min(unknown)!r}")
    who = [key for key in _WHO if key in entry]
    if len(who) != 1:
        raise InvalidRules(f"{where}: want exactly one of user, group and certificate")
    rights, name = _rights(entry, where), _text(entry, who[0], where)
    try:
        if who == ["user"]:
            return Rule(rights, uid=int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid)
        if who == ["group"]:
            return Rule(rights, gid=int(name) if name.isdigit() else grp.getgrnam(name).gr_gid)
    except KeyError:
        raise InvalidRules(f"{where}: this host has no {who[0]} {name!r}") from None
    return Rule(rights, certificate=name)


def _rights(entry: Mapping[str, Any], where: str) -> Rights:
    if "project" not in entry:
        level = _text(entry, "rights", where)
        if level not in (Level.FULL, Level.READ):
            raise InvalidRules(f'{where}: rights {level!r}: want "full", "read", or a project instead')
        if "binds" in entry:
            raise InvalidRules(f"{where}: binds belong to a rule with a project")
        return Rights(Level(level))
    if "rights" in entry:
        raise InvalidRules(f"{where}: want rights or a project, not both")
    project = _text(entry, "project", where)
    if not _PROJECT.fullmatch(project):
        raise InvalidRules(f"{where}: project {project!r}: want lower-case letters, digits, '_', '.' and '-'")
    binds = entry.get("binds", [])
    if not isinstance(binds, list) or not all(isinstance(path, str) and path.startswith("/") for path in binds):
        raise InvalidRules(f"{where}: binds: want a list of absolute paths")
    return Rights(Level.PROJECT, project, frozenset(normpath(path) for path in binds))


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise InvalidRules(f"{where}: {key} is missing" if value is None else f"{where}: {key}: want a text")
    return value
