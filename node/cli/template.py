"""`--format`: table, json, or the part of Go's templates that people use with Docker.

`{{.Field.Inner}}`, `{{json .X}}`, `{{upper .X}}`, `{{lower .X}}`, `{{title .X}}`, `{{len .X}}`, `{{join .X ", "}}`,
`{{index .X "key"}}`, `{{println .X}}`, strings, and `{{range .X}}…{{end}}`, `{{if .X}}…{{else}}…{{end}}`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocispec.errors import InvalidArgument

_TAG = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|\([^()]*\)|[^\s"`()]+')
_ESCAPES = {"\\t": "\t", "\\n": "\n"}


class InvalidTemplate(InvalidArgument):
    """The template is not one, or uses what this subset of Go's does not have."""


@dataclass(frozen=True, slots=True)
class _Block:
    kind: str
    words: tuple[str, ...]
    body: "tuple[str | _Block, ...]" = ()
    otherwise: "tuple[str | _Block, ...]" = ()


class Template:
    def __init__(self, text: str) -> None:
        """Raises InvalidTemplate."""
        for escaped, plain in _ESCAPES.items():
            text = text.replace(escaped, plain)
        tokens = _tokens(text)
        self._parts, ending = _parse(tokens)
        if ending:
            raise InvalidTemplate(f"template parsing error: unexpected {{{{{ending}}}}}")

    def render(self, value: Any) -> str:
        """Raises InvalidTemplate for a field that does not exist."""
        return "".join(_render(self._parts, value))

    def headers(self) -> list[str]:
        """For `table`: the fields' names, as columns."""
        names = []
        for part in self._parts:
            if isinstance(part, _Block) and part.kind == "value":
                field = next((word for word in part.words if word.startswith(".")), ".")
                names.append(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", field.rpartition(".")[2]).upper())
        return names


def _tokens(text: str) -> "Iterator[tuple[bool, str]]":
    """(is a tag, text); a dash in a tag eats the white space beside it."""
    at, eat = 0, False
    for match in _TAG.finditer(text):
        plain = text[at : match.start()]
        plain = plain.lstrip() if eat else plain
        yield False, plain.rstrip() if match[1] else plain
        yield True, match[2]
        at, eat = match.end(), bool(match[3])
    rest = text[at:]
    if "{{" in rest:
        raise InvalidTemplate(f"template parsing error: unclosed action: {rest[:50]}")
    yield False, rest.lstrip() if eat else rest


def _parse(tokens: "Iterator[tuple[bool, str]]") -> "tuple[tuple[str | _Block, ...], str]":
    """Parts up to the end of a block, and the word that ended it ("" at the end of the text)."""
    parts: list[str | _Block] = []
    for is_tag, text in tokens:
        if not is_tag:
            parts.append(text)
            continue
        words = tuple(_WORD.findall(text))
        if not words:
            raise InvalidTemplate("template parsing error: missing value for command")
        if words[0] in ("end", "else"):
            return tuple(parts), words[0]
        if words[0] in ("range", "if"):
            body, ending = _parse(tokens)
            otherwise: tuple[str | _Block, ...] = ()
            if ending == "else":
                otherwise, ending = _parse(tokens)
            if ending != "end":
                raise InvalidTemplate(f"template parsing error: {{{{{words[0]}}}}} has no {{{{end}}}}")
            parts.append(_Block(words[0], words[1:], body, otherwise))
        elif words[0] in ("with", "define", "template", "block", "break", "continue") or "|" in words:
            raise InvalidTemplate(f"template: {text!r} is not supported by seawall (try --format json and jq)")
        else:
            parts.append(_Block("value", words))
    return tuple(parts), ""


def _render(parts: "Sequence[str | _Block]", value: Any) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif part.kind == "value":
            yield show(_evaluate(part.words, value))
        elif part.kind == "if":
            yield from _render(part.body if _evaluate(part.words, value) else part.otherwise, value)
        else:
            held = _evaluate(part.words, value)
            items = list(held.values()) if isinstance(held, Mapping) else list(held or ())
            for item in items:
                yield from _render(part.body, item)
            if not items:
                yield from _render(part.otherwise, value)


def _evaluate(words: Sequence[str], value: Any) -> Any:
    head, *rest = words
    if head in _FUNCTIONS:
        arguments = [_operand(word, value) for word in rest]
        try:
            return _FUNCTIONS[head](*arguments)
        except (TypeError, KeyError, IndexError) as error:
            raise InvalidTemplate(f"template: {head} cannot be applied to {' '.join(rest)}") from error
    if rest and head == ".Label":
        return (value.get("_labels") or {}).get(_operand(rest[0], value), "")
    if rest:
        raise InvalidTemplate(f'template: function "{head}" not defined')
    return _operand(head, value)


def _operand(word: str, value: Any) -> Any:
    if word.startswith("("):
        return _evaluate(tuple(_WORD.findall(word[1:-1])), value)
    if word.startswith(('"', "`")):
        return json.loads(word) if word.startswith('"') else word[1:-1]
    if word.lstrip("-").isdigit():
        return int(word)
    if word in ("true", "false"):
        return word == "true"
    if not word.startswith("."):
        raise InvalidTemplate(f'template: function "{word}" not defined')
    for name in filter(None, word.split(".")):
        if not isinstance(value, Mapping) or name not in value:
            raise InvalidTemplate(f"template: map has no entry for key {name!r}")
        value = value[name]
    return value


def show(value: Any) -> str:
    """As Go's fmt prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items()) if key != "_labels") + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(show, value)) + "]"
    return str(value)


def _json(value: Any) -> str:
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if key != "_labels"}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_FUNCTIONS: Mapping[str, Any] = {
    "json": _json,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "len": len,
    "join": lambda items, separator: separator.join(map(str, items or ())),
    "split": lambda text, separator: text.split(separator),
    "index": lambda held, key: held.get(key) if isinstance(held, Mapping) else held[key],
    "println": lambda *values: " ".join(map(show, values)) + "\n",
    "print": lambda *values: "".join(map(show, values)),
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "not": lambda value: not value,
    "slice": lambda text, *bounds: text[slice(*bounds)],
}
