"""Tokens that mean nothing by themselves: `swr_<key><secret><check>`.

The prefix lets a scanner recognise a leaked one (`swr_` robot, `swa_` administrator, `swf_` refresh), the check tells
a mistyped one, and most guesses, from a real one without asking the database. The key finds the row; the row has the
SHA-256 of the whole token. That is enough for 238 random bits: a slow hash is for what people make up.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field
from enum import Enum

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY, _SECRET, _CHECK = 12, 40, 6
_FORM = re.compile(rf"(sw[raf])_([0-9A-Za-z]{{{_KEY}}})[0-9A-Za-z]{{{_SECRET}}}[0-9A-Za-z]{{{_CHECK}}}")


class Purpose(Enum):
    """The prefix: one kind is never good as another."""

    ROBOT = "swr"
    ADMIN = "swa"
    REFRESH = "swf"


@dataclass(frozen=True, slots=True)
class Opaque:
    """A token as it was made or shown. `text` is the secret itself."""

    purpose: Purpose
    key: str
    text: str = field(repr=False)

    @classmethod
    def new(cls, purpose: Purpose) -> "Opaque":
        key, secret = _random(_KEY), _random(_SECRET)
        body = f"{purpose.value}_{key}{secret}"
        return cls(purpose, key, body + _check(body))

    @classmethod
    def parse(cls, text: str) -> "Opaque | None":
        """None: this is no such token."""
        match = _FORM.fullmatch(text)
        if match is None or _check(text[:-_CHECK]) != text[-_CHECK:]:
            return None
        return cls(Purpose(match[1]), match[2], text)

    @property
    def hash(self) -> str:
        """What is stored."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def proves(self, stored: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(self.hash, stored)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _check(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    while len(digits) < _CHECK:
        number, digit = divmod(number, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits
