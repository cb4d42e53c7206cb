"""Login of people through an OpenID Connect provider: the authorization code flow with PKCE (RFC 7636, RFC 9700).

One attempt lives in the browser's cookie (`Attempt`), so strangers who begin logins cost us nothing. What comes back is
believed only with the attempt's `state`, exchanged only with its verifier, and only for an ID token with its `nonce`.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from ocispec.errors import InvalidArgument, Unauthenticated, Unavailable
from registry.auth.issuers import Issuer, Issuers
from registry.auth.principal import Principal

DISCOVERY_FRESH = 3600.0
ATTEMPT_LASTS = 600
MAX_ATTEMPT = 3000
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class LoginFailed(Unauthenticated):
    """The provider did not vouch for anybody; the message says what was missing."""


class Web(Protocol):
    """The little HTTP that this needs. Both raise Unavailable."""

    async def get(self, url: str) -> bytes: ...

    async def post(self, url: str, form: Mapping[str, str], credentials: tuple[str, str]) -> bytes:
        """The body of a 200, or of a 400 (where the token endpoint explains itself)."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """`name` is ours (see `issuers.Issuer`). `admin_group`: who the provider says is in it may administer; empty:
    nobody."""

    name: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    admin_group: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")

    def check(self) -> None:
        """Raises InvalidArgument."""
        for name in ("client_id", "client_secret"):
            if not getattr(self, name):
                raise InvalidArgument(f"the login provider {self.name} has no {name}")
        if not _safe(self.issuer):
            raise InvalidArgument(f"the login provider {self.name} must be reached by https: {self.issuer!r}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """`go` is where the browser goes afterwards: a path of ours."""

    state: str
    nonce: str
    verifier: str
    go: str
    begun: float

    @classmethod
    def begin(cls, go: str, now: float) -> "Attempt":
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), local(go), now)

    def to_cookie(self) -> str:
        values = [self.state, self.nonce, self.verifier, self.go, self.begun]
        return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()

    @classmethod
    def from_cookie(cls, text: str, now: float) -> "Attempt":
        """Raises LoginFailed. The cookie is the browser's own, and still nothing in it is trusted to be well-formed."""
        try:
            values = json.loads(base64.urlsafe_b64decode(text)) if len(text) <= MAX_ATTEMPT else None
        except (ValueError, RecursionError):
            values = None
        match values:
            case [str(state), str(nonce), str(verifier), str(go), float(begun) | int(begun)] if (
                    0 <= now - begun <= ATTEMPT_LASTS):
                return cls(state, nonce, verifier, local(go), begun)
        raise LoginFailed("this login was not begun here, or too long ago: begin again")


class Login:
    """The flow with one provider. For one event loop."""

    def __init__(self, provider: Provider, web: Web) -> None:
        provider.check()
        self._provider = provider
        self._web = web
        self._discovered: Mapping[str, str] = {}
        self._until = 0.0
        self._issuers: Issuers | None = None

    def now(self) -> float:
        return time.time()

    def begin(self, go: str) -> Attempt:
        return Attempt.begin(go, self.now())

    async def address(self, attempt: Attempt, callback: str) -> str:
        """Where to send the browser. `callback`: our URL that it comes back to. Raises Unavailable."""
        found = await self._discover()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode({
            "response_type": "code", "client_id": self._provider.client_id, "redirect_uri": callback,
            "scope": " ".join(self._provider.scopes), "state": attempt.state, "nonce": attempt.nonce,
            "code_challenge": challenge, "code_challenge_method": "S256"})
        there = found["authorization_endpoint"]
        return f"{there}{'&' if '?' in there else '?'}{query}"

    async def finish(self, attempt: Attempt, answer: Mapping[str, str], callback: str) -> Principal:
        """Who it is. `answer` is the query that the provider sent the browser back with. Raises LoginFailed,
        TokenRefused and Unavailable."""
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise LoginFailed("this login was not begun in this browser: begin again")
        if "error" in answer:
            raise LoginFailed(f"the provider refused the login: {answer['error'][:100]!r}")
        if answer.get("iss", self._provider.issuer) != self._provider.issuer:
            raise LoginFailed("the answer is of another provider")  # RFC 9207
        found = await self._discover()
        raw = await self._web.post(found["token_endpoint"], {
            "grant_type": "authorization_code", "code": answer.get("code", ""), "redirect_uri": callback,
            "code_verifier": attempt.verifier}, (self._provider.client_id, self._provider.client_secret))
        token = _id_token(raw)
        assert self._issuers is not None
        principal = await self._issuers.identify(token)
        # Signed, by now: what remains to be seen is that it answers this attempt.
        claims = _claims(token)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), attempt.nonce.encode()):
            raise LoginFailed("the provider's token answers another login")
        if claims.get("azp", self._provider.client_id) != self._provider.client_id:
            raise LoginFailed("the provider's token was made for another application")
        return self._person(principal)

    def _person(self, principal: Principal) -> Principal:
        wanted = f"{self._provider.name}:{self._provider.admin_group}"
        admin = bool(self._provider.admin_group) and wanted in principal.groups
        return Principal(principal.name, principal.kind, principal.groups, admin=admin)

    async def _discover(self) -> Mapping[str, str]:
        if time.monotonic() < self._until:
            return self._discovered
        raw = await self._web.get(f"{self._provider.issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            document = json.loads(raw)
            found = {name: document[name] for name in ("issuer", "authorization_endpoint", "token_endpoint",
                                                       "jwks_uri")}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unavailable(f"the login provider's configuration cannot be read: {type(error).__name__}") from error
        # A provider that names another issuer would have us believe its tokens as that one's (OIDC Discovery 4.3).
        if found["issuer"] != self._provider.issuer or not all(
                isinstance(url, str) and _safe(url) for url in found.values()):
            raise Unavailable("the login provider's configuration is not for this issuer, or not all https")
        self._issuers = Issuers([Issuer(
            self._provider.name, self._provider.issuer, self._provider.client_id, found["jwks_uri"],
            self._provider.algorithms, self._provider.name_claim, self._provider.groups_claim)], self._web.get)
        self._discovered, self._until = found, time.monotonic() + DISCOVERY_FRESH
        return found


def local(path: str) -> str:
    """`path` if it is a path of ours, else `/`: nobody is sent elsewhere by a link to us (zot's callback_ui). Browsers
    read a backslash as a slash and drop control characters, so those are out as well."""
    plain = path.isascii() and path.isprintable() and "\\" not in path and " " not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"


def _safe(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))


def _id_token(raw: bytes) -> str:
    try:
        document = json.loads(raw)
        token = document.get("id_token")
        reason = document.get("error", "no id_token")
    except (ValueError, AttributeError, RecursionError) as error:
        raise LoginFailed("the provider's answer cannot be read") from error
    if not isinstance(token, str):
        raise LoginFailed(f"the provider gave no token: {str(reason)[:100]!r}")
    return token


def _claims(token: str) -> dict[str, Any]:
    """Of a token whose signature was verified."""
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims
