"""Whom a policy speaks of: `user:ann`, `group:dev`, `robot:ci`, `certificate:node-7`, `external:ci:job/7`,
`authenticated`, `anonymous`."""

import re

from ocispec.errors import InvalidArgument
from registry.auth.principal import Principal

ANYBODY, KNOWN = "anonymous", "authenticated"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,127})")
_GROUP = re.compile(r"[A-Za-z0-9_/](?:[A-Za-z0-9._@+:/ =,-]{0,253})")
_KINDS = {"user": _NAME, "robot": _NAME, "group": _GROUP, "certificate": _GROUP, "external": _GROUP}


class InvalidName(InvalidArgument):
    """The text cannot be the name of a user, robot, group or subject."""


def name(text: str, what: str = "user") -> str:
    """A name of this kind, checked. Raises InvalidName."""
    if not _KINDS[what].fullmatch(text):
        raise InvalidName(f"not a name for a {what}: {text[:100]!r}", detail={"name": text[:100]})
    return text


def parse(text: str) -> str:
    """A subject, checked. Raises InvalidName."""
    if text in (ANYBODY, KNOWN):
        return text
    kind, colon, rest = text.partition(":")
    if not colon or kind not in _KINDS:
        raise InvalidName(f"not a subject: {text[:100]!r} (want anonymous, authenticated, or user:NAME, group:NAME, "
                          "robot:NAME, certificate:NAME, external:ISSUER:NAME)")
    name(rest, kind)
    return text


def of(principal: Principal) -> frozenset[str]:
    """All that a rule may call this principal by. Who is known may do whatever a stranger may."""
    if principal.is_anonymous:
        return frozenset({ANYBODY})
    named = {f"group:{group}" for group in principal.groups} | {principal.subject, ANYBODY, KNOWN}
    if principal.owner:
        named.add(f"user:{principal.owner}")
    return frozenset(named)


