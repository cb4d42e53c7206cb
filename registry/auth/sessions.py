"""Logins of browsers: a random secret in a cookie, its hash in the database.

Every replica knows a session, and a logout counts everywhere at once. A session stands for an account as it is now: its
user's password changed, and it is over. What came from an identity provider (groups, the right to administer) is what
it said at this login, never more than that.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta

from ocispec.errors import Unauthenticated
from registry.auth.principal import Kind, Principal
from storage.metadata import sessions as rows
from storage.metadata.engine import Database
from storage.metadata.sessions import SessionRow

BYTES = 32
MAX_SECRET = 100

Account = Callable[[str, str], Awaitable[Principal]]
"""The principal that a subject and a stamp name, as it is now. Raises Unauthenticated when it is another by now."""


class SessionOver(Unauthenticated):
    """The cookie names no session, or one that has ended."""


class Sessions:
    """`account` answers for our own users; people of a provider exist in their session alone."""

    def __init__(self, database: Database, account: Account, lifetime: timedelta) -> None:
        self._database = database
        self._account = account
        self._lifetime = lifetime

    async def begin(self, principal: Principal) -> str:
        """The secret for the browser; it is nowhere else."""
        secret = secrets.token_urlsafe(BYTES)
        now = self._database.now()
        row = SessionRow(_hash(secret), principal.subject, principal.stamp, principal.groups, principal.admin, now,
                         now + self._lifetime)
        async with self._database.write() as tx:
            await rows.drop_expired(tx, now)
            await rows.insert(tx, row)
        return secret

    async def principal(self, secret: str) -> Principal:
        """Raises SessionOver, and what `account` does."""
        if len(secret) > MAX_SECRET:
            raise SessionOver("this login is over")
        async with self._database.read() as tx:
            row = await rows.find(tx, _hash(secret), self._database.now())
        if row is None:
            raise SessionOver("this login is over")
        kind, _, name = row.subject.partition(":")
        if kind != Kind.EXTERNAL.value:
            return await self._account(row.subject, row.stamp)
        return Principal(name, Kind.EXTERNAL, row.groups, admin=row.admin)

    async def end(self, secret: str) -> None:
        """No error when it is over already."""
        async with self._database.write() as tx:
            await rows.delete(tx, _hash(secret))

    async def end_all(self, subject: str) -> int:
        """Of one account; how many."""
        async with self._database.write() as tx:
            return await rows.delete_of(tx, subject)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
