"""Contents at rest: AES-256-GCM under a key of the node's own, bound to the row they stand in."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from node.errors import InternalError
from ocispec.errors import FailedPrecondition

KEY_BYTES, NONCE_BYTES = 32, 12


class KeyUnusable(FailedPrecondition):
    """The key file is no key, or not only its owner's."""


class Undecipherable(InternalError):
    """The row was written under another key, moved, or changed."""


class Cipher:
    def __init__(self, key: bytes) -> None:
        self._aes = AESGCM(key)

    def seal(self, data: bytes, place: str) -> bytes:
        """`place`: what the result belongs to; nowhere else does it open."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aes.encrypt(nonce, data, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Raises Undecipherable."""
        try:
            return self._aes.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError) as error:
            raise Undecipherable(f"{place} cannot be deciphered with the node's key") from error


def read_key(path: Path) -> bytes:
    """Made when missing. Blocks. Raises KeyUnusable."""
    try:
        return _make(path)
    except FileExistsError:
        pass
    except OSError as error:
        raise KeyUnusable(f"the key {path} cannot be made: {error.strerror}") from error
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                raise KeyUnusable(f"the key {path} can be read by others than its owner: chmod 600")
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise KeyUnusable(f"the key {path} cannot be read: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise KeyUnusable(f"the key {path} does not hold {KEY_BYTES} bytes")
    return key


def _make(path: Path) -> bytes:
    """Whole and durable, or not there: a key cut short would make every secret unreadable. Raises FileExistsError."""
    if path.exists():
        raise FileExistsError
    key, aside = os.urandom(KEY_BYTES), path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(descriptor)
        os.link(aside, path)
    finally:
        aside.unlink()
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
