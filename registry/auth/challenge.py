"""How a client is told to log in (RFC 9110 section 11.6.1; distribution's "Token Authentication")."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ocispec.errors import Unauthenticated


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header; `registry.api.answers` renders it."""

    scheme: str
    parameters: Mapping[str, str]


class LoginRequired(Unauthenticated):
    """Somebody must log in, or come with another token. `scope` is what a token would have to be for, in the token
    specification's form; `error` one of RFC 6750's codes, when a token was shown and was not enough."""

    def __init__(self, message: str, *, scope: str = "", error: str = "", detail: object = None) -> None:
        super().__init__(message, detail=detail)
        self.scope = scope
        self.error = error


class Challenger(Protocol):
    def challenge(self, failure: Unauthenticated, base: str) -> Challenge:
        """`base` is scheme and host as the client reached us, e.g. `https://registry.example.com`."""
        ...


class BasicChallenger:
    """Name and password with every request."""

    def challenge(self, failure: Unauthenticated, base: str) -> Challenge:  # noqa: ARG002
        return Challenge("Basic", {"realm": "seawall", "charset": "UTF-8"})
