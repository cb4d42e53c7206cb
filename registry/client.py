"""A registry's administration from elsewhere: the services of `auth` and `storage.rules`, asked over its API.

The commands work on whichever they are given, so a verb means the same on the registry's own machine and from a
laptop. What only the holder of the database may do says so.
"""

import ssl
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from ocispec.digest import Digest
from ocispec.errors import InvalidArgument, SeawallError, Unavailable, Unimplemented
from ocispec.reference import RepositoryName
from registry.api.admin import policies as policy_wire
from registry.api.admin import robots as robot_wire
from registry.api.admin import rules as rule_wire
from registry.api.admin import users as user_wire
from registry.api.admin.openapi import Failures
from registry.auth.accounts import User
from registry.auth.policies import Verdict, decide, make_rule
from registry.auth.principal import Grant, Principal
from registry.auth.robots import Robot
from registry.auth.rules import Rule
from storage.metadata.rules import ImmutableRule, Kind, QuotaRule, RetentionRule, UntaggedRule
from storage.metadata.rules import Rule as ContentRule
from storage.metadata.tags import HeldTag
from storage.rules.accounting import Usage
from storage.rules.book import Quota, RuleBook
from storage.rules.retention import TagVerdict

T = TypeVar("T")

TIMEOUT = aiohttp.ClientTimeout(total=60)
MAX_ANSWER = 64 * 1024 * 1024
LOOPBACK = ("127.0.0.1", "::1", "localhost")
GOOD = range(200, 300)
_NO_DIGEST, _NEVER = Digest("sha256", "0" * 64), datetime.fromtimestamp(0, UTC)
"""For what a verdict has and nobody looks at from here."""



class Refused(SeawallError):
    """What the registry answered, in its own words."""


@dataclass(frozen=True, slots=True)
class Server:
    """`url` is scheme, host and port. `ca`: a PEM file that the certificate is verified against instead of the
    system's."""

    url: str
    token: str
    ca: str = ""

    def check(self) -> None:
        """Raises InvalidArgument: a token must not be read on its way."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise InvalidArgument(f"not the URL of a registry: {self.url!r} (want https://HOST[:PORT])")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise InvalidArgument(f"{self.url} has no TLS: the token could be read on its way")


class Api:
    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def call(self, method: str, path: str, kind: type[T] | None = None, *, body: Any = None,
                   **query: str | int | None) -> T:
        """The answer as `kind`; without one nothing is expected. Raises Refused, Unavailable."""
        parameters = {name: str(value) for name, value in query.items() if value not in (None, "")}
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            async with self._session.request(method, f"{self._base}/api/v1{path}", params=parameters, data=data,
                                             headers=headers, allow_redirects=False) as answer:
                raw = await answer.content.read(MAX_ANSWER)
                while not answer.content.at_eof() and len(raw) < MAX_ANSWER:
                    raw += await answer.content.read(MAX_ANSWER - len(raw))
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self._base} does not answer: {error}") from error
        if status not in GOOD:
            _refused(self._base, status, raw)
        if kind is None:
            return None  # type: ignore[return-value]  # nothing was asked for
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise Unavailable(f"{self._base} answers what this program does not understand: {error}") from error


def _refused(base: str, status: int, raw: bytes) -> NoReturn:
    try:
        message = "; ".join(failure.message for failure in msgspec.json.decode(raw, type=Failures).errors)
    except (msgspec.ValidationError, msgspec.DecodeError):
        message = f"{base} answers {status}, and not as a Seawall registry would"
    raise Refused(message)


class RemoteAccounts:
    """`auth.accounts.Accounts`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def add(self, name: str, password: str | None, *, admin: bool = False, groups: Collection[str] = ()) -> User:
        body = user_wire.NewUser(name, password, admin, sorted(groups))
        return _user(await self._api.call("POST", "/users", user_wire.User, body=body))

    async def get(self, name: str) -> User:
        return _user(await self._api.call("GET", f"/users/{_segment(name)}", user_wire.User))

    async def list(self, limit: int = 1000, after: str = "") -> list[User]:
        page = await self._api.call("GET", "/users", user_wire.Users, limit=limit, after=after)
        return [_user(user) for user in page.items]

    async def remove(self, name: str, *, force: bool = False) -> None:
        await self._api.call("DELETE", f"/users/{_segment(name)}", force="true" if force else None)

    async def set_password(self, name: str, password: str) -> None:
        await self._api.call("PUT", f"/users/{_segment(name)}/password", body=user_wire.NewPassword(password))

    async def set_groups(self, name: str, groups: Collection[str]) -> None:
        await self._api.call("PATCH", f"/users/{_segment(name)}", user_wire.User, body={"groups": sorted(groups)})

    async def set_flags(self, name: str, *, admin: bool | None = None, enabled: bool | None = None,
                        force: bool = False) -> None:
        body = user_wire.UserChange(admin, enabled, None, force)
        await self._api.call("PATCH", f"/users/{_segment(name)}", user_wire.User, body=body)


