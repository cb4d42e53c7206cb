"""JSON for processes that are started for one container: `json` itself loads `re`, a third of the runtime's start.

The work is done by the C scanner and encoder that `json` uses too; where an interpreter lacks them, `json` does it.
What JSON does not have (NaN, Infinity) is refused either way.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_BLANKS = " \t\n\r"


class NotJson(ValueError):
    """The text is no JSON; the message says where."""


def _refuse(name: str) -> object:
    raise NotJson(f"{name} is no JSON value")


class _Rules:
    """What the C scanner asks of a decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse)


def _scanner() -> Callable[[str, int], tuple[object, int]]:
    try:
        from _json import make_scanner

        return make_scanner(_Rules())  # type: ignore[arg-type]
    except ImportError:
        from json import JSONDecoder

        return JSONDecoder(parse_constant=_refuse).raw_decode


_scan = _scanner()


def loads(data: bytes | str) -> object:
    """Raises NotJson."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        start = len(text) - len(text.lstrip(_BLANKS))
        value, end = _scan(text, start)
    except NotJson:
        raise
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except (StopIteration, SystemError, ValueError):
        raise NotJson(_reason(data)) from None
    if text[end:].strip(_BLANKS):
        raise NotJson(f"something follows the value at character {end}")
    return value


def _reason(data: bytes | str) -> str:
    """The C scanner alone cannot say what is wrong: its error's class is in the module that was to be spared."""
    import json

    try:
        json.loads(data)
    except (RecursionError, ValueError) as error:
        return str(error) or "nested too deeply"
    return "no JSON"


def dumps(value: object, indent: int = 0) -> str:
    """Of dicts with text keys, lists, tuples, text, numbers, booleans, None. `indent`: spaces a level, 0: one line."""
    return _dump(value, indent, "\n" if indent else "")


def _dump(value: object, indent: int, line: str) -> str:
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, (int, float)):
        if value != value or value in (float("inf"), float("-inf")):
            raise NotJson(f"{value} is no JSON value")
        return repr(value)
    inner = line + " " * indent
    if isinstance(value, dict):
        colon = ": " if indent else ":"
        parts = [f"{_quote(key)}{colon}{_dump(item, indent, inner)}" for key, item in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, (list, tuple)):
        parts = [_dump(item, indent, inner) for item in value]
        opening, closing = "[", "]"
    else:
        raise TypeError(f"{type(value).__name__} is not JSON")
    return opening + inner + f",{inner}".join(parts) + line + closing if parts else opening + closing


def _quoter() -> Callable[[str], str]:
    try:
        from _json import encode_basestring_ascii

        return encode_basestring_ascii
    except ImportError:
        from json.encoder import encode_basestring_ascii as quote

        return quote


_quote = _quoter()
