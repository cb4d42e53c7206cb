"""Robot tokens."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from registry.api.admin.operation import Asked, Operation, Paged, Strict
from registry.auth import robots
from registry.auth.robots import MAX_SCOPE, Robots, grant

MAX_LIFETIME = 100 * 366 * 86400


class Grant(Strict, frozen=True):
    """In repositories that match `pattern`, these actions: pull, create, push, delete, admin."""

    pattern: str
    actions: list[str]


class Robot(msgspec.Struct, frozen=True):
    """`expires` null: never. `scope` null: what the owner or the policies allow."""

    name: str
    owner: str | None
    scope: list[Grant] | None
    admin: bool
    created: datetime
    expires: datetime | None

    @classmethod
    def of(cls, robot: robots.Robot) -> "Robot":
        scope = None if robot.scope is None else [Grant(part.name, sorted(part.actions)) for part in robot.scope]
        return cls(robot.name, robot.owner, scope, robot.admin, robot.created, robot.expires)


class RobotList(msgspec.Struct, frozen=True):
    items: list[Robot]
    next: str


class NewRobot(Strict, frozen=True):
    """`owner` as `user:NAME` or `group:NAME`. `lifetime` in seconds; left out: for ever."""

    name: str
    owner: str | None = None
    scope: Annotated[list[Grant], msgspec.Meta(min_length=1, max_length=MAX_SCOPE)] | None = None
    lifetime: Annotated[int, msgspec.Meta(gt=0, le=MAX_LIFETIME)] | None = None
    admin: bool = False


class MadeRobot(msgspec.Struct, frozen=True):
    """`token` is shown this once, and kept nowhere."""

    robot: Robot
    token: str


class RobotOperations:
    def __init__(self, made: Robots) -> None:
        self._robots = made

    def operations(self) -> Sequence[Operation]:
        return (
            Operation("GET", "/robots", "Robots by name", self.list, query=Paged, result=RobotList),
            Operation("POST", "/robots", "Make a robot and its token", self.create, body=NewRobot, result=MadeRobot,
                      status=201, failures=(409,)),
            Operation("GET", "/robots/{name}", "One robot", self.get, result=Robot),
            Operation("DELETE", "/robots/{name}", "Make a robot's token void", self.revoke, result=None),
        )

    async def list(self, asked: Asked) -> RobotList:
        wanted: Paged = asked.query
        found = await self._robots.list(wanted.limit, wanted.after)
        return RobotList([Robot.of(item) for item in found], found[-1].name if len(found) == wanted.limit else "")

    async def create(self, asked: Asked) -> MadeRobot:
        new: NewRobot = asked.body
        scope = None if new.scope is None else [grant(part.pattern, part.actions) for part in new.scope]
        lifetime = None if new.lifetime is None else timedelta(seconds=new.lifetime)
        made, token = await self._robots.create(new.name, owner=new.owner, scope=scope, lifetime=lifetime,
                                                admin=new.admin, origin=asked.origin)
        return MadeRobot(Robot.of(made), token)

    async def get(self, asked: Asked) -> Robot:
        return Robot.of(await self._robots.get(asked.parameters["name"]))

    async def revoke(self, asked: Asked) -> None:
        await self._robots.revoke(asked.parameters["name"], origin=asked.origin)
