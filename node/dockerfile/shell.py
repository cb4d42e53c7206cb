"""Words of a Dockerfile as a shell reads them: quotes, escapes, variables with every modifier of the reference.

Rules: the Dockerfile reference, "Environment replacement". Nothing is ever run. Patterns of `${name#pattern}` and its
kin are matched by stepping through all states at once, so that a hostile pattern costs no more than its length times
that of the value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from node.dockerfile.errors import InvalidInstruction

MAX_DEPTH = 32
MAX_WORD = 1024 * 1024
"""Characters of what one word may grow to."""

MAX_REPLACED = 64 * 1024
_SPECIAL = "@*#?-$!0"
_END = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """How words are read.

    `raw_quotes`: quotes stay in the result; `raw_escapes`: escape characters too; `keep_unset`: a variable that is not
    set stays as it was written; `plain_quotes`: quotes are characters as any other.
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    keep_unset: bool = False
    plain_quotes: bool = False


PLAIN = Rules()


def word(text: str, environment: Mapping[str, str], rules: Rules = PLAIN) -> str:
    """The text as one word. Raises InvalidInstruction."""
    return _Reader(text, environment, rules).read()[0]


def words(text: str, environment: Mapping[str, str], rules: Rules = PLAIN) -> list[str]:
    """Split at blanks that are neither quoted nor escaped; the value of a variable is split too. Raises
    InvalidInstruction."""
    return _Reader(text, environment, rules).read()[1]


@dataclass(slots=True)
class _Words:
    done: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        for char in text:
            if char.isspace():
                self._finish()
            else:
                self.raw(char)

    def raw(self, text: str) -> None:
        if text:
            self.current.append(text)

    def all(self) -> list[str]:
        self._finish()
        return self.done

    def _finish(self) -> None:
        """A pair of quotes with nothing in it is no word, with BuildKit as here."""
        if self.current:
            self.done.append("".join(self.current))
            self.current = []


