"""One instruction's text as words: `key=value` pairs and lists, with variables replaced (`shell`)."""

import re
from collections.abc import Mapping

from node.dockerfile import shell
from node.dockerfile.errors import InvalidInstruction

_BLANKS = re.compile(r"[\t\v\f\r ]+")


def split(line: str) -> tuple[str, str]:
    """The instruction in capitals, and the rest. Raises InvalidInstruction."""
    name, _, rest = line.strip().partition(" ")
    if not name or not name.isalpha():
        raise InvalidInstruction(f"unknown instruction: {name[:50]!r}")
    return name.upper(), rest.strip()


def words(text: str, environment: Mapping[str, str]) -> list[str]:
    """Split at spaces outside of quotes, each word unquoted and its variables replaced. Raises InvalidInstruction."""
    return [shell.word(word, environment) for word in raw_words(text)]


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
        return [(shell.word(key, environment), shell.word(value.strip(), environment))]
    found = []
    for word in raw:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidInstruction(f"Syntax error - can't find = in {word[:100]!r}. Must be of the form: name=value")
        name = shell.word(key, environment)
        if not name:
            raise InvalidInstruction(f"{instruction} names can not be blank")
        found.append((name, shell.word(value, environment)))
    return found
