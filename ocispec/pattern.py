"""Patterns for repository names and tags: `*` is anything but a slash, `**` anything, `?` one character but a slash.

Matched by following all readings at once, a bit each (Baeza-Yates and Gonnet's shift-and): a name of a hostile client
costs its length, however many stars a pattern has. A regular expression of as many stars could take for ever.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from ocispec.errors import InvalidArgument

MAX_LENGTH = 255
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/*?")


class InvalidPattern(InvalidArgument):
    """The text is no pattern."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """`parse` makes one. Two patterns with the same text are equal."""

    text: str
    _literals: dict[str, int] = field(compare=False, repr=False)
    _any: int = field(compare=False, repr=False)
    _within: int = field(compare=False, repr=False)
    _across: int = field(compare=False, repr=False)
    _accepts: int = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Raises InvalidPattern."""
        strange = sorted(set(text) - _ALLOWED)
        if not text or len(text) > MAX_LENGTH or strange:
            raise InvalidPattern(f"not a pattern of 1 to {MAX_LENGTH} characters of a name, * and ?: {text[:300]!r}",
                                 detail={"pattern": text[:300]})
        literals: dict[str, int] = defaultdict(int)
        single = within = across = 0
        bit, position = 1, 0
        while position < len(text):
            character = text[position]
            position += 1
            if character == "*":
                if text[position : position + 1] == "*":
                    across |= bit
                    position += 1
                else:
                    within |= bit
                continue
            if character == "?":
                single |= bit
            else:
                literals[character] |= bit
            bit <<= 1
        return cls(text, dict(literals), single, within, across, bit)

    def matches(self, name: str) -> bool:
        """Whether the pattern describes all of `name`."""
        states = 1
        for character in name:
            steps = self._literals.get(character, 0)
            stays = self._across
            if character != "/":
                steps |= self._any
                stays |= self._within
            states = (states & steps) << 1 | states & stays
            if not states:
                return False
        return bool(states & self._accepts)

    @property
    def weight(self) -> tuple[int, str]:
        """Of two patterns that match a name the heavier is the more precise: it has more characters of its own."""
        return sum(character not in "*?" for character in self.text), self.text

    def __str__(self) -> str:
        return self.text
