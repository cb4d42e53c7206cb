"""The token server's decision: which of the asked scopes a principal gets, and what `docker login` keeps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ocispec.errors import InvalidArgument
from ocispec.reference import InvalidName, RepositoryName
from registry.auth.actions import Action
from registry.auth.authenticator import AccountAuthenticator
from registry.auth.challenge import LoginRequired
from registry.auth.opaque import Opaque, Purpose
from registry.auth.policy import Policy
from registry.auth.principal import Grant, Kind, Principal
from registry.auth.tokens import InvalidToken, Tokens
from storage.metadata import refresh_tokens as rows
from storage.metadata.engine import Database
from storage.metadata.refresh_tokens import RefreshRow

MAX_SCOPES = 100
MAX_REFRESH = 100
"""Refresh tokens of one account; the oldest go first."""

_WORDS = {"pull": Action.PULL, "push": Action.PUSH, "delete": Action.DELETE}
_TYPE = re.compile(r"repository(?:\([a-z0-9]+\))?")


class InvalidScope(InvalidArgument):
    """A token was asked for in a way that cannot be answered."""


@dataclass(frozen=True, slots=True)
class Scope:
    """`type:name:actions` of the token specification."""

    type: str
    name: str
    actions: frozenset[str]

    @classmethod
    def parse_all(cls, texts: Sequence[str]) -> "list[Scope]":
        """Several may stand in one text, separated by spaces. Raises InvalidScope."""
        words = [word for text in texts for word in text.split()]
        if len(words) > MAX_SCOPES:
            raise InvalidScope(f"more than {MAX_SCOPES} scopes for one token")
        return [cls._parse(word) for word in words]

    @classmethod
    def _parse(cls, text: str) -> "Scope":
        kind, colon, rest = text.partition(":")
        name, second, actions = rest.rpartition(":")
        if not colon or not second or not name:
            raise InvalidScope(f"not a scope: {text[:200]!r} (want type:name:action,…)")
        return cls(kind, name, frozenset(actions.split(",")))


@dataclass(frozen=True, slots=True)
class Issued:
    """`granted` are the scopes that the token is good for; `refresh` is there when it was asked for."""

    token: str
    issued: datetime
    seconds: int
    granted: tuple[Grant, ...]
    refresh: str | None


class TokenService:
    """`refresh_lifetime`: of what `docker login` keeps."""

    def __init__(self, database: Database, tokens: Tokens, policy: Policy, authenticator: AccountAuthenticator,
                 refresh_lifetime: timedelta) -> None:
        self._database = database
        self._tokens = tokens
        self._policy = policy
        self._authenticator = authenticator
        self._refresh_lifetime = refresh_lifetime

    def check_service(self, service: str | None) -> None:
        """Raises InvalidScope for a token that another registry would have to issue."""
        if service and service != self._tokens.service:
            raise InvalidScope(f"tokens for {service[:200]!r} are not issued here")

    async def issue(self, principal: Principal, scopes: Sequence[Scope], *, offline: bool = False,
                    client: str = "") -> Issued:
        """What is not granted is left out, as the specification wants: the client hears of it when it uses the token.
        Raises LoginRequired for a principal that came with a bearer token: a token begets no token."""
        if principal.grants is not None:
            raise LoginRequired("a bearer token cannot be exchanged for another", error="invalid_token")
        if principal.kind is Kind.EXTERNAL:
            # Its groups stand in its own token alone, which serves as a bearer token just as well.
            raise LoginRequired("tokens of other issuers are used as they are, not exchanged", error="invalid_token")
        if offline and principal.kind is Kind.CERTIFICATE:
            raise LoginRequired("a client certificate gets no refresh token: it is shown again", error="invalid_token")
        if not self._policy.current():
            await self._policy.refresh()
        granted = tuple(grant for scope in scopes if (grant := self._grant(principal, scope)) is not None)
        signed = await self._tokens.sign(principal, granted)
        refresh = await self._refresh(principal, client) if offline and not principal.is_anonymous else None
        return Issued(signed.text, signed.issued, signed.seconds, granted, refresh)

    async def log_in(self, name: str, password: str, remote: str) -> Principal:
        """Raises LoginRequired, TooManyLogins."""
        return await self._authenticator.log_in(name, password, remote)

    async def redeem(self, refresh: str) -> Principal:
        """Whom a refresh token was given to. Raises InvalidToken."""
        token = Opaque.parse(refresh)
        if token is None or token.purpose is not Purpose.REFRESH:
            raise InvalidToken("it is no refresh token")
        async with self._database.read() as tx:
            row = await rows.find(tx, token.key)
        if row is None or not token.proves(row.secret) or row.expires <= self._database.now():
            raise InvalidToken("it is not known, or it has expired: log in again")
        return await self._authenticator.account(row.subject, row.stamp)

    def _grant(self, principal: Principal, scope: Scope) -> Grant | None:
        if (scope.type, scope.name) == ("registry", "catalog"):
            listed = "*" in scope.actions and not self._policy.forbids(principal, Action.LIST, None)
            return Grant("registry", "catalog", frozenset({"*"})) if listed else None
        if not _TYPE.fullmatch(scope.type):
            return None
        try:
            repository = RepositoryName.parse(scope.name)
        except InvalidName:
            return None
        wanted = set(_WORDS) if "*" in scope.actions else scope.actions & set(_WORDS)
        given = frozenset(word for word in wanted if not self._policy.forbids(principal, _WORDS[word], repository))
        return Grant("repository", repository.value, given) if given else None

    async def _refresh(self, principal: Principal, client: str) -> str:
        token, now = Opaque.new(Purpose.REFRESH), self._database.now()
        row = RefreshRow(token.key, token.hash, principal.subject, principal.stamp, client[:255], now,
                         now + self._refresh_lifetime)
        async with self._database.write() as tx:
            await rows.insert(tx, row, MAX_REFRESH)
        return token.text
