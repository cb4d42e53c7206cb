"""Tokens of issuers outside: another token server's registry tokens, and OpenID Connect identities of CI jobs and pods.

Keys come from the issuer's own key set alone. What a token's header says of keys (`jwk`, `jku`, `x5c`, `x5u`) is never
looked at, and its `kid` only chooses among known keys; trusting the header was distribution's CVE-2025-24976.
Algorithms are the asymmetric ones on the issuer's list, and each only with its own type of key.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import time
import warnings
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact

from ocispec.errors import InvalidArgument, SeawallError, Unauthenticated, Unavailable
from registry.auth.principal import Grant, Kind, Principal

log = logging.getLogger(__name__)

KEY_TYPES: Mapping[str, str] = {
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
    "ES256": "EC", "ES384": "EC", "ES512": "EC", "EdDSA": "OKP", "Ed25519": "OKP",
}
"""Algorithms that may be configured. None of them is symmetric: a public key must never be taken for a secret."""

LEEWAY = 60  # seconds that clocks may differ
MAX_TOKEN = 16 * 1024
MAX_KEYS = 100
MAX_GRANTS = 200
REMEMBERED = 2048
KEYS_FRESH = 300.0
KEYS_AGAIN = 10.0
"""Seconds. A key set is believed for the first; a token with an unknown key asks again, but not within the second, so
that made-up key ids cause no storm of requests at the issuer."""

_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")

Fetch = Callable[[str], Awaitable[bytes]]
"""Gives the document at a URL or path. Raises Unavailable."""


class TokenRefused(Unauthenticated):
    """The token proves nothing; the message says why without repeating it."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """`issuer` and `audience` are what `iss` and `aud` must be. `keys` is the key set's URL or file. A token with an
    `access` claim grants what that says, if `grants` allows the issuer to; otherwise it is an identity, named by
    `name_claim` and `groups_claim`, whose rights are those of the policy. `name` is ours: policies call the issuer's
    people and groups `external:<name>:<who>` and `group:<name>:<group>`."""

    name: str
    issuer: str
    audience: str
    keys: str
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    name_claim: str = "sub"
    groups_claim: str = "groups"
    grants: bool = False

    def check(self) -> None:
        """Raises InvalidArgument."""
        if not _LABEL.fullmatch(self.name):
            raise InvalidArgument(f"an issuer of tokens needs a name of small letters, not {self.name[:50]!r}")
        for name in ("issuer", "audience", "keys"):
            if not getattr(self, name):
                raise InvalidArgument(f"the issuer of tokens {self.name} has no {name}")
        unknown = [name for name in self.algorithms if name not in KEY_TYPES]
        if unknown or not self.algorithms:
            raise InvalidArgument(f"issuer {self.name}: {', '.join(unknown) or 'no algorithm'} is not usable "
                                  f"(want some of {', '.join(KEY_TYPES)})")


class Issuers:
    """Verifies bearer tokens of the configured issuers. For one event loop."""

    def __init__(self, issuers: Sequence[Issuer], fetch: Fetch, clock: Callable[[], float] = time.time) -> None:
        for issuer in issuers:
            issuer.check()
        self._issuers = {issuer.issuer: (issuer, _Keys(issuer, fetch)) for issuer in issuers}
        if len(self._issuers) != len(issuers) or len({issuer.name for issuer in issuers}) != len(issuers):
            raise InvalidArgument("two issuers of tokens have the same name or URL")
        self._clock = clock
        self._verified: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._issuers)

    def knows(self, token: str) -> bool:
        """Whether the token says that it comes from one of these issuers: nobody else need look at it."""
        if self._issuers:
            with contextlib.suppress(TokenRefused):
                return _claimed_issuer(token) in self._issuers
        return False

    def known(self, token: str) -> Principal | None:
        """From memory, while the token is valid."""
        found = self._verified.get(_name(token))
        return found[0] if found and self._clock() < found[1] else None

    async def identify(self, token: str) -> Principal:
        """Raises TokenRefused; Unavailable when the issuer's keys cannot be had."""
        found = self.known(token)
        if found is not None:
            return found
        issuer, keys = self._issuers.get(_claimed_issuer(token), (None, None))
        if issuer is None or keys is None:
            raise TokenRefused("the token is of an issuer that this registry does not know")
        header = _header(token)
        claims = await self._verify(token, header, issuer, keys)
        principal = _principal(issuer, claims)
        self._remember(token, principal, float(claims["exp"]))
        return principal

    async def _verify(self, token: str, header: Mapping[str, Any], issuer: Issuer, keys: "_Keys") -> dict[str, Any]:
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise TokenRefused("the token is signed with an algorithm that is not allowed")
        if "crit" in header:
            raise TokenRefused("the token demands an extension that is not supported")
        for key in await keys.candidates(header.get("kid"), KEY_TYPES[algorithm]):
            with contextlib.suppress(JoseError, ValueError, TypeError), warnings.catch_warnings():
                # RFC 9864 renames EdDSA to Ed25519; issuers will sign under the old name for years.
                warnings.simplefilter("ignore", SecurityWarning)
                return self._check(jwt.decode(token, key, algorithms=[algorithm]).claims, issuer)
        raise TokenRefused("the token's signature is by no key of its issuer")

    def _check(self, claims: dict[str, Any], issuer: Issuer) -> dict[str, Any]:
        """Raises TokenRefused, which no caller takes for "try the next key"."""
        registry = jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()), leeway=LEEWAY, iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience}, exp={"essential": True})
        try:
            registry.validate(claims)
        except JoseError as error:
            raise TokenRefused(f"the token is not valid here: {error.error.replace('_', ' ')}") from error
        return claims

    def _remember(self, token: str, principal: Principal, expires: float) -> None:
        self._verified[_name(token)] = (principal, expires)
        if len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)


