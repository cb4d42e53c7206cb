"""A Dockerfile as a list of instructions: directives, continued lines, comments, heredocs, the form of each argument.

The rules are those of BuildKit's parser, whose results the tests compare with. Nothing is expanded here and no
instruction is judged: that is for `instructions`, which knows what each of them may say.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from node.dockerfile import shell
from node.dockerfile.errors import InvalidDockerfile, InvalidInstruction

MAX_FILE = 4 * 1024 * 1024
"""Bytes; heredocs are part of it."""

_DIRECTIVE = re.compile(r"^#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)", re.DOTALL)
_HEREDOC_INSTRUCTIONS = frozenset(("ADD", "COPY", "RUN"))
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_CONTINUATION = {mark: re.compile(rf"([^{mark}])[{mark}][ \t]*$|^[{mark}][ \t]*$") for mark in ("\\\\", "`")}


@dataclass(frozen=True, slots=True)
class Heredoc:
    name: str
    descriptor: int
    content: str
    expand: bool
    """Variables in it are replaced: its name was written without quotes."""

    chomp: bool
    """`<<-`: the tabs that lines begin with are not part of it."""

    @property
    def chomped(self) -> str:
        return re.sub(r"(?m)^\t+", "", self.content) if self.chomp else self.content


@dataclass(frozen=True, slots=True)
class Instruction:
    """`values` in the form of the instruction: the words of a list, name and value in turn, or one text. `exec_form`:
    they were a JSON array. Lines count from 1."""

    name: str
    flags: tuple[str, ...]
    values: tuple[str, ...]
    exec_form: bool
    original: str
    """Its lines joined, heredocs included."""

    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()
    trigger: "Instruction | None" = None
    """Of ONBUILD."""

    old_form: bool = False
    """ENV and LABEL with a blank instead of an equals sign."""

    comments: tuple[str, ...] = ()
    """Of the lines just before it."""


@dataclass(frozen=True, slots=True)
class Document:
    instructions: tuple[Instruction, ...]
    directives: Mapping[str, str]
    escape: str
    warnings: tuple[tuple[int, str], ...] = ()
    """(line, what)"""


@dataclass(slots=True)
class _Lines:
    """The lines with their ends; `number` is that of the last one taken."""

    left: list[str]
    number: int = 0

    def take(self) -> str | None:
        if self.number == len(self.left):
            return None
        self.number += 1
        return self.left[self.number - 1]


def parse(data: bytes) -> Document:
    """Raises InvalidDockerfile."""
    if len(data) > MAX_FILE:
        raise InvalidDockerfile(f"the Dockerfile has more than {MAX_FILE} bytes")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise InvalidDockerfile("the Dockerfile holds a NUL byte", text[:text.index("\0")].count("\n") + 1)
    directives = dict(_directives(text))
    escape = directives.get("escape", "\\")
    return _Parser(escape).read(text, directives)


def _directives(text: str) -> Iterator[tuple[str, str]]:
    """`# name=value` lines before anything else."""
    seen = set()
    for number, line in enumerate(text.split("\n"), 1):
        match = _DIRECTIVE.match(line.strip())
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            return
        if name in seen:
            raise InvalidDockerfile(f"only one {name} parser directive can be used", number)
        if name == "escape" and match[2] not in ("\\", "`"):
            raise InvalidDockerfile(f"invalid escape token '{match[2]}' does not match ` or \\", number)
        seen.add(name)
        yield name, match[2]


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


class _Parser:
    def __init__(self, escape: str) -> None:
        self._escape = escape
        self._continuation = _CONTINUATION["\\\\" if escape == "\\" else escape]
        self._warnings: list[tuple[int, str]] = []

    def read(self, text: str, directives: Mapping[str, str]) -> Document:
        lines = _Lines(_split_lines(text))
        found, comments = [], []
        while (line := lines.take()) is not None:
            line = line.lstrip()
            if line.startswith("#"):
                comments.append(line[1:].strip())
                continue
            first = lines.number
            text, ended = self._trim(line)
            if ended and not text:
                comments = [] if not line.strip() else comments
                continue
            text = text if ended else text + self._continued(lines)
            try:
                instruction = self._with_heredocs(replace(self.instruction(text), first=first), text, lines)
            except InvalidInstruction as error:
                raise InvalidDockerfile(str(error), first) from error
            found.append(replace(instruction, first=first, last=lines.number, comments=tuple(comments)))
            comments = []
        if not found:
            raise InvalidDockerfile("file with no instructions")
        return Document(tuple(found), directives, self._escape, tuple(self._warnings))

    def _trim(self, line: str) -> tuple[str, bool]:
        """The line without its end, and whether the instruction ends with it."""
        line = line.rstrip("\r\n")
        match = self._continuation.search(line)
        return (line[:match.start()] + (match[1] or ""), False) if match else (line, True)

    def _continued(self, lines: _Lines) -> str:
        parts, begin = [], lines.number
        empty = False
        while (line := lines.take()) is not None:
            if _is_comment(line):
                continue
            if not line.strip():
                empty = True
                continue
            part, ended = self._trim(line)
            parts.append(part)
            if ended:
                break
        if empty:
            self._warnings.append((begin, "Empty continuation lines will become errors in a future release"))
        return "".join(parts)

    # -- one instruction

    def instruction(self, text: str) -> Instruction:
        """Raises InvalidInstruction."""
        parts = _BLANKS.split(text.strip(), maxsplit=1)
        name, rest = parts[0].upper(), parts[1].strip() if len(parts) > 1 else ""
        flags, rest = self._flags(rest)
        plain = Instruction(name, flags, (), exec_form=False, original=text, first=0, last=0)
        form = _FORMS.get(name)
        return form(self, plain, rest) if form is not None else replace(plain, values=(rest,) if rest else ())

    def _flags(self, text: str) -> tuple[tuple[str, ...], str]:
        """`--name[=value]` words before the arguments."""
        flags: list[str] = []
        word, at, inside, quote, blank = "", 0, False, "", False
        while True:
            char = text[at:at + 1]
            if not inside:
                if char and char.isspace():
                    at += 1
                    continue
                if not text.startswith("--", at):
                    return tuple(flags), text[at:]
                inside, begin = True, at
            if not char or (char.isspace() and not quote):
                if word == "--":
                    return tuple(flags), text[at:].lstrip()
                if word or blank:
                    flags.append(word)
                if not char:
                    return tuple(flags), ""
                word, inside, blank = "", False, False
                continue
            word, at, quote, blank = self._flag_char(text, at, word, quote, blank=blank)
            if at == begin:
                at += 1

    def _flag_char(self, text: str, at: int, word: str, quote: str, *, blank: bool) -> tuple[str, int, str, bool]:
        char = text[at]
        if quote and char == quote:
            return word, at + 1, "", blank
        if not quote and char in "'\"":
            return word, at + 1, char, True
        if char == self._escape:
            return word + text[at + 1:at + 2], at + 2, quote, blank
        return word + char, at + 1, quote, blank

    def parts(self, text: str) -> list[str]:
        """Split at blanks outside of quotes; quotes and escapes stay."""
        found, word, quote, at = [], "", "", 0
        while at < len(text):
            char = text[at]
            if char.isspace() and not quote:
                if word:
                    found.append(word)
                word = ""
            elif char == self._escape and quote != "'":
                # At the very end it stands for nothing.
                word += text[at:at + 2] if at + 1 < len(text) else ""
                at += 1
            else:
                quote = "" if char == quote else quote or (char if char in "'\"" else "")
                word += char
            at += 1
        return [*found, word] if word else found

    # -- forms

    def text_form(self, plain: Instruction, rest: str) -> Instruction:
        return replace(plain, values=(rest,) if rest else ())

    def list_form(self, plain: Instruction, rest: str) -> Instruction:
        return replace(plain, values=tuple(_BLANKS.split(rest)) if rest else ())

    def json_or_text(self, plain: Instruction, rest: str) -> Instruction:
        listed = json_form(rest)
        return self.text_form(plain, rest) if listed is None else replace(plain, values=tuple(listed), exec_form=True)

    def json_or_list(self, plain: Instruction, rest: str) -> Instruction:
        listed = json_form(rest)
        return self.list_form(plain, rest) if listed is None else replace(plain, values=tuple(listed), exec_form=True)

    def pairs(self, plain: Instruction, rest: str) -> Instruction:
        parts = self.parts(rest)
        if not parts:
            return plain
        if "=" not in parts[0]:
            name, *value = _BLANKS.split(rest, maxsplit=1)
            if not value:
                raise InvalidInstruction(f"{plain.name} must have two arguments")
            return replace(plain, values=(name, value[0]), old_form=True)
        found: list[str] = []
        for part in parts:
            name, equals, text = part.partition("=")
            if not equals:
                raise InvalidInstruction(
                    f'Syntax error - can\'t find = in "{part[:200]}". Must be of the form: name=value')
            found += name, text
        return replace(plain, values=tuple(found))

    def names(self, plain: Instruction, rest: str) -> Instruction:
        return replace(plain, values=tuple(self.parts(rest)))

    def health(self, plain: Instruction, rest: str) -> Instruction:
        kind, *command = _BLANKS.split(rest, maxsplit=1)
        if not kind:
            return plain
        told = self.json_or_text(plain, command[0] if command else "")
        return replace(told, values=(kind, *told.values))

    def on_build(self, plain: Instruction, rest: str) -> Instruction:
        return replace(plain, trigger=self.instruction(rest)) if rest else plain

    # -- heredocs

    def _with_heredocs(self, instruction: Instruction, text: str, lines: _Lines) -> Instruction:
        holder = instruction.trigger or instruction
        if holder.name not in _HEREDOC_INSTRUCTIONS or holder.exec_form or "<<" not in text:
            return instruction
        found, original = [], instruction.original
        for heredoc in self._announced(text):
            content: list[str] = []
            while True:
                line = lines.take()
                if line is None:
                    raise InvalidInstruction("unterminated heredoc")
                bare = line.rstrip("\r\n")
                if (bare.lstrip("\t") if heredoc.chomp else bare) == heredoc.name:
                    break
                content.append(line)
            body = "".join(content)
            original += ("" if original.endswith("\n") else "\n") + body + line
            found.append(replace(heredoc, content=body))
        if not found:
            return instruction
        # An ONBUILD's trigger keeps them: that is the instruction that will be carried out.
        if instruction.trigger is not None:
            instruction = replace(instruction, trigger=replace(holder, heredocs=tuple(found)))
        return replace(instruction, heredocs=tuple(found), original=original)

    def _announced(self, text: str) -> Iterator[Heredoc]:
        try:
            words = shell.words(text, {}, shell.Rules(self._escape, raw_quotes=True, raw_escapes=True, keep_unset=True))
        except InvalidInstruction:
            return
        for word in words:
            if (heredoc := heredoc_of(word)) is not None:
                yield heredoc


def heredoc_of(word: str) -> Heredoc | None:
    """What `[N]<<[-]NAME` announces; None when the word is none of it."""
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    try:
        bare = shell.words(match[3], {}, shell.Rules(keep_unset=True))
        raw = shell.words(match[3], {}, shell.Rules(raw_quotes=True, raw_escapes=True, keep_unset=True))
    except InvalidInstruction:
        return None
    if len(bare) != 1:
        return None
    return Heredoc(bare[0], int(match[1][:9] or 0), "", expand=bare == raw, chomp=bool(match[2]))


def _split_lines(text: str) -> list[str]:
    """At newlines alone: what else Unicode calls the end of a line is part of it."""
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + ([last] if last else [])


def json_form(text: str) -> list[str] | None:
    """The exec form `["a", "b"]`; None when it is no JSON array. Raises InvalidInstruction for one of other things than
    strings."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise InvalidInstruction("when using JSON array syntax, arrays must be comprised of strings only")
    return value


def _no_constant(text: str) -> NoReturn:
    """NaN and Infinity are Python's own."""
    raise ValueError(text)


_FORMS: Mapping[str, Callable[[_Parser, Instruction, str], Instruction]] = {
    "ADD": _Parser.json_or_list, "ARG": _Parser.names, "CMD": _Parser.json_or_text, "COPY": _Parser.json_or_list,
    "ENTRYPOINT": _Parser.json_or_text, "ENV": _Parser.pairs, "EXPOSE": _Parser.list_form,
    "FROM": _Parser.list_form, "HEALTHCHECK": _Parser.health, "LABEL": _Parser.pairs,
    "MAINTAINER": _Parser.text_form, "ONBUILD": _Parser.on_build, "RUN": _Parser.json_or_text,
    "SHELL": _Parser.json_or_text, "STOPSIGNAL": _Parser.text_form, "USER": _Parser.text_form,
    "VOLUME": _Parser.json_or_list, "WORKDIR": _Parser.text_form,
}  # fmt: skip
