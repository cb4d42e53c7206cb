"""Users and groups as they are kept and changed. Knows nothing of HTTP: the command and the administration API both
stand on it."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from ocispec.errors import AlreadyExists, FailedPrecondition, NotFound
from registry.auth import subjects
from registry.auth.passwords import Passwords
from storage.events import Action, Event, Origin
from storage.metadata import accounts as rows
from storage.metadata import events, refresh_tokens, robots, sessions
from storage.metadata.accounts import UserRow
from storage.metadata.engine import Database, Transaction


class UserExists(AlreadyExists):
    """The name is taken."""


class UserUnknown(NotFound):
    """There is no user of this name."""


class LastAdministrator(FailedPrecondition):
    """Afterwards nobody could administer the registry."""


@dataclass(frozen=True, slots=True)
class User:
    name: str
    admin: bool
    enabled: bool
    has_password: bool
    groups: frozenset[str]
    created: datetime = field(compare=False)


class Accounts:
    """Every change counts in all processes before their next decision."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    async def add(self, name: str, password: str | None, *, admin: bool = False,
                  groups: Collection[str] = (), origin: Origin | None = None) -> User:
        """`password` None: this user logs in by other means. Raises InvalidName, InvalidPassword, UserExists."""
        subjects.name(name)
        checked = _groups(groups)
        hashed = None if password is None else await self._passwords.hash(password)
        row = UserRow(name, hashed, _stamp(), self._database.now(), admin, groups=checked)
        async with self._database.write() as tx:
            if not await rows.insert(tx, row):
                raise UserExists(f"there is a user {name!r} already")
            await self._record(tx, Action.ACCOUNT_CREATE, origin, name, admin=admin)
        return _user(row)

    async def get(self, name: str) -> User:
        """Raises UserUnknown."""
        async with self._database.read() as tx:
            return _user(await self._row(tx, name))

    async def list(self, limit: int = 1000, after: str = "") -> list[User]:
        """By name, after `after`."""
        async with self._database.read() as tx:
            return [_user(row) for row in await rows.listed(tx, limit, after)]

    async def remove(self, name: str, *, force: bool = False, origin: Origin | None = None) -> None:
        """With everything that was issued to the user: robots, refresh tokens, and, by their stamp, bearer tokens.
        Raises UserUnknown, LastAdministrator unless `force`."""
        async with self._database.write() as tx:
            row = await self._row(tx, name)
            await rows.delete(tx, name)
            await robots.delete_of(tx, f"user:{name}")
            await refresh_tokens.delete_of(tx, f"user:{name}")
            await self._keep_one(tx, row, force)
            await self._record(tx, Action.ACCOUNT_DELETE, origin, name)

    async def set_password(self, name: str, password: str, *, origin: Origin | None = None) -> None:
        """What was issued before is void afterwards. Raises UserUnknown, InvalidPassword."""
        hashed = await self._passwords.hash(password)
        async with self._database.write() as tx:
            if not await rows.update(tx, name, password=hashed, stamp=_stamp()):
                raise _unknown(name)
            await refresh_tokens.delete_of(tx, f"user:{name}")
            await sessions.delete_of(tx, f"user:{name}")
            await self._record(tx, Action.ACCOUNT_CHANGE, origin, name, password=True)

    async def set_groups(self, name: str, groups: Collection[str], *, origin: Origin | None = None) -> None:
        """Exactly these. Raises UserUnknown, InvalidName."""
        checked = _groups(groups)
        async with self._database.write() as tx:
            if not await rows.set_groups(tx, name, checked):
                raise _unknown(name)
            await self._record(tx, Action.ACCOUNT_CHANGE, origin, name, groups=sorted(checked)[:50])

    async def set_flags(self, name: str, *, admin: bool | None = None, enabled: bool | None = None,
                        force: bool = False, origin: Origin | None = None) -> None:
        """What is None stays. Raises UserUnknown, LastAdministrator unless `force`."""
        changes = {key: value for key, value in (("admin", admin), ("enabled", enabled)) if value is not None}
        if not changes:
            return
        async with self._database.write() as tx:
            row = await self._row(tx, name)
            await rows.update(tx, name, **changes)
            if enabled is False:
                await refresh_tokens.delete_of(tx, f"user:{name}")
            await self._keep_one(tx, row, force)
            await self._record(tx, Action.ACCOUNT_CHANGE, origin, name, **changes)

    async def _record(self, tx: Transaction, action: Action, origin: Origin | None, name: str,
                      **detail: object) -> None:
        if origin is not None:
            await events.record(tx, Event(action, origin, detail={"user": name, **detail}), self._database.now())

    async def _keep_one(self, tx: Transaction, before: UserRow, force: bool) -> None:
        if force or not (before.admin and before.enabled):
            return
        if not await rows.administrators(tx) and not await robots.administrators(tx, self._database.now()):
            raise LastAdministrator(f"{before.name!r} is the last administrator")

    async def _row(self, tx: Transaction, name: str) -> UserRow:
        row = await rows.find(tx, name)
        if row is None:
            raise _unknown(name)
        return row


def _unknown(name: str) -> UserUnknown:
    return UserUnknown(f"there is no user {name[:100]!r}")


def _groups(groups: Collection[str]) -> frozenset[str]:
    return frozenset(subjects.name(group, "group") for group in groups)


def _stamp() -> str:
    return secrets.token_hex(8)


def _user(row: UserRow) -> User:
    return User(row.name, row.admin, row.enabled, row.password is not None, row.groups, row.created)
