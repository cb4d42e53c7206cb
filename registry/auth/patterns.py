"""Patterns of repository names: `team/app`, `team/*`, `team-?/**`.

`*` and `?` stand for characters within one segment, `**` for any number of whole segments, also none: `team/**` is
`team` and all below it. Of several patterns that match a name the most specific one decides: they are compared segment
by segment from the left, and a plain segment beats one with wildcards, that beats `*`, that beats `**`.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from ocispec.errors import InvalidArgument
from ocispec.reference import RepositoryName

MAX_LENGTH = 255
MAX_STARS = 2
"""Wildcards in one segment, and `**` in one pattern: what matching costs grows with their power."""

_SEGMENT = re.compile(r"[a-z0-9._*?-]{1,255}")
_END, _OPEN_END = (4, 0), (-1, 0)


class InvalidPattern(InvalidArgument):
    """The text is no pattern of repository names."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """`rank` grows with how specific it is; `prefix` is what every name that matches begins with."""

    text: str
    rank: tuple[tuple[int, int], ...]
    prefix: str
    _regex: re.Pattern[str] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Raises InvalidPattern."""
        return _parse(text)

    def matches(self, repository: RepositoryName) -> bool:
        return self._regex.fullmatch(repository.value) is not None

    @property
    def subtree(self) -> str | None:
        """`team` when this is `team/**`, the empty name for `**`: it matches exactly what is there or below."""
        if self.text == "**":
            return ""
        head = self.text.removesuffix("/**")
        return head if head != self.text and "*" not in head and "?" not in head else None

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=4096)
def _parse(text: str) -> Pattern:
    segments = text.split("/")
    if not 0 < len(text) <= MAX_LENGTH or not all(map(_is_segment, segments)):
        raise InvalidPattern(f"not a pattern of repository names: {text[:300]!r} (want for example team/app, team/*, "
                             "team/**)", detail={"pattern": text[:300]})
    if segments.count("**") > MAX_STARS or any(a == b == "**" for a, b in pairwise(segments)):
        raise InvalidPattern(f"too many ** in {text[:300]!r}: two at most, and none beside another")
    rank = (*map(_weight, segments), _OPEN_END if segments[-1] == "**" else _END)
    prefix = re.split(r"/\*\*|[*?]", text, maxsplit=1)[0]
    return Pattern(text, rank, prefix, re.compile(_expression(segments)))


def _is_segment(text: str) -> bool:
    if text == "**":
        return True
    return _SEGMENT.fullmatch(text) is not None and "**" not in text and text.count("*") <= MAX_STARS


def _weight(segment: str) -> tuple[int, int]:
    if segment in ("**", "*"):
        return (0 if segment == "**" else 1, 0)
    literal = len(segment) - segment.count("*") - segment.count("?")
    return (3 if literal == len(segment) else 2, literal)


def _expression(segments: list[str]) -> str:
    if segments == ["**"]:
        return r".+"
    made, joined = "", False
    for place, segment in enumerate(segments):
        if segment == "**":
            made += r"(?:/[^/]+)*" if place else r"(?:[^/]+/)*"
            joined = not place
            continue
        made += ("" if joined or not place else "/") + _segment(segment)
        joined = False
    return made


def _segment(text: str) -> str:
    return re.escape(text).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
