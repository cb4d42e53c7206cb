"""Robots: tokens with a name, for programs. A token is shown once; what is kept proves it and cannot be used."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ocispec.errors import AlreadyExists, InvalidArgument, NotFound
from registry.auth import subjects
from registry.auth.actions import parse_words
from registry.auth.opaque import Opaque, Purpose
from registry.auth.patterns import Pattern
from registry.auth.principal import Grant
from storage.events import Action, Event, Origin
from storage.metadata import accounts, events, robots
from storage.metadata.engine import Database
from storage.metadata.robots import RobotRow

ADMIN_NAME = "admin"
MAX_SCOPE = 100


class RobotExists(AlreadyExists):
    """The name is taken."""


class RobotUnknown(NotFound):
    """There is no robot of this name."""


class InvalidRobot(InvalidArgument):
    """A robot that could do nothing, or more than can be said."""


@dataclass(frozen=True, slots=True)
class Robot:
    """`owner` is a subject (`user:ann`, `group:dev`) whose rights bound it; without one `scope` is all it may, and
    without a scope the policies say."""

    name: str
    owner: str | None
    scope: tuple[Grant, ...] | None
    admin: bool
    created: datetime
    expires: datetime | None


class Robots:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, *, owner: str | None = None, scope: Sequence[Grant] | None = None,
                     lifetime: timedelta | None = None, admin: bool = False,
                     origin: Origin | None = None) -> tuple[Robot, str]:
        """And its token, which nobody can show again. Raises InvalidName, InvalidPattern, InvalidActions, InvalidRobot,
        RobotExists, UserUnknown."""
        robot = self._checked(name, owner, scope, lifetime, admin)
        token = Opaque.new(Purpose.ADMIN if admin else Purpose.ROBOT)
        row = RobotRow(name, token.key, token.hash, owner, _to_json(robot.scope), admin, robot.created, robot.expires)
        async with self._database.write() as tx:
            if owner and owner.startswith("user:") and await accounts.find(tx, owner.removeprefix("user:")) is None:
                raise InvalidRobot(f"there is no user {owner.removeprefix('user:')!r}")
            if not await robots.insert(tx, row):
                raise RobotExists(f"there is a robot {name!r} already")
            if origin is not None:
                await events.record(tx, Event(Action.TOKEN_CREATE, origin, detail={
                    "robot": name, "owner": owner or "", "admin": admin}), robot.created)
        return robot, token.text

    async def get(self, name: str) -> Robot:
        """Raises RobotUnknown."""
        async with self._database.read() as tx:
            row = await robots.by_name(tx, name)
        if row is None:
            raise RobotUnknown(f"there is no robot {name[:100]!r}")
        return robot_of(row)

    async def list(self, limit: int = 1000, after: str = "", owner: str | None = None) -> list[Robot]:
        """By name, after `after`; all, or those of one owner."""
        async with self._database.read() as tx:
            return [robot_of(row) for row in await robots.listed(tx, limit, after, owner)]

    async def revoke(self, name: str, *, origin: Origin | None = None) -> None:
        """Its token, and what was got with it, is void from now on. Raises RobotUnknown."""
        async with self._database.write() as tx:
            if not await robots.delete(tx, name):
                raise RobotUnknown(f"there is no robot {name[:100]!r}")
            if origin is not None:
                await events.record(tx, Event(Action.TOKEN_REVOKE, origin, detail={"robot": name}),
                                    self._database.now())

    async def new_admin(self) -> tuple[Robot, str]:
        """An administrator's token under the first name that is free: for who has the database in hand."""
        for number in range(1, 1000):
            try:
                return await self.create(ADMIN_NAME if number == 1 else f"{ADMIN_NAME}-{number}", admin=True)
            except RobotExists:
                continue
        raise RobotExists(f"there are robots {ADMIN_NAME} to {ADMIN_NAME}-999 already: revoke some")

    def _checked(self, name: str, owner: str | None, scope: Sequence[Grant] | None, lifetime: timedelta | None,
                 admin: bool) -> Robot:
        subjects.name(name, "robot")
        if owner is not None and not subjects.parse(owner).startswith(("user:", "group:")):
            raise InvalidRobot(f"a robot's owner is user:NAME or group:NAME, not {owner[:100]!r}")
        if admin and (owner or scope is not None):
            raise InvalidRobot("an administrator's token has neither owner nor scope")
        if lifetime is not None and lifetime <= timedelta(0):
            raise InvalidRobot("a token that has expired already is of no use")
        now = self._database.now()
        return Robot(name, owner, None if scope is None else tuple(map(_checked_grant, _bounded(scope))), admin, now,
                     None if lifetime is None else now + lifetime)


def _bounded(scope: Sequence[Grant]) -> Sequence[Grant]:
    if not 0 < len(scope) <= MAX_SCOPE:
        raise InvalidRobot(f"a scope has between 1 and {MAX_SCOPE} patterns")
    return scope


def _checked_grant(grant: Grant) -> Grant:
    if grant.type != "repository" or not grant.actions:
        raise InvalidRobot("a scope names repositories and what may be done there")
    return Grant("repository", Pattern.parse(grant.name).text, parse_words(grant.actions))


def grant(pattern: str, actions: Collection[str]) -> Grant:
    """A part of a robot's scope."""
    return Grant("repository", pattern, frozenset(actions))


def robot_of(row: RobotRow) -> Robot:
    return Robot(row.name, row.owner, _from_json(row.scope), row.admin, row.created, row.expires)


def _to_json(scope: tuple[Grant, ...] | None) -> str | None:
    if scope is None:
        return None
    return json.dumps([[grant.name, sorted(grant.actions)] for grant in scope])


def _from_json(text: str | None) -> tuple[Grant, ...] | None:
    if text is None:
        return None
    return tuple(Grant("repository", name, frozenset(actions)) for name, actions in json.loads(text))