class RemoteRobots:
    """`auth.robots.Robots`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create(self, name: str, *, owner: str | None = None, scope: Sequence[Grant] | None = None,
                     lifetime: timedelta | None = None, admin: bool = False) -> tuple[Robot, str]:
        grants = None if scope is None else [robot_wire.Grant(part.name, sorted(part.actions)) for part in scope]
        seconds = None if lifetime is None else int(lifetime.total_seconds())
        made = await self._api.call("POST", "/robots", robot_wire.MadeRobot,
                                    body=robot_wire.NewRobot(name, owner, grants, seconds, admin))
        return _robot(made.robot), made.token

    async def get(self, name: str) -> Robot:
        return _robot(await self._api.call("GET", f"/robots/{_segment(name)}", robot_wire.Robot))

    async def list(self, limit: int = 1000, after: str = "") -> list[Robot]:
        page = await self._api.call("GET", "/robots", robot_wire.RobotList, limit=limit, after=after)
        return [_robot(robot) for robot in page.items]

    async def revoke(self, name: str) -> None:
        await self._api.call("DELETE", f"/robots/{_segment(name)}")

    async def new_admin(self) -> tuple[Robot, str]:
        _only_there("makes an administrator out of whoever holds the database")


class RemotePolicies:
    """`auth.policies.Policies`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def all(self) -> list[Rule]:
        found = await self._api.call("GET", "/policies", policy_wire.PolicyList)
        return [make_rule(item.pattern, item.subject, item.actions) for item in found.items]

    async def set(self, pattern: str, subject: str, words: Collection[str]) -> Rule:
        body = policy_wire.Policy(pattern, subject, sorted(words))
        made = await self._api.call("POST", "/policies", policy_wire.Policy, body=body)
        return make_rule(made.pattern, made.subject, made.actions)

    async def remove(self, pattern: str, subject: str | None = None) -> int:
        before = await self.all()
        await self._api.call("DELETE", "/policies", pattern=pattern, subject=subject)
        return sum(rule.pattern.text == pattern and subject in (None, rule.subject) for rule in before)

    async def replace(self, rules: Sequence[Rule]) -> None:
        body = policy_wire.PolicyList([policy_wire.Policy.of(rule) for rule in rules])
        await self._api.call("PUT", "/policies", policy_wire.PolicyList, body=body)

    async def check(self, principal: Principal, repository: RepositoryName) -> Verdict:
        return decide(await self.all(), principal, repository)


class RemoteKeyring:
    """`auth.keyring.Keyring`."""

    async def rotate(self, *, revoke: bool = False) -> str:  # noqa: ARG002
        _only_there("changes the key that tokens are signed with")