class _Reader:
    def __init__(self, text: str, environment: Mapping[str, str], rules: Rules) -> None:
        self._text = text
        self._environment = environment
        self._rules = rules
        self._at = 0
        self._depth = 0
        self._size = 0

    def read(self) -> tuple[str, list[str]]:
        return self._until(_END, raw_escapes=False)

    # -- characters

    def _peek(self) -> str:
        return self._text[self._at:self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    # -- parts

    def _until(self, stop: str, *, raw_escapes: bool) -> tuple[str, list[str]]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidInstruction("variables are nested too deeply")
        found = _Words()
        result: list[str] = []
        while (char := self._peek()) != _END:
            if stop and char == stop:
                self._at += 1
                self._depth -= 1
                return "".join(result), found.all()
            if char == "$":
                part = self._dollar()
                found.add(part)
            elif char in "'\"" and not self._rules.plain_quotes:
                part = self._quoted(char)
                found.raw(part)
            elif char == self._rules.escape:
                self._at += 1
                following = self._next()
                part = (char if raw_escapes or self._rules.raw_escapes else "") + following
                found.raw(part)
            else:
                self._at += 1
                part = char
                found.add(part)
            result.append(part)
        if stop:
            raise InvalidInstruction(f"unexpected end of statement while looking for matching {stop}")
        self._depth -= 1
        return "".join(result), found.all()

    def _quoted(self, quote: str) -> str:
        self._at += 1
        out = [quote] if self._rules.raw_quotes else []
        while (char := self._peek()) != _END:
            if char == quote:
                self._at += 1
                return "".join([*out, quote]) if self._rules.raw_quotes else "".join(out)
            if quote == "'":
                out.append(self._next())
            elif char == "$":
                out.append(self._dollar())
            elif char == self._rules.escape:
                out.append(self._escaped())
            else:
                out.append(self._next())
        kind = "single-quote" if quote == "'" else "double-quote"
        raise InvalidInstruction(f"unexpected end of statement while looking for matching {kind}")

    def _escaped(self) -> str:
        """Between double quotes an escape is one only before a quote, a dollar or itself."""
        escape = self._next()
        following = self._peek()
        if following == _END:
            return escape if self._rules.raw_escapes else ""
        if following in ('"', "$", escape):
            self._at += 1
            return escape + following if self._rules.raw_escapes else following
        return escape * 2 if self._rules.raw_escapes else escape

    # -- variables

    def _dollar(self) -> str:
        begin = self._at
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            return self._value(name, begin)
        self._at += 1
        if self._peek() == _END:
            raise InvalidInstruction("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise InvalidInstruction("syntax error: bad substitution")
        name = self._name()
        mark = self._next()
        if mark == "}":
            return self._value(name, begin)
        if mark == "/":
            return self._replaced(name, begin)
        or_empty = mark == ":"
        operator = self._next() if or_empty else mark
        if operator == _END:
            raise InvalidInstruction("syntax error: missing '}'")
        if operator not in "+-?#%" or (or_empty and operator in "#%"):
            raise InvalidInstruction(f"unsupported modifier ({':' * or_empty}{operator}) in substitution")
        return self._modified(name, operator, begin, or_empty=or_empty)

    def _name(self) -> str:
        begin = self._at
        first = self._peek()
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif first and first in _SPECIAL:
            self._at += 1
        else:
            while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self._at += 1
        return self._text[begin:self._at]

    def _value(self, name: str, begin: int) -> str:
        value = self._environment.get(name)
        if value is None:
            return self._text[begin:self._at] if self._rules.keep_unset else ""
        return self._counted(value)

    def _counted(self, value: str) -> str:
        """A few lines that double a variable again and again must not fill the memory."""
        self._size += len(value)
        if self._size > MAX_WORD:
            raise InvalidInstruction(f"a word grows beyond {MAX_WORD} characters")
        return value

    def _inner(self, stop: str, *, raw_escapes: bool) -> str:
        try:
            return self._until(stop, raw_escapes=raw_escapes)[0]
        except InvalidInstruction as error:
            if self._peek() == _END and str(error).endswith(f"matching {stop}"):
                raise InvalidInstruction(f"syntax error: missing '{stop}'") from error
            raise

    def _modified(self, name: str, operator: str, begin: int, *, or_empty: bool) -> str:
        other = self._inner("}", raw_escapes=operator in "#%")
        value = self._environment.get(name)
        if operator in "#%":
            if value is None:
                return self._value(name, begin)
            greedy = other[:1] == operator
            return _trimmed(value, other[1:] if greedy else other, self._rules.escape, greedy=greedy,
                            end=operator == "%")
        if value is None and self._rules.keep_unset:
            return self._text[begin:self._at]
        missing = value is None or (or_empty and not value)
        if operator == "?":
            if missing:
                reason = "is not allowed to be unset" if value is None else "is not allowed to be empty"
                raise InvalidInstruction(f"{name}: {other or reason}")
            return self._counted(value or "")
        if operator == "-":
            return other if missing else self._counted(value or "")
        return "" if missing else other

    def _replaced(self, name: str, begin: int) -> str:
        every = self._peek() == "/"
        self._at += every
        pattern = self._inner("/", raw_escapes=True)
        other = self._inner("}", raw_escapes=True)
        value = self._environment.get(name)
        if value is None:
            return self._value(name, begin)
        return self._counted(_replace(value, pattern, other, self._rules.escape, every=every))


# -- patterns: ? one character, * any number, an escape the character after it

Match = Callable[[str], bool] | None
"""What one character of the value may be; None: any number of any."""


def _tokens(pattern: str, escape: str) -> list[Match]:
    tokens: list[Match] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            tokens.append(None)
        elif char == "?":
            tokens.append(lambda _char: True)
        else:
            if char == escape and at + 1 < len(pattern):
                at += 1
                char = pattern[at]
            tokens.append(char.__eq__)
        at += 1
    return tokens


def _ends(value: str, begin: int, tokens: list[Match]) -> list[int]:
    """Where matches that begin at `begin` may end, in order. All states advance together."""
    final, found = 1 << len(tokens), []
    stars = sum(1 << number for number, token in enumerate(tokens) if token is None)

    def spread(states: int) -> int:
        # Past every star that is reached, and all that directly follow it.
        while (more := states | ((states & stars) << 1)) != states:
            states = more
        return states

    states, at = spread(1), begin
    while True:
        if states & final:
            found.append(at)
        if at == len(value) or not states & (final - 1):
            return found
        char, reached = value[at], states & stars
        for number, token in enumerate(tokens):
            if states >> number & 1 and token is not None and token(char):
                reached |= 1 << (number + 1)
        states, at = spread(reached), at + 1


def _trimmed(value: str, pattern: str, escape: str, *, greedy: bool, end: bool) -> str:
    tokens = _tokens(pattern, escape)
    if end:
        value, tokens = value[::-1], tokens[::-1]
    ends = _ends(value, 0, tokens)
    if ends:
        value = value[ends[-1] if greedy else ends[0]:]
    return value[::-1] if end else value


def _replace(value: str, pattern: str, other: str, escape: str, *, every: bool) -> str:
    tokens = _tokens(pattern, escape)
    if not tokens:
        return value
    if len(value) > MAX_REPLACED:
        raise InvalidInstruction(f"a value of more than {MAX_REPLACED} characters cannot have parts of it replaced")
    out, at = [], 0
    while at < len(value):
        ends = _ends(value, at, tokens)
        if not ends or ends[-1] == at:
            out.append(value[at])
            at += 1
            continue
        out.append(other)
        at = ends[-1]
        if not every:
            break
    return "".join(out) + value[at:]
