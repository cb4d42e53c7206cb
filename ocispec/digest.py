"""Content addresses: `algorithm:encoded` (OCI image-spec, descriptor.md, "Digests")."""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocispec.errors import InvalidArgument

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_LOWER_HEX = re.compile(r"[0-9a-f]+")

ALGORITHMS = tuple(_HEX_LENGTH)
"""Algorithms we hash with. The two that the image-spec registers and every client knows."""


class InvalidDigest(InvalidArgument):
    """The text is no digest, or one of an algorithm that we do not compute."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A verified-shape digest; `str()` gives `sha256:…`. Build it with `parse` or `of`, not by hand."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Raises InvalidDigest for bad grammar, an unknown algorithm, a wrong length or upper-case hex."""
        if len(text) > 200 or not _GRAMMAR.fullmatch(text):
            raise InvalidDigest(f"invalid digest: {text[:200]!r}", detail=text[:200])
        algorithm, _, encoded = text.partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if length is None:
            raise InvalidDigest(f"unsupported digest algorithm: {algorithm!r}", detail=text)
        if len(encoded) != length or not _LOWER_HEX.fullmatch(encoded):
            raise InvalidDigest(f"invalid {algorithm} digest: {encoded!r} is not {length} lower-case hex digits",
                                detail=text)
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> "Digest":
        hasher = new_hasher(algorithm)
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())

    @property
    def short(self) -> str:
        """The 12 characters that Docker shows."""
        return self.encoded[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def new_hasher(algorithm: str) -> "Hash":
    """A hashlib object for one of ALGORITHMS. Raises InvalidDigest for any other name."""
    if algorithm not in _HEX_LENGTH:
        raise InvalidDigest(f"unsupported digest algorithm: {algorithm[:64]!r}", detail=algorithm[:64])
    return hashlib.new(algorithm, usedforsecurity=False)
