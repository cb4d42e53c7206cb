"""Secrets and configs: two kinds of one thing, encrypted in state.db. A secret's data leaves for containers alone.

Docker keeps these in a swarm; here every node has its own, under the same API. Data never changes: a new version is a
new secret, which containers get when they are made anew.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from node.events import Event, EventBus
from node.secrets.cipher import Cipher, read_key
from node.state.secrets import SecretRow, SecretRowExists, SecretRows
from ocispec.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

SECRET, CONFIG = "secret", "config"
LIMITS = {SECRET: 500 * 1024, CONFIG: 1000 * 1024}
"""Bytes of data, exclusive, as in swarm."""

MAX_NAME = 64
_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")
_ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"

Users = Callable[[str], Collection[str]]
"""The names of the containers that have one, by its id."""


class NoSuchSecret(NotFound):
    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name[:100]} not found")


class SecretExists(AlreadyExists):
    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"rpc error: code = AlreadyExists desc = {kind} {name} already exists")


class SecretInUse(InvalidArgument):
    def __init__(self, kind: str, name: str, users: Collection[str]) -> None:
        one = "container" if len(users) == 1 else "containers"
        super().__init__(f"rpc error: code = InvalidArgument desc = {kind} '{name}' is in use by the following {one}: "
                         f"{', '.join(users)}")


class InvalidSecret(InvalidArgument):
    """Name, labels or data cannot be."""


class OutOfSequence(FailedPrecondition):
    def __init__(self) -> None:
        super().__init__("rpc error: code = Unknown desc = update out of sequence")


@dataclass(frozen=True, slots=True)
class Secret:
    kind: str
    id: str
    """25 letters, as swarm's."""

    name: str
    version: int
    created: str
    """RFC 3339, UTC."""

    updated: str
    labels: Mapping[str, str]


class Secrets:
    """Names are a full id, a name, or an id prefix that only one has. All raise NoSuchSecret."""

    def __init__(self, rows: SecretRows, key: Path, events: EventBus) -> None:
        self._rows = rows
        self._key = key
        self._events = events
        self._cipher: Cipher | None = None
        self._lock = asyncio.Lock()
        self._opening = asyncio.Lock()

    async def create(self, kind: str, name: str, data: bytes, labels: Mapping[str, str]) -> Secret:
        """Raises InvalidSecret, SecretExists, KeyUnusable."""
        if len(name) > MAX_NAME or not _NAME.fullmatch(name):
            raise InvalidSecret("rpc error: code = InvalidArgument desc = invalid name, only 64 [a-zA-Z0-9-_.] "
                                "characters allowed, and the start and end character must be [a-zA-Z0-9]")
        if not 0 < len(data) < LIMITS[kind]:
            raise InvalidSecret(f"rpc error: code = InvalidArgument desc = {kind} data must be larger than 0 and less "
                                f"than {LIMITS[kind]} bytes")
        secret_id, now = "".join(secrets.choice(_ID_LETTERS) for _ in range(25)), _now()
        cipher = await self._opened()
        row = SecretRow(secret_id, kind, name, 1, now, now, dict(labels), cipher.seal(data, f"{kind} {secret_id}"))
        async with self._lock:
            try:
                await self._rows.add(row)
            except SecretRowExists as error:
                raise SecretExists(kind, name) from error
        self._tell("create", row)
        return _secret(row)

    async def find(self, kind: str, name: str) -> Secret:
        return _secret(await self._find(kind, name))

    async def list(self, kind: str) -> Sequence[Secret]:
        return [_secret(row) for row in await self._rows.all(kind)]

    async def read(self, kind: str, name: str) -> bytes:
        """The data, for a container (or of a config, for whoever asks). Raises Undecipherable."""
        row = await self._find(kind, name)
        return (await self._opened()).open(row.data, f"{kind} {row.id}")

    async def relabel(self, kind: str, name: str, version: int, labels: Mapping[str, str]) -> None:
        """Raises OutOfSequence when somebody else was quicker."""
        async with self._lock:
            row = await self._find(kind, name)
            if row.version != version:
                raise OutOfSequence
            row = replace(row, version=version + 1, updated=_now(), labels=dict(labels))
            await self._rows.relabel(row)
        self._tell("update", row)

    async def remove(self, kind: str, name: str, users: Users) -> None:
        """Raises SecretInUse."""
        async with self._lock:
            row = await self._find(kind, name)
            if used := users(row.id):
                raise SecretInUse(kind, row.name, used)
            await self._rows.delete(row.id)
        self._tell("remove", row)

    async def _find(self, kind: str, name: str) -> SecretRow:
        rows = await self._rows.all(kind)
        exact = [row for row in rows if row.id == name] or [row for row in rows if row.name == name]
        found = exact or [row for row in rows if name and row.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        raise NoSuchSecret(kind, name)

    async def _opened(self) -> Cipher:
        """The key is read, and made, when the first secret needs it."""
        # One at a time: who came second would read the file that the first has made and not written yet.
        async with self._opening:
            if self._cipher is None:
                self._cipher = Cipher(await asyncio.to_thread(read_key, self._key))
        return self._cipher

    def _tell(self, action: str, row: SecretRow) -> None:
        self._events.publish(Event(row.kind, action, row.id, {"name": row.name}))


def _secret(row: SecretRow) -> Secret:
    return Secret(row.kind, row.id, row.name, row.version, row.created, row.updated, row.labels)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
