"""Our own bearer tokens (distribution's "Docker Registry v2 Bearer token specification"): JWTs, signed and checked."""

import json
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from registry.auth.challenge import LoginRequired
from registry.auth.keyring import ALGORITHM, Keyring
from registry.auth.principal import Grant, Principal
from storage.metadata.engine import Clock

LEEWAY = 30
"""Seconds by which the clocks of replicas may differ."""

MAX_BYTES = 16 * 1024


class InvalidToken(LoginRequired):
    """A bearer token that is not ours, not for us, over, or void."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the bearer token is not valid: {why}", error="invalid_token")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token that we made says. `subject` is empty for nobody in particular; `expires` is seconds since 1970."""

    subject: str
    stamp: str
    grants: tuple[Grant, ...]
    expires: int


@dataclass(frozen=True, slots=True)
class Signed:
    text: str
    issued: datetime
    seconds: int


class Tokens:
    """`issuer` and `service` go into every token and are asked of every token: one that was made for another registry
    with the same keys is none of ours."""

    def __init__(self, keyring: Keyring, issuer: str, service: str, lifetime: timedelta, clock: Clock) -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._service = service
        self._lifetime = lifetime
        self._now = clock

    @property
    def service(self) -> str:
        return self._service

    async def sign(self, principal: Principal, grants: Sequence[Grant]) -> Signed:
        await self._keyring.refresh()
        kid, key = self._keyring.signing()
        now = self._now()
        end = now + self._lifetime if principal.expires is None else min(now + self._lifetime, principal.expires)
        issued = int(now.timestamp())
        seconds = int(end.timestamp()) - issued
        claims = {
            "iss": self._issuer, "aud": self._service, "sub": principal.subject, "iat": issued, "nbf": issued,
            "exp": issued + seconds, "jti": secrets.token_urlsafe(9), "stamp": principal.stamp,
            "access": [{"type": item.type, "name": item.name, "actions": sorted(item.actions)} for item in grants],
        }
        text = jwt.encode({"typ": "JWT", "alg": ALGORITHM, "kid": kid}, claims, key, algorithms=[ALGORITHM])
        return Signed(text, now, seconds)

    async def verify(self, text: str) -> Claims:
        """Raises InvalidToken."""
        await self._keyring.refresh()
        key = self._keyring.checking(_kid(text))
        if key is None:
            raise InvalidToken("it was not signed by this registry")
        try:
            claims = jwt.decode(text, key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, KeyError):
            raise InvalidToken("its signature is wrong") from None
        self._check(claims)
        return _claims(claims)

    def _check(self, claims: dict[str, Any]) -> None:
        now = self._now().timestamp()
        exp, nbf, iat = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
        if claims.get("iss") != self._issuer or claims.get("aud") != self._service:
            raise InvalidToken("it is for another service")
        if now >= exp:
            raise InvalidToken("it has expired")
        if now + LEEWAY < max(nbf, iat):
            raise InvalidToken("it is not valid yet")


def _kid(text: str) -> str:
    """What an unchecked token says of the key it was signed with. Raises InvalidToken."""
    head, dot, _ = text.partition(".")
    if not dot or len(text) > MAX_BYTES:
        raise InvalidToken("it is no token")
    try:
        header = json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, RecursionError):
        raise InvalidToken("it is no token") from None
    kid = header.get("kid") if isinstance(header, dict) else None
    if not isinstance(kid, str) or header.get("alg") != ALGORITHM:
        raise InvalidToken("it was not signed by this registry")
    return kid


def _seconds(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int):
        raise InvalidToken("it has no times")
    return value


def _claims(claims: dict[str, Any]) -> Claims:
    """Of a token whose signature is ours: its form is what `sign` made."""
    try:
        grants = tuple(Grant(item["type"], item["name"], frozenset(item["actions"])) for item in claims["access"])
        subject, stamp = claims["sub"], claims["stamp"]
    except (KeyError, TypeError):
        raise InvalidToken("it was made by another version") from None
    if not isinstance(subject, str) or not isinstance(stamp, str):
        raise InvalidToken("it was made by another version")
    return Claims(subject, stamp, grants, claims["exp"])
