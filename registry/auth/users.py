"""Where users come from. One registry has one source: its database, or an htpasswd file."""

from dataclasses import dataclass, field
from typing import Protocol

from storage.metadata import accounts as rows
from storage.metadata.engine import Database


@dataclass(frozen=True, slots=True)
class KnownUser:
    """`password` is a hash; None: no password is right. `stamp` changes with the password, and when a name that was
    given up is given again: what was issued under another one is void."""

    name: str
    password: str | None = field(repr=False)
    stamp: str = field(repr=False)
    admin: bool = False
    groups: frozenset[str] = frozenset()


class Users(Protocol):
    async def find(self, name: str) -> KnownUser | None:
        """None: there is nobody of this name who may log in."""
        ...

    def mark(self) -> object:
        """Equal to an earlier one as long as nothing that `find` says has changed since, unless the database's topic
        `accounts` did, which is watched anyway. From memory, without waiting."""
        ...

    def decoy(self) -> str | None:
        """A hash of the kind that users have, for those who do not exist; None: the usual one."""
        ...


class DatabaseUsers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, name: str) -> KnownUser | None:
        async with self._database.read() as tx:
            row = await rows.find(tx, name)
        if row is None or not row.enabled:
            return None
        return KnownUser(row.name, row.password, row.stamp, row.admin, row.groups)

    def mark(self) -> object:
        return 0

    def decoy(self) -> str | None:
        return None
