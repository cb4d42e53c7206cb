"""An htpasswd file as the source of users: `name:hash` in lines, bcrypt or argon2.

It is read again when it changes, within a second. A new file with a fault in it is reported and not taken: the users
of before go on, rather than everybody being locked out by a slip.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from ocispec.errors import InvalidArgument
from registry.auth import subjects
from registry.auth.passwords import InvalidHash, accepted
from registry.auth.users import KnownUser

LARGEST = 16 * 1024 * 1024
INTERVAL = 1.0
"""Seconds between two looks at the file."""

log = logging.getLogger(__name__)

_Signature = tuple[int, int, int] | None


class InvalidHtpasswd(InvalidArgument):
    """The file cannot be used; the message says which line is wrong, never what stands there."""


class Htpasswd:
    """`admins`: names of those who administer, as the file has no word for it."""

    def __init__(self, path: Path, admins: Collection[str] = ()) -> None:
        """Raises InvalidHtpasswd."""
        self._path = path
        self._admins = frozenset(admins)
        self._version = 0
        self._signature = _signature(path)
        self._hashes = _read(path)

    async def find(self, name: str) -> KnownUser | None:
        stored = self._hashes.get(name)
        if stored is None:
            return None
        return KnownUser(name, stored, hashlib.sha256(stored.encode()).hexdigest()[:32], name in self._admins)

    def mark(self) -> object:
        return self._version

    def decoy(self) -> str | None:
        return next(iter(self._hashes.values()), None)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["Htpasswd"]:
        """Follows the file during the block."""
        watching = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            signature = await asyncio.to_thread(_signature, self._path)
            if signature != self._signature:
                self._signature = signature
                await self._reload()

    async def _reload(self) -> None:
        try:
            self._hashes = await asyncio.to_thread(_read, self._path)
        except InvalidHtpasswd as error:
            log.error("%s; the users of before go on", error.message)  # noqa: TRY400  # the message says it
            return
        self._version += 1
        log.info("%s: %d users", self._path, len(self._hashes))


def _signature(path: Path) -> _Signature:
    try:
        about = os.stat(path)  # noqa: PTH116  # follows the links that configuration volumes are made of
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def _read(path: Path) -> Mapping[str, str]:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        text = raw.decode()
    except OSError as error:
        raise InvalidHtpasswd(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidHtpasswd(f"{path} is not UTF-8") from None
    if len(raw) > LARGEST:
        raise InvalidHtpasswd(f"{path} is larger than {LARGEST} bytes")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            name, stored = _entry(entry, f"{path}, line {number}")
            found.setdefault(name, stored)
    return found


def _entry(line: str, where: str) -> tuple[str, str]:
    name, colon, stored = line.partition(":")
    try:
        if not colon:
            raise InvalidHash("no colon")
        return subjects.name(name), accepted(stored)
    except InvalidHash as error:
        raise InvalidHtpasswd(f"{where}: {error.message}") from None
    except subjects.InvalidName:
        raise InvalidHtpasswd(f"{where}: not a name for a user") from None
