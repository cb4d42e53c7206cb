"""From a TOML file and the environment to checked values: what is unknown or of another type is refused by name."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from registry.settings.fields import InvalidSettings

PREFIX = "SEAWALL_REGISTRY_"
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


def from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path} is not TOML: {error}") from error


def from_environment(kind: type, environment: Mapping[str, str], prefix: str = PREFIX) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item, of in _fields(kind):
        name = prefix + item.name.upper()
        if isinstance(of, type) and dataclasses.is_dataclass(of):
            below = from_environment(of, environment, f"{name}_")
            found |= {item.name: below} if below else {}
        elif name in environment:
            found[item.name] = environment[name]
    return found


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for name, value in second.items():
        below = merged.get(name)
        merged[name] = merge(below if isinstance(below, dict) else {}, value) if isinstance(value, dict) else value
    return merged


def build(kind: type, values: dict[str, Any], where: str) -> Any:
    fields = {item.name: of for item, of in _fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InvalidSettings(f"unknown setting: {where}{unknown[0]}")
    return kind(**{name: _value(fields[name], value, f"{where}{name}") for name, value in values.items()})


def _value(of: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(of):
        if not isinstance(value, dict):
            raise InvalidSettings(f"{name} is a section, not a value")
        return build(of, value, f"{name}.")  # type: ignore[arg-type]  # a class: it comes from a type hint
    if get_origin(of) is tuple:
        return _several(get_args(of)[0], value, name)
    if of is bool:
        return _flag(value, name)
    if isinstance(value, bool | dict | list) or (of in (str, Path) and not isinstance(value, str | Path)):
        raise InvalidSettings(f"{name} is not a {of.__name__}: {value!r}")
    try:
        return of(value)
    except (ValueError, OverflowError) as error:
        raise InvalidSettings(f"{name} is not a {of.__name__}: {value!r}") from error


def _several(of: Any, value: Any, name: str) -> tuple[Any, ...]:
    """A list. From the environment it is text: values with commas between, sections as a TOML list of inline tables."""
    if isinstance(value, str) and dataclasses.is_dataclass(of):
        try:
            value = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise InvalidSettings(f"{name} is not a TOML list of tables: {error}") from error
    elif isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list | tuple):
        raise InvalidSettings(f"{name} is not a list")  # not shown: it may hold a password
    return tuple(_value(of, item, f"{name}[{number}]") for number, item in enumerate(value))


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise InvalidSettings(f"{name} is neither true nor false: {value!r}")


def _fields(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(kind)
    return [(item, hints[item.name]) for item in dataclasses.fields(kind)]
