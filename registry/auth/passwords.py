"""Passwords: making and checking hashes, off the event loop and no more of them at once than memory allows."""

import asyncio
import re
import secrets
from concurrent.futures import ThreadPoolExecutor

import argon2
import bcrypt
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from ocispec.errors import InvalidArgument
from registry.auth.throttle import TooManyLogins

MAX_LENGTH = 1024
MIN_LENGTH = 8
AT_ONCE = 2
WAITING = 64
"""Checks that may wait. A login beyond is asked to come again: hashing is what a flood of logins would wear us down
with."""

_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-7])\$[./A-Za-z0-9]{53}")
_BCRYPT_MAX = 72  # bytes it looks at; more would be ignored in silence
_ARGON2_MEMORY = 1024 * 1024  # KiB a hash may ask of us: 1 GiB


class InvalidPassword(InvalidArgument):
    """A new password that cannot be one."""


class InvalidHash(InvalidArgument):
    """The text is no password hash of a kind that is accepted."""


class Passwords:
    """One for each process. argon2id with 19 MiB and two passes (OWASP's choice where memory counts): 20 ms or so, and
    at most `AT_ONCE` times 19 MiB, where the library's default would be 64 MiB each."""

    def __init__(self) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
        self._threads = ThreadPoolExecutor(AT_ONCE, "passwords")
        self._waiting = 0
        self._dummy: str | None = None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Raises InvalidPassword."""
        if len(password) < MIN_LENGTH or len(password.encode()) > MAX_LENGTH:
            raise InvalidPassword(f"a password has {MIN_LENGTH} characters at least and {MAX_LENGTH} bytes at most")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, password)

    async def check(self, password: str, stored: str | None, decoy: str | None = None) -> bool:
        """Whether `password` is the one of which `stored` is the hash. None, for a name that nobody has, is never
        right and takes as long, because `decoy` (a hash of the kind that others have) is checked instead. Raises
        TooManyLogins when too many wait already."""
        if self._waiting >= WAITING:
            raise TooManyLogins(1.0, "too many logins at once")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._check, password, stored, decoy)
        finally:
            self._waiting -= 1

    def _check(self, password: str, stored: str | None, decoy: str | None) -> bool:
        if stored is None or len(password.encode()) > MAX_LENGTH:
            self._verify(password[:MAX_LENGTH], decoy or self._nobody())
            return False
        return self._verify(password, stored)

    def _nobody(self) -> str:
        """The hash of a password that nobody knows, made with today's parameters."""
        if self._dummy is None:
            self._dummy = self._hasher.hash(secrets.token_urlsafe())
        return self._dummy

    def _verify(self, password: str, stored: str) -> bool:
        if stored.startswith("$2"):
            raw = password.encode()
            fits = len(raw) <= _BCRYPT_MAX
            return bcrypt.checkpw(raw[:_BCRYPT_MAX], stored.encode()) and fits
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def accepted(stored: str) -> str:
    """A hash from a file, when it is bcrypt or argon2 and costs no more than we would pay. Raises InvalidHash: plain
    text, crypt, MD5 and SHA-1 are recovered in hours from a file that leaks."""
    if _BCRYPT.fullmatch(stored):
        return stored
    if stored.startswith("$argon2"):
        try:
            parameters = argon2.extract_parameters(stored)
        except InvalidHashError:
            raise InvalidHash("not an argon2 hash") from None
        if parameters.memory_cost <= _ARGON2_MEMORY and parameters.time_cost <= 100:
            return stored
        raise InvalidHash("an argon2 hash that would cost too much to check")
    raise InvalidHash("neither bcrypt (htpasswd -B) nor argon2")