class _Keys:
    """An issuer's key set, fetched when it is wanted; the last one is used while the issuer is down."""

    def __init__(self, issuer: Issuer, fetch: Fetch) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._keys: KeySet | None = None
        self._asked = float("-inf")
        self._lock = asyncio.Lock()

    async def candidates(self, kid: object, kind: str) -> Sequence[Any]:
        """Keys of the type that may have signed: with this id, or all when the token names none."""
        await self._refresh(KEYS_FRESH)
        found = self._matching(kid, kind)
        if not found:
            await self._refresh(KEYS_AGAIN)
            found = self._matching(kid, kind)
        return found

    def _matching(self, kid: object, kind: str) -> Sequence[Any]:
        return [key for key in self._keys or () if key.key_type == kind and (kid is None or key.kid == kid)
                and key.as_dict(private=False).get("use", "sig") == "sig"]

    async def _refresh(self, age: float) -> None:
        async with self._lock:
            if time.monotonic() - self._asked < age:
                if self._keys is None:
                    raise Unavailable(f"the keys of {self._issuer.issuer} cannot be had")
                return
            self._asked = time.monotonic()
            try:
                self._keys = _parse(await self._fetch(self._issuer.keys))
            except SeawallError as error:
                if self._keys is None:
                    raise Unavailable(f"the keys of {self._issuer.issuer} cannot be had: {error.message}") from error
                log.warning("keys of %s: %s; going on with those of before", self._issuer.issuer, error.message)


def _parse(raw: bytes) -> KeySet:
    try:
        document = json.loads(raw)
        listed = document["keys"]
        # Private parts and symmetric keys have no business in a published set: a file given by mistake is refused.
        if any("d" in key or key.get("kty") == "oct" for key in listed):
            raise Unavailable("the key set holds private keys")
        return KeySet.import_key_set({"keys": listed[:MAX_KEYS]})
    except (ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
        raise Unavailable(f"the key set cannot be read: {type(error).__name__}") from error


def _principal(issuer: Issuer, claims: Mapping[str, Any]) -> Principal:
    name = claims.get(issuer.name_claim)
    if not isinstance(name, str) or not name or not name.isprintable():
        raise TokenRefused(f"the token has no usable {issuer.name_claim!r} claim")
    groups = claims.get(issuer.groups_claim, ())
    if not isinstance(groups, list | tuple) or not all(isinstance(group, str) for group in groups):
        groups = ()
    grants = _grants(claims.get("access")) if issuer.grants and "access" in claims else None
    # Without the issuer's name one issuer could name its people after another's, or after our own groups.
    return Principal(f"{issuer.name}:{name}", Kind.EXTERNAL, frozenset(f"{issuer.name}:{group}" for group in groups),
                     grants)


def _grants(access: object) -> tuple[Grant, ...]:
    """The `access` claim of the token specification. Raises TokenRefused."""
    if not isinstance(access, list) or len(access) > MAX_GRANTS:
        raise TokenRefused("the token's access claim is malformed")
    found = []
    for item in access:
        match item:
            case {"type": str(kind), "name": str(name), "actions": list(actions)} if (
                all(isinstance(action, str) for action in actions)):
                found.append(Grant(kind, name, frozenset(actions)))
            case _:
                raise TokenRefused("the token's access claim is malformed")
    return tuple(found)


def _header(token: str) -> Mapping[str, Any]:
    try:
        header: Mapping[str, Any] = extract_compact(token.encode()).headers()
    except (JoseError, ValueError, UnicodeError) as error:
        raise TokenRefused("this is no token") from error
    return header


def _claimed_issuer(token: str) -> str:
    """Not believed: it chooses whose keys the token is checked with. Raises TokenRefused."""
    if len(token) > MAX_TOKEN:
        raise TokenRefused("the token is too long")
    try:
        issuer = json.loads(extract_compact(token.encode()).payload)["iss"]
    except (JoseError, ValueError, KeyError, TypeError, UnicodeError, RecursionError) as error:
        raise TokenRefused("this is no token") from error
    if not isinstance(issuer, str):
        raise TokenRefused("this is no token")
    return issuer


def _name(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
