"""Users and what they log in with."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from registry.api.admin.operation import Asked, Operation, Paged, Strict
from registry.auth import accounts
from registry.auth.accounts import Accounts

Password = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Groups = Annotated[list[str], msgspec.Meta(max_length=200)]


class User(msgspec.Struct, frozen=True):
    name: str
    admin: bool
    enabled: bool
    has_password: bool
    groups: list[str]
    created: datetime

    @classmethod
    def of(cls, user: accounts.User) -> "User":
        return cls(user.name, user.admin, user.enabled, user.has_password, sorted(user.groups), user.created)


class Users(msgspec.Struct, frozen=True):
    items: list[User]
    next: str


class NewUser(Strict, frozen=True):
    """Without a password: somebody who logs in by other means."""

    name: str
    password: Password | None = None
    admin: bool = False
    groups: Groups = msgspec.field(default_factory=list)


class UserChange(Strict, frozen=True):
    """What is left out stays. `groups` are exactly these afterwards. `force`: also if nobody could administer the
    registry any more."""

    admin: bool | None = None
    enabled: bool | None = None
    groups: Groups | None = None
    force: bool = False


class NewPassword(Strict, frozen=True):
    password: Password


class Removal(Strict, frozen=True):
    force: bool = False


class UserOperations:
    def __init__(self, users: Accounts) -> None:
        self._users = users

    def operations(self) -> Sequence[Operation]:
        return (
            Operation("GET", "/users", "Users by name", self.list, query=Paged, result=Users),
            Operation("POST", "/users", "Make a user", self.add, body=NewUser, result=User, status=201,
                      failures=(409,)),
            Operation("GET", "/users/{name}", "One user", self.get, result=User),
            Operation("PATCH", "/users/{name}", "Change rights and groups", self.change, body=UserChange, result=User,
                      failures=(409,)),
            Operation("PUT", "/users/{name}/password", "Set the password; whatever was issued before is void",
                      self.password, body=NewPassword, result=None),
            Operation("DELETE", "/users/{name}", "Remove a user and all that was issued to it", self.remove,
                      query=Removal, result=None, failures=(409,)),
        )

    async def list(self, asked: Asked) -> Users:
        wanted: Paged = asked.query
        found = await self._users.list(wanted.limit, wanted.after)
        return Users([User.of(user) for user in found], found[-1].name if len(found) == wanted.limit else "")

    async def add(self, asked: Asked) -> User:
        new: NewUser = asked.body
        return User.of(await self._users.add(new.name, new.password, admin=new.admin, groups=new.groups,
                                             origin=asked.origin))

    async def get(self, asked: Asked) -> User:
        return User.of(await self._users.get(asked.parameters["name"]))

    async def change(self, asked: Asked) -> User:
        name, change = asked.parameters["name"], asked.body
        await self._users.get(name)
        await self._users.set_flags(name, admin=change.admin, enabled=change.enabled, force=change.force,
                                    origin=asked.origin)
        if change.groups is not None:
            await self._users.set_groups(name, change.groups, origin=asked.origin)
        return User.of(await self._users.get(name))

    async def password(self, asked: Asked) -> None:
        await self._users.set_password(asked.parameters["name"], asked.body.password, origin=asked.origin)

    async def remove(self, asked: Asked) -> None:
        await self._users.remove(asked.parameters["name"], force=asked.query.force, origin=asked.origin)
