"""Who presents this: passwords, robot tokens and our own bearer tokens, checked against accounts.

What was found good is remembered (see `remembered`), so `known` answers the next request of the same credential from
memory, as long as no account has changed.
"""

import asyncio
import base64
import binascii
from dataclasses import replace
from datetime import datetime
from typing import NoReturn

from registry.auth import subjects
from registry.auth.challenge import LoginRequired
from registry.auth.opaque import Opaque, Purpose
from registry.auth.passwords import Passwords
from registry.auth.principal import ANONYMOUS, Grant, Kind, Presented, Principal
from registry.auth.remembered import Remembered
from registry.auth.robots import robot_of
from registry.auth.throttle import Throttle
from registry.auth.tokens import InvalidToken, Tokens
from registry.auth.users import KnownUser, Users
from storage.metadata import accounts, robots
from storage.metadata.engine import Database
from storage.metadata.robots import RobotRow

MAX_HEADER = 16 * 1024
REMEMBER = 3600.0
"""Seconds after which also a credential without an end is checked anew."""

_TOPIC = f"!{accounts.TOPIC}"
_WRONG = "the name or the password is wrong"


class AccountAuthenticator:
    """`tokens` None: there is no token server, and bearer tokens other than robots' are refused."""

    def __init__(self, database: Database, users: Users, passwords: Passwords, throttle: Throttle,
                 tokens: Tokens | None) -> None:
        self._database = database
        self._users = users
        self._passwords = passwords
        self._throttle = throttle
        self._tokens = tokens
        self._remembered = Remembered(lambda: database.now().timestamp())
        self._checking: dict[bytes, asyncio.Future[None]] = {}

    def known(self, presented: Presented) -> Principal | None:
        header = presented.authorization
        if header is None or len(header) > MAX_HEADER:
            return None
        # `Access` asked the policy first, whose answer came from `Changes.mark`: it has looked (see `Changes.peek`).
        mark = (self._database.changes.peek(_TOPIC), self._users.mark())
        return self._remembered.get(self._remembered.digest(header), mark)

    async def identify(self, presented: Presented) -> Principal:
        """Raises LoginRequired and TooManyLogins."""
        header = presented.authorization
        if header is None:
            return ANONYMOUS
        if len(header) > MAX_HEADER:
            raise LoginRequired("the Authorization header is too long")
        digest = self._remembered.digest(header)
        known = self._remembered.get(digest, self._mark())
        if known is not None:
            return known
        scheme, _, value = header.partition(" ")
        match scheme.lower():
            case "basic":
                name, password = _basic(value.strip())
                return await self._log_in(name, password, digest, presented.remote)
            case "bearer":
                return await self._bearer(value.strip(), digest, presented.remote)
        raise LoginRequired("the Authorization header is neither Basic nor Bearer")

    async def log_in(self, name: str, password: str, remote: str) -> Principal:
        """The same for a name and a password that came another way (a form). Raises what `identify` does."""
        return await self._log_in(name, password, self._remembered.digest(f"form {name}\0{password}"), remote)

    async def account(self, subject: str, stamp: str) -> Principal:
        """The principal that something was issued to, as it is now. Raises InvalidToken when the account is gone or
        its stamp another one."""
        kind, _, name = subject.partition(":")
        principal: Principal | None = None
        if kind == Kind.USER.value:
            user = await self._users.find(name)
            principal = _user(user) if user else None
        elif kind == Kind.ROBOT.value:
            async with self._database.read() as tx:
                row = await robots.by_name(tx, name)
            principal = await self._robot(row) if row else None
        elif kind == Kind.CERTIFICATE.value:
            principal = Principal(name, Kind.CERTIFICATE)  # it has no account that could change; tokens are short
        if principal is None or principal.stamp != stamp:
            raise InvalidToken("the account has changed since it was issued")
        return principal

    async def _log_in(self, name: str, password: str, digest: bytes, remote: str) -> Principal:
        token = Opaque.parse(password)
        if token is not None:
            return await self._token(token, digest, remote)
        mark = self._before()
        # One check at a time for one credential: a client that opens many connections at once waits for the first.
        while (running := self._checking.get(digest)) is not None:
            await asyncio.wait([running])
            known = self._remembered.get(digest, mark)
            if known is not None:
                return known
        self._checking[digest] = asyncio.get_running_loop().create_future()
        try:
            user = await self._password(name, password, digest, remote)
        finally:
            self._checking.pop(digest).set_result(None)
        principal = _user(user)
        self._remembered.put(digest, principal, mark, self._database.now().timestamp() + REMEMBER, user.password or "")
        return principal

    async def _password(self, name: str, password: str, digest: bytes, remote: str) -> KnownUser:
        user = await self._users.find(name) if _could_be(name) else None
        stored = user.password if user else None
        if user and stored and self._remembered.proves(digest, stored):
            return user
        self._throttle.check(name[:128], remote)
        right = await self._passwords.check(password, stored, self._users.decoy())
        if user is None or not right:
            self._throttle.failed(name[:128], remote)
            raise LoginRequired(_WRONG)
        self._throttle.succeeded(name[:128], remote)
        return user

    async def _bearer(self, text: str, digest: bytes, remote: str) -> Principal:
        token = Opaque.parse(text)
        if token is not None:
            return await self._token(token, digest, remote)
        if self._tokens is None:
            raise LoginRequired("this registry takes names and passwords, or robot tokens", error="invalid_token")
        mark = self._before()
        claims = await self._tokens.verify(text)
        account = await self.account(claims.subject, claims.stamp) if claims.subject else ANONYMOUS
        principal = _limited(account, claims.grants)
        self._remembered.put(digest, principal, mark, claims.expires)
        return principal

    async def _token(self, token: Opaque, digest: bytes, remote: str) -> Principal:
        """A good token is never slowed down by bad ones from the same address: nobody can guess one."""
        mark = self._before()
        async with self._database.read() as tx:
            row = await robots.by_key(tx, token.key)
        if row is None or not token.proves(row.secret) or token.purpose is Purpose.REFRESH:
            self._refuse(remote)
        now = self._database.now()
        if row.expires is not None and row.expires <= now:
            raise LoginRequired("this token has expired", error="invalid_token")
        principal = await self._robot(row)
        if principal is None:
            raise LoginRequired("the owner of this token is gone", error="invalid_token")
        self._remembered.put(digest, principal, mark, _until(now, row.expires))
        return principal

    def _refuse(self, remote: str) -> NoReturn:
        self._throttle.check("", remote)
        self._throttle.failed("", remote)
        raise LoginRequired("this token is not known here", error="invalid_token")

    async def _robot(self, row: RobotRow) -> Principal | None:
        """None: the user it acts for is gone, or it has expired."""
        robot = robot_of(row)
        if robot.expires is not None and robot.expires <= self._database.now():
            return None
        kind, _, owner = (robot.owner or "").partition(":")
        if kind != "user":
            groups = frozenset({owner}) if kind == "group" else frozenset[str]()
            return Principal(robot.name, Kind.ROBOT, groups, admin=robot.admin, scope=robot.scope, stamp=row.key,
                             expires=robot.expires)
        user = await self._users.find(owner)
        if user is None:
            return None
        # An administrator's robot may do everything with content, and administer nothing.
        scope = (_EVERYTHING,) if user.admin and robot.scope is None else robot.scope
        return Principal(robot.name, Kind.ROBOT, user.groups, admin=user.admin, scope=scope, owner=user.name,
                         stamp=row.key, expires=robot.expires)

    def _mark(self) -> object | None:
        """What a remembered credential has to have been found good under; None: believe none."""
        mark = self._database.changes.mark(_TOPIC)
        return None if mark is None else (mark, self._users.mark())

    def _before(self) -> object:
        """What to remember a credential under that is going to be checked now."""
        return self._database.changes.before(_TOPIC), self._users.mark()


_EVERYTHING = Grant("repository", "**", frozenset({"admin"}))


def _user(user: KnownUser) -> Principal:
    return Principal(user.name, Kind.USER, user.groups, admin=user.admin, stamp=user.stamp)


def _limited(account: Principal, grants: tuple[Grant, ...]) -> Principal:
    return replace(account, grants=grants)


def _until(now: datetime, expires: datetime | None) -> float:
    end = now.timestamp() + REMEMBER
    return end if expires is None else min(end, expires.timestamp())


def _could_be(name: str) -> bool:
    try:
        subjects.name(name)
    except subjects.InvalidName:
        return False
    return True


def _basic(value: str) -> tuple[str, str]:
    """Name and password (RFC 7617, UTF-8). Raises LoginRequired."""
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        raise LoginRequired("the Basic credentials cannot be read") from None
    name, colon, password = text.partition(":")
    if not colon:
        raise LoginRequired("the Basic credentials cannot be read")
    return name, password
