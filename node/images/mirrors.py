"""Where a name's content may come from: mirrors first, as an administrator set them, then the registry itself.

A mirror is shown no credentials but its own: those of `docker login` belong to the registry that the user named. What a
tag stands for is the mirror's word (as with Docker's mirrors); every digest is verified whoever sent the bytes.
"""

import contextlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarl import URL

from ocispec.errors import InvalidArgument
from ocispec.reference import InvalidName, Reference, RepositoryName
from storage.remote.auth import Credentials
from storage.remote.origin import OriginRegistry
from storage.remote.transport import Reach, RemoteSettings

EVERY = "*"
"""A rule for all registries: its mirrors keep each under its name (`<mirror>/docker.io/library/alpine`)."""

_FILE_KEYS = frozenset({"host", "mirrors", "mirrors-only", "insecure"})
_MIRROR_KEYS = frozenset({"url", "username", "password-file"})


class InvalidMirror(InvalidArgument):
    """A mirror or the registries file cannot be right; the message names the place."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """`url` has scheme, host and port; `prefix` goes before a repository's path there."""

    url: URL
    prefix: str = ""
    credentials: Credentials = field(default_factory=Credentials)

    @classmethod
    def parse(cls, text: str, credentials: Credentials | None = None) -> "Mirror":
        """`https://HOST[:PORT][/PREFIX]`. Raises InvalidMirror."""
        try:
            url = URL(text)
            if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string or url.fragment:
                raise ValueError
            prefix = url.path.strip("/")
            if prefix:
                RepositoryName.parse(prefix)
        except (ValueError, InvalidName):
            raise InvalidMirror(f"invalid mirror {text[:200]!r}: want http(s)://HOST[:PORT][/PREFIX]") from None
        return cls(url.origin(), prefix, credentials or Credentials())

    def __str__(self) -> str:
        """As `docker info` shows it, with a slash at the end."""
        return f"{self.url.origin()}/{self.prefix}/" if self.prefix else f"{self.url.origin()}/"

    def path(self, reference: Reference, *, named: bool) -> RepositoryName:
        parts = (self.prefix, reference.domain if named else "", str(reference.path))
        return RepositoryName.parse("/".join(filter(None, parts)))


@dataclass(frozen=True, slots=True)
class RegistryRule:
    """`host` is what references call the registry, or EVERY."""

    host: str
    mirrors: tuple[Mirror, ...] = ()
    mirrors_only: bool = False
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """One registry to ask, by which path."""

    remote: OriginRegistry
    path: RepositoryName
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What an administrator set for registries; the first rule for a host counts, then that for EVERY."""

    rules: tuple[RegistryRule, ...] = ()

    def of(self, host: str) -> RegistryRule:
        fitting = [rule for rule in self.rules if rule.host == host] or \
            [rule for rule in self.rules if rule.host == EVERY]
        return fitting[0] if fitting else RegistryRule(host)

    def insecure(self) -> tuple[str, ...]:
        return tuple(rule.host for rule in self.rules if rule.insecure)

    def places(self, reference: Reference, own: OriginRegistry, settings: RemoteSettings) -> Sequence[Place]:
        """In the order in which they are to be asked; `own` is the registry itself."""
        rule = self.of(reference.domain)
        places = []
        for mirror in rule.mirrors:
            with contextlib.suppress(InvalidName):  # a host with a port has no name in a mirror of everything
                path = mirror.path(reference, named=rule.host == EVERY)
                reach = Reach(mirror.url, allow_private=True)
                places.append(Place(OriginRegistry(mirror.url.authority, credentials=mirror.credentials,
                                                   settings=settings, reach=reach), path, mirror=True))
        return places if rule.mirrors_only and places else [*places, Place(own, reference.path)]


def read_rules(path: Path) -> Rules:
    """The registries file. Raises InvalidMirror."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidMirror(f"cannot read {path}: {error}") from error
    entries = document.get("registry", [])
    if set(document) - {"registry"} or not isinstance(entries, list):
        raise InvalidMirror(f"{path}: want [[registry]] tables and nothing else")
    return Rules(tuple(_rule(entry, f"{path}: registry {number}") for number, entry in enumerate(entries, 1)))


def _rule(entry: Mapping[str, Any], where: str) -> RegistryRule:
    _only(entry, _FILE_KEYS, where)
    host, mirrors = entry.get("host"), entry.get("mirrors", [])
    if not isinstance(host, str) or not host or "/" in host:
        raise InvalidMirror(f"{where}: host must be a registry's name, or \"*\"")
    if not isinstance(mirrors, list):
        raise InvalidMirror(f"{where}: mirrors is not a list")
    flags = {name: entry.get(name, False) for name in ("mirrors-only", "insecure")}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidMirror(f"{where}: {name} is neither true nor false")
    return RegistryRule(host, tuple(_mirror(one, where) for one in mirrors), flags["mirrors-only"], flags["insecure"])


def _mirror(entry: object, where: str) -> Mirror:
    if isinstance(entry, str):
        return Mirror.parse(entry)
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        raise InvalidMirror(f"{where}: a mirror is a URL, or a table with one")
    _only(entry, _MIRROR_KEYS, where)
    if not all(isinstance(value, str) for value in entry.values()):
        raise InvalidMirror(f"{where}: what is said of a mirror are strings")
    password = ""
    if file := entry.get("password-file"):
        try:
            password = Path(file).read_text().strip()
        except (OSError, ValueError) as error:
            raise InvalidMirror(f"{where}: cannot read password-file: {error}") from error
    return Mirror.parse(entry["url"], Credentials(entry.get("username", ""), password))


def _only(entry: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(set(entry) - known)
    if unknown:
        raise InvalidMirror(f"{where}: unknown {', '.join(unknown)} (known: {', '.join(sorted(known))})")


def parse_mirror_flag(text: str) -> RegistryRule:
    """`--registry-mirror [HOST=]URL`; without a host of docker.io, as Docker's flag. Raises InvalidMirror."""
    host, equals, url = text.partition("=")
    if not equals or "://" in host:
        host, url = "docker.io", text
    if not host or "/" in host:
        raise InvalidMirror(f"invalid mirror {text[:200]!r}: want [HOST=]http(s)://HOST[:PORT][/PREFIX]")
    return RegistryRule(host, (Mirror.parse(url),))


def joined(rules: Sequence[RegistryRule]) -> Rules:
    """Rules of one host become one: mirrors in their order."""
    found: dict[str, RegistryRule] = {}
    for rule in rules:
        before = found.get(rule.host, RegistryRule(rule.host))
        found[rule.host] = RegistryRule(rule.host, (*before.mirrors, *rule.mirrors),
                                        before.mirrors_only or rule.mirrors_only, before.insecure or rule.insecure)
    return Rules(tuple(found.values()))
