"""`.dockerignore`: which paths of a context are left out (Docker's rules, which are not git's).

A pattern is matched against the whole path from the context's root; what lies below a folder that matches is left out
too. `!` takes back, the last pattern that says something about a path decides. `*` and `?` stop at slashes, `**` does
not. Each pattern becomes an expression of RE2, which takes no longer for a hostile one (Python's own would, holding the
interpreter's lock meanwhile).
"""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import re2

from node.dockerfile.errors import InvalidDockerfile

MAX_PATTERNS = 10_000
MAX_FILE = 1024 * 1024
_ANY = r"(?:[^/\x80-\xff]|[\xc0-\xff][\x80-\xbf]*|[\x80-\xbf])"
"""One character of UTF-8, or a byte that is none."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    matches: Any
    """Of re2, which has no types."""

    back: bool


class Ignore:
    """Paths are relative, with slashes, without a leading one."""

    def __init__(self, lines: Sequence[str]) -> None:
        """Raises InvalidDockerfile for a pattern that is none."""
        if len(lines) > MAX_PATTERNS:
            raise InvalidDockerfile(f"more than {MAX_PATTERNS} patterns in .dockerignore")
        self._patterns = tuple(pattern for line in lines if (pattern := _pattern(line)) is not None)
        self.takes_back = any(pattern.back for pattern in self._patterns)
        """Where nothing is taken back, a folder that is left out need not be looked into."""

    @classmethod
    def parse(cls, data: bytes) -> "Ignore":
        """The file. Raises InvalidDockerfile."""
        if len(data) > MAX_FILE:
            raise InvalidDockerfile(f".dockerignore has more than {MAX_FILE} bytes")
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        return cls([line for line in text.split("\n") if not line.startswith("#")])

    def leaves_out(self, path: str) -> bool:
        name, out = path.encode("utf-8", "surrogateescape"), False
        for pattern in self._patterns:
            # A pattern is asked only where it would change something.
            if pattern.back == out and pattern.matches.fullmatch(name):
                out = not pattern.back
        return out


def _pattern(line: str) -> _Pattern | None:
    text = line.strip()
    if not text:
        return None
    back = text.startswith("!")
    if back:
        text = text[1:].strip()
        if not text:
            raise InvalidDockerfile('illegal exclusion pattern: "!"')
    text = posixpath.normpath(text)
    if text.startswith("//"):
        text = text[1:]
    text = text.removeprefix("/")
    if not text or text == ".":
        # The context itself is never left out.
        return None
    return _Pattern(_compiled(text), back)


def _compiled(text: str) -> Any:
    out, at = [], 0
    while at < len(text):
        char = text[at]
        if text.startswith("**", at):
            while text.startswith("*", at):
                at += 1
            if text.startswith("/", at):
                # Any number of folders, none too.
                out.append("(?:.*/)?")
                at += 1
            else:
                out.append(".*")
            continue
        if char == "[":
            end, piece = _class(text, at)
            out.append(piece)
            at = end
            continue
        if char == "\\" and at + 1 < len(text):
            at += 1
            out.append(re.escape(text[at]))
        else:
            out.append({"*": "[^/]*", "?": _ANY}.get(char) or re.escape(char))
        at += 1
    expression = f"(?s:{''.join(out)}(?:/.*)?)"
    try:
        return re2.compile(expression.encode("utf-8", "surrogateescape"), _options())
    except re2.error as error:
        raise InvalidDockerfile(f"syntax error in pattern {text[:200]!r}") from error


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    # Names are bytes: most are UTF-8, none has to be.
    options.encoding = re2.Options.Encoding.LATIN1
    return options


def _class(text: str, at: int) -> tuple[int, str]:
    """(where the pattern goes on, the expression) of `[a-z]` or `[^a-z]`."""
    end = at + 1 + text.startswith("^", at + 1)
    begin = end
    while end < len(text) and (text[end] != "]" or end == begin):
        end += 2 if text[end] == "\\" else 1
    if end >= len(text):
        raise InvalidDockerfile(f"syntax error in pattern {text[:200]!r}")
    held = re.sub(r"([\[\]&~|^])", r"\\\1", text[begin:end])
    return end + 1, f"[{'^/' if begin > at + 1 else ''}{held}]"
