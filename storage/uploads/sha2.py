"""SHA-2 whose state can be kept in a row, so that another process goes on where this one ended without reading back
what is stored (which in a bucket would mean: ending the upload's parts first).

hashlib hides its state. The functions beneath it (OpenSSL's SHA256_Update and its like, in the very library that
hashlib loaded) keep theirs in a struct that is part of OpenSSL's published interface, deprecated since 3.0 and still
there. Where they are missing or behave otherwise, `make` gives hashlib's object, and its users read back.

What is stored is eight words, a count and at most one block: nothing is unpickled (Quay's CVE-2026-32590). It is taken
from our own database alone, and whoever restores it compares its digest with the one recorded beside it.
"""

import ctypes
import functools
import hashlib
import struct
from collections.abc import Callable
from typing import Any, Protocol

from ocispec.digest import new_hasher


class Hasher(Protocol):
    """What we use of hashlib's objects."""

    def update(self, data: bytes | bytearray, /) -> None: ...

    def copy(self) -> "Hasher": ...

    def hexdigest(self) -> str: ...


class InvalidState(ValueError):
    """No state of this algorithm."""


class _Sha256(ctypes.Structure):
    """SHA256_CTX of openssl/sha.h. `block` holds `num` bytes; `bits` counts all, as two words, the low one first."""

    _fields_ = (("h", ctypes.c_uint32 * 8), ("bits", ctypes.c_uint32 * 2), ("block", ctypes.c_uint8 * 64),
                ("num", ctypes.c_uint), ("size", ctypes.c_uint))


class _Sha512(ctypes.Structure):
    """SHA512_CTX."""

    _fields_ = (("h", ctypes.c_uint64 * 8), ("bits", ctypes.c_uint64 * 2), ("block", ctypes.c_uint8 * 128),
                ("num", ctypes.c_uint), ("size", ctypes.c_uint))


_FORMS: dict[str, tuple[type[Any], str, str]] = {
    "sha256": (_Sha256, "SHA256", ">8IQ"), "sha512": (_Sha512, "SHA512", ">8QQ")}
"""The struct, the functions' prefix, and how state is written down: the words, then the count of bytes."""


class Resumable:
    """A Hasher with a `state`. Made by `make` and `restore`."""

    def __init__(self, algorithm: str, library: Any, context: Any) -> None:
        self._algorithm = algorithm
        self._library = library
        self._context = context

    def update(self, data: bytes | bytearray, /) -> None:
        """Lets other threads run meanwhile."""
        size = len(data)
        given: Any = data if isinstance(data, bytes) else (ctypes.c_char * size).from_buffer(data)
        self._library.update(ctypes.byref(self._context), given, size)

    def copy(self) -> "Resumable":
        return Resumable(self._algorithm, self._library, type(self._context).from_buffer_copy(self._context))

    def hexdigest(self) -> str:
        context = type(self._context).from_buffer_copy(self._context)
        digest = ctypes.create_string_buffer(context.size)
        self._library.final(digest, ctypes.byref(context))
        return digest.raw.hex()

    @property
    def count(self) -> int:
        """Bytes hashed so far."""
        low, high = self._context.bits
        return int(low | high << _word(self._context)) // 8

    def state(self) -> bytes:
        context = self._context
        return struct.pack(_FORMS[self._algorithm][2], *context.h, self.count) + bytes(context.block[: context.num])


class _Library:
    def __init__(self, algorithm: str) -> None:
        """Raises OSError and AttributeError where it lacks something."""
        import _hashlib  # late: it is CPython's own detail, and may be missing

        loaded = ctypes.CDLL(_hashlib.__file__)
        prefix = _FORMS[algorithm][1]
        self.init: Callable[..., int] = loaded[f"{prefix}_Init"]
        self.update: Callable[..., int] = loaded[f"{prefix}_Update"]
        self.update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        self.final: Callable[..., int] = loaded[f"{prefix}_Final"]


def make(algorithm: str) -> Hasher:
    """Resumable where that is possible. Raises InvalidDigest for an algorithm that we do not compute."""
    library = _library(algorithm)
    return new_hasher(algorithm) if library is None else _begin(algorithm, library)


def restore(algorithm: str, state: bytes) -> Resumable | None:
    """None where states are not understood. Raises InvalidState."""
    library = _library(algorithm)
    if library is None:
        return None
    form = _FORMS[algorithm][2]
    head, block = state[: struct.calcsize(form)], state[struct.calcsize(form) :]
    made = _begin(algorithm, library)
    context = made._context  # noqa: SLF001  # of this module
    if len(head) != struct.calcsize(form) or len(block) >= len(context.block):
        raise InvalidState(f"no state of {algorithm}")
    *words, count = struct.unpack(form, head)
    if count % len(context.block) != len(block):
        raise InvalidState(f"no state of {algorithm}")
    context.h[:] = words
    context.bits[:] = (count * 8 % (1 << _word(context)), count * 8 >> _word(context))
    context.block[: len(block)] = block
    context.num = len(block)
    return made


def _word(context: Any) -> int:
    """Bits of a word: there are eight in `h`, of eight bits a byte."""
    return ctypes.sizeof(context.h)


def _begin(algorithm: str, library: _Library) -> Resumable:
    context = _FORMS[algorithm][0]()
    library.init(ctypes.byref(context))
    return Resumable(algorithm, library, context)


@functools.cache
def _library(algorithm: str) -> _Library | None:
    """Only one that gives hashlib's results: the struct's layout is checked by using it, not believed."""
    if algorithm not in _FORMS:
        return None
    try:
        library = _Library(algorithm)
    except (ImportError, OSError, AttributeError):
        return None
    data = bytes(range(256)) * 3
    hasher = _begin(algorithm, library)
    for piece in (data[:1], data[1:130], data[130:]):
        hasher.update(piece)
        hasher.update(bytearray(piece))
    expected = hashlib.new(algorithm, data[:1] * 2 + data[1:130] * 2 + data[130:] * 2, usedforsecurity=False)
    return library if hasher.hexdigest() == expected.hexdigest() else None
