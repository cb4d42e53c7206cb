"""Challenges (RFC 9110 §11.6.1), basic and bearer tokens (distribution's "Token Authentication" and its OAuth2 form).

Where credentials may go is decided by `tied`: a registry that was taken over, or somebody on the way to it, could name
any realm and collect the password otherwise.
"""

import base64
import ipaddress
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from yarl import URL

from storage.remote.errors import RemoteInvalid

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's "token", a piece of grammar
_SCHEME = re.compile(rf"\s*,?\s*({_TOKEN})(?:\s+|$)")
_PARAMETER = re.compile(rf'\s*,?\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_MAX_HEADER = 8192
_MIN_LIFETIME = 60.0  # seconds; what the token specification tells clients to assume
_EARLY = 10.0  # seconds before its end a token is not used any more


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user gave us for one registry. `identity_token` is an OAuth2 refresh token, `registry_token` a bearer
    token to be sent as it is."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def empty(self) -> bool:
        return not (self.username or self.password or self.identity_token or self.registry_token)

    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; scheme and parameter names are lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """As many as can be understood; what follows something broken is ignored."""
    found: list[Challenge] = []
    at = 0
    header = header[:_MAX_HEADER]
    while match := _SCHEME.match(header, at):
        at = match.end()
        parameters: dict[str, str] = {}
        while pair := _PARAMETER.match(header, at):
            at = pair.end()
            quoted, plain = pair.group(2), pair.group(3)
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(pair.group(1).lower(), value)
        found.append(Challenge(match.group(1).lower(), parameters))
    return found


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def tied(realm_host: str, registry_host: str) -> bool:
    """Whether a token service on `realm_host` belongs to the registry: the same host, a name below it, or a name below
    the domain that the registry itself is in (`registry.example.com` and `auth.example.com`).

    Addresses and single-label names are tied to themselves only. There is no list of public suffixes here: a parent of
    two labels whose first is a usual second level (`co.uk`) does not count as a domain.
    """
    realm, registry = realm_host.lower().rstrip("."), registry_host.lower().rstrip(".")
    if realm == registry:
        return True
    if _is_address(realm) or _is_address(registry) or "." not in registry:
        return False
    if realm.endswith(f".{registry}"):
        return True
    parent = registry.partition(".")[2]
    labels = parent.split(".")
    if len(labels) < 2 or (len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SECOND_LEVELS):
        return False
    return realm == parent or realm.endswith(f".{parent}")


_SECOND_LEVELS = frozenset({"ac", "co", "com", "edu", "gob", "gov", "gouv", "go", "mil", "ne", "net", "or", "org"})


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Realm:
    """A token service that a challenge named."""

    url: URL
    service: str

    @classmethod
    def parse(cls, challenge: Challenge) -> "Realm":
        """Raises RemoteInvalid."""
        text = challenge.parameters.get("realm", "")
        try:
            url = URL(text)
        except ValueError as error:
            raise RemoteInvalid(f"the registry names a broken token service: {text[:200]!r}") from error
        if url.scheme not in ("http", "https") or not url.host or url.user is not None:
            raise RemoteInvalid(f"the registry names a broken token service: {text[:200]!r}")
        return cls(url.with_fragment(None), challenge.parameters.get("service", ""))


_MOST_TOKENS = 4096


class TokenCache:
    """Bearer tokens by what they are good for; bounded, for a client that lives long and sees many repositories."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, float]] = {}

    def get(self, scope: str) -> str | None:
        token, end = self._tokens.get(scope, ("", 0.0))
        return token if time.monotonic() < end else None

    def put(self, scope: str, token: str, lifetime: object) -> None:
        now = time.monotonic()
        if len(self._tokens) >= _MOST_TOKENS:
            self._tokens = {known: item for known, item in self._tokens.items() if item[1] > now}
        if len(self._tokens) >= _MOST_TOKENS:
            self._tokens.clear()
        seconds = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else _MIN_LIFETIME
        self._tokens[scope] = (token, now + max(_MIN_LIFETIME, seconds) - _EARLY)

    def drop(self, scope: str) -> None:
        self._tokens.pop(scope, None)
