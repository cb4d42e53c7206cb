"""Fields of a JSON document of unknown origin, each of the type that is wanted or refused by its name."""

from __future__ import annotations

MAX_ID = (1 << 32) - 1


class InvalidConfig(ValueError):
    """config.json holds something wrong or something this runtime does not do; the message names the field."""


def object_of(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidConfig(f"{where} is not an object")
    return value


def section(item: dict[str, object], field: str, where: str) -> dict[str, object]:
    """An object that may be absent."""
    value = item.get(field)
    return {} if value is None else object_of(value, f"{where}.{field}" if where else field)


def list_of(item: dict[str, object], field: str) -> list[object]:
    value = item.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidConfig(f"{field} is not a list")
    return value


def text(item: dict[str, object], field: str, where: str) -> str:
    value = item.get(field)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise InvalidConfig(f"{where}.{field} is not a string")
    _encodable(value, f"{where}.{field}")
    return value


def texts(item: dict[str, object], field: str) -> tuple[str, ...]:
    values = list_of(item, field)
    for value in values:
        if not isinstance(value, str) or "\0" in value:
            raise InvalidConfig(f"{field} is not a list of strings")
        _encodable(value, field)
    return tuple(str(value) for value in values)


def absolute(item: dict[str, object], field: str, where: str) -> str:
    value = text(item, field, where)
    if not value.startswith("/"):
        raise InvalidConfig(f"{where}.{field} is not absolute: {value!r}")
    return value


def _encodable(value: str, where: str) -> None:
    """JSON can spell half of a surrogate pair, which no path, name or argument can hold."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidConfig(f"{where} is not text: {value!r}") from error


def flag(item: dict[str, object], field: str, where: str) -> bool:
    value = item.get(field)
    if value is not None and not isinstance(value, bool):
        raise InvalidConfig(f"{where}.{field} is neither true nor false")
    return bool(value)


def whole(value: object, where: str, low: int = -(1 << 63), high: int = (1 << 64) - 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidConfig(f"{where} is not a whole number")
    if not low <= value <= high:
        raise InvalidConfig(f"{where} is out of range: {value if abs(value) >> 70 == 0 else 'a very large number'}")
    return value


def number(
    item: dict[str, object], field: str, default: int = 0, low: int = -(1 << 63), high: int = (1 << 64) - 1
) -> int:
    value = item.get(field)
    return default if value is None else whole(value, field, low, high)


def one_of(value: str, known: dict[str, int], where: str) -> int:
    if value not in known:
        raise InvalidConfig(f"{where}: unknown {value[:100]!r}")
    return known[value]