class RemoteRules:
    """`storage.rules.service.Rules`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def current(self) -> RuleBook:
        found = await self._api.call("GET", "/rules", rule_wire.RuleBook)
        return RuleBook([*map(rule_wire.Retention.rule, found.retention), *map(rule_wire.Untagged.rule, found.untagged),
                         *map(rule_wire.Immutable.rule, found.immutable), *map(rule_wire.Quota.rule, found.quotas)])

    async def put(self, rule: ContentRule) -> None:
        match rule:
            case RetentionRule():
                await self._api.call("PUT", "/rules/retention", body=rule_wire.Retention.of(rule))
            case UntaggedRule():
                await self._api.call("PUT", "/rules/untagged", body=rule_wire.Untagged.of(rule))
            case ImmutableRule():
                await self._api.call("PUT", "/rules/immutable", body=rule_wire.Immutable.of(rule))
            case QuotaRule():
                await self._api.call("PUT", "/rules/quotas", body=rule_wire.Quota.of(rule))

    async def remove(self, kind: Kind, repositories: str, tags: str | None = None) -> int:
        if kind is Kind.QUOTA:
            await self._api.call("DELETE", "/rules/quotas", namespace=repositories)
        else:
            await self._api.call("DELETE", f"/rules/{kind.value}", repositories=repositories, tags=tags)
        return 1


class RemoteRetention:
    """`gc.retire.Retention`, as far as it explains."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def explain(self, book: RuleBook | None = None) -> AsyncIterator[tuple[RepositoryName, list[TagVerdict]]]:
        """Raises Refused when there is more than one answer holds."""
        clauses = None
        if book is not None:
            clauses = [rule_wire.Retention.of(rule) for rule in book.rules if isinstance(rule, RetentionRule)]
        found = await self._api.call("POST", "/rules/retention/preview", rule_wire.Previewed,
                                     body=rule_wire.Preview(clauses, everything=True))
        if len(found.items) < found.stay + found.go:
            raise Refused(f"{found.go} tags would go and {found.stay} stay: too many to show from elsewhere")
        for name, items in groupby(found.items, key=lambda item: item.repository):
            yield RepositoryName(name), [TagVerdict(HeldTag(item.tag, 0, _NO_DIGEST, _NEVER), item.lives, item.why)
                                         for item in items]


class RemoteAccounting:
    """`rules.accounting.Accounting`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def usage(self, book: RuleBook | None = None, *, count: bool = False) -> list[Usage]:
        if book is not None:
            _only_there("tries a quota out")
        found = await self._api.call("GET", "/rules/quotas/usage", rule_wire.QuotaUses,
                                     count="true" if count else None)
        return [Usage(Quota(item.namespace, item.limit), item.used, item.counted) for item in found.items]

    async def repair(self) -> None:
        """The server does that by itself when a quota is set."""


@dataclass(frozen=True, slots=True)
class RemoteHousekeeping:
    retention: RemoteRetention
    accounting: RemoteAccounting


@dataclass(frozen=True, slots=True)
class RemoteContent:
    rules: RemoteRules


@dataclass(frozen=True, slots=True)
class RemoteIdentity:
    """What `auth.identity.Identity` has for administration."""

    accounts: RemoteAccounts
    robots: RemoteRobots
    policies: RemotePolicies
    keyring: RemoteKeyring


@dataclass(frozen=True, slots=True)
class RemoteRegistry:
    """What `app.Registry` has for administration."""

    identity: RemoteIdentity
    content: RemoteContent
    housekeeping: RemoteHousekeeping


@asynccontextmanager
async def open_remote(server: Server) -> AsyncIterator[RemoteRegistry]:
    """Raises InvalidArgument."""
    server.check()
    try:
        context = ssl.create_default_context(cafile=server.ca or None)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"cannot use {server.ca}: {error}") from error
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    async with aiohttp.ClientSession(timeout=TIMEOUT, headers=headers,
                                     connector=aiohttp.TCPConnector(ssl=context)) as session:
        api = Api(session, server.url.rstrip("/"))
        identity = RemoteIdentity(RemoteAccounts(api), RemoteRobots(api), RemotePolicies(api), RemoteKeyring())
        housekeeping = RemoteHousekeeping(RemoteRetention(api), RemoteAccounting(api))
        yield RemoteRegistry(identity, RemoteContent(RemoteRules(api)), housekeeping)


def _only_there(what: str) -> NoReturn:
    raise Unimplemented(f"this {what}: run it where the registry's database is, without --server")


def _segment(name: str) -> str:
    return quote(name, safe="")


def _user(user: user_wire.User) -> User:
    return User(user.name, user.admin, user.enabled, user.has_password, frozenset(user.groups), user.created)


def _robot(robot: robot_wire.Robot) -> Robot:
    scope = None if robot.scope is None else tuple(
        Grant("repository", part.pattern, frozenset(part.actions)) for part in robot.scope)
    return Robot(robot.name, robot.owner, scope, robot.admin, robot.created, robot.expires)


