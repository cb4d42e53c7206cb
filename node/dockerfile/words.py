"""One instruction's text as words: quotes, escapes, `$VARIABLES`, `key=value` pairs, and the JSON form.

The rules are those of the Dockerfile reference ("Environment replacement", "Escape"): single quotes keep everything,
double quotes keep spaces, a backslash keeps the next character, `${name:-word}` and `${name:+word}` choose.
"""

import json
import re
from collections.abc import Mapping

from ocispec.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")
_DEEPEST = 16


class InvalidInstruction(InvalidArgument):
    """The text is no instruction, or not one that may stand here."""


def split(line: str) -> tuple[str, str]:
    """The instruction in capitals, and the rest. Raises InvalidInstruction."""
    name, _, rest = line.strip().partition(" ")
    if not name or not name.isalpha():
        raise InvalidInstruction(f"unknown instruction: {name[:50]!r}")
    return name.upper(), rest.strip()


def json_form(text: str) -> list[str] | None:
    """The exec form `["a", "b"]`; None when it is not that."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def words(text: str, environment: Mapping[str, str]) -> list[str]:
    """Split at spaces outside of quotes, each word unquoted and its variables replaced. Raises InvalidInstruction."""
    return [expand(word, environment) for word in raw_words(text)]


def raw_words(text: str) -> list[str]:
    """The words as they are written, quotes included."""
    found, current, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'" and at + 1 < len(text):
            current += text[at:at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
            current += char
        elif char in "'\"":
            quote = char
            current += char
        elif char.isspace():
            if current:
                found.append(current)
            current = ""
        else:
            current += char
        at += 1
    if quote:
        raise InvalidInstruction(f"unexpected end of statement while looking for matching {quote}-quote")
    return [*found, current] if current else found


def pairs(text: str, environment: Mapping[str, str], instruction: str) -> list[tuple[str, str]]:
    """`key=value …`, or the old `key value with spaces`. Raises InvalidInstruction."""
    raw = raw_words(text)
    if not raw:
        raise InvalidInstruction(f"{instruction} requires at least one argument")
    if "=" not in raw[0]:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidInstruction(f"{instruction} must have two arguments")
        return [(expand(key, environment), expand(value.strip(), environment))]
    found = []
    for word in raw:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidInstruction(f"Syntax error - can't find = in {word[:100]!r}. Must be of the form: name=value")
        name = expand(key, environment)
        if not name:
            raise InvalidInstruction(f"{instruction} names can not be blank")
        found.append((name, expand(value, environment)))
    return found


def expand(word: str, environment: Mapping[str, str], depth: int = 0) -> str:
    """Quotes taken away and variables replaced. Raises InvalidInstruction."""
    if depth > _DEEPEST:
        raise InvalidInstruction("variables are nested too deeply")
    out, at, double = "", 0, False
    while at < len(word):
        char = word[at]
        if char == "'" and not double:
            end = word.find("'", at + 1)
            if end < 0:
                raise InvalidInstruction("unexpected end of statement while looking for matching single-quote")
            out += word[at + 1:end]
            at = end + 1
        elif char == '"':
            double = not double
            at += 1
        elif char == "\\" and at + 1 < len(word):
            following = word[at + 1]
            out += following if not double or following in '"$\\' else char + following
            at += 2
        elif char == "$":
            value, at = _variable(word, at + 1, environment, depth)
            out += value
        else:
            out += char
            at += 1
    if double:
        raise InvalidInstruction("unexpected end of statement while looking for matching double-quote")
    return out


def _variable(word: str, at: int, environment: Mapping[str, str], depth: int) -> tuple[str, int]:
    """The value of the variable whose name begins at `at`, and where the text goes on."""
    if word[at:at + 1] != "{":
        match = _NAME.match(word, at)
        return (environment.get(match[0], ""), match.end()) if match else ("$", at)
    match = _NAME.match(word, at + 1)
    if match is None:
        raise InvalidInstruction("syntax error: bad substitution")
    name, at = match[0], match.end()
    operator = word[at:at + 2]
    if word[at:at + 1] == "}":
        return environment.get(name, ""), at + 1
    if operator not in (":-", ":+"):
        raise InvalidInstruction(f"unsupported modifier ({word[at:at + 2]}) in substitution")
    end = _closing(word, at + 2)
    other = expand(word[at + 2:end], environment, depth + 1)
    value = environment.get(name, "")
    if operator == ":-":
        return value or other, end + 1
    return (other if value else ""), end + 1


def _closing(word: str, at: int) -> int:
    depth = 1
    while at < len(word):
        if word[at] == "\\":
            at += 1
        elif word[at] == "{":
            depth += 1
        elif word[at] == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    raise InvalidInstruction("syntax error: missing '}'")
