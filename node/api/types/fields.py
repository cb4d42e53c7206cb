"""A JSON object, read field by field: absent and null are the zero value, as in Docker's Go; a wrong type is named."""

from collections.abc import Iterable, Mapping
from typing import Any

from ocispec.errors import InvalidArgument, Unimplemented

_LARGEST = 1 << 63


class InvalidField(InvalidArgument):
    """A field has the wrong type or an impossible value."""


class Fields:
    """Names match whatever their case, as Go's decoder does; exact ones win."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = values
        self._folded = {key.lower(): value for key, value in values.items()}
        self._path = path

    @property
    def empty(self) -> bool:
        return not self._values

    def given(self) -> Iterable[str]:
        """The names as they were written."""
        return self._values.keys()

    def all(self) -> Mapping[str, Any]:
        """The object as it came."""
        return self._values

    def raw(self, name: str) -> Any:
        return self._values[name] if name in self._values else self._folded.get(name.lower())

    def name(self, name: str) -> str:
        """The field with the way to it: HostConfig.Memory."""
        return f"{self._path}.{name}" if self._path else name

    def wrong(self, name: str, wanted: str, value: Any) -> InvalidField:
        return InvalidField(f"invalid JSON: {self.name(name)} must be {wanted}, not {_kind(value)}")

    def text(self, name: str) -> str:
        value = self.raw(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(name, "a string", value)
        return value

    def flag(self, name: str) -> bool:
        return self.optional_flag(name) or False

    def optional_flag(self, name: str) -> bool | None:
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def number(self, name: str) -> int:
        return self.optional_number(name) or 0

    def optional_number(self, name: str) -> int | None:
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(name, "a whole number", value)
        if not -_LARGEST <= value < _LARGEST:
            raise InvalidField(f"invalid JSON: {self.name(name)} does not fit in 64 bits")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        return self.optional_texts(name) or ()

    def optional_texts(self, name: str) -> tuple[str, ...] | None:
        """None for null: an empty list may mean something else."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong(name, "a list of strings", value)
        for item in value:
            if not isinstance(item, str):
                raise self.wrong(name, "a list of strings", item)
        return tuple(value)

    def words(self, name: str) -> tuple[str, ...] | None:
        """A command: a list, or one string that stands for a list of one (Docker's strslice)."""
        value = self.raw(name)
        return (value,) if isinstance(value, str) else self.optional_texts(name)

    def mapping(self, name: str) -> dict[str, str]:
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(name, "an object of strings", value)
        for item in value.values():
            if not isinstance(item, str):
                raise self.wrong(name, "an object of strings", item)
        return dict(value)

    def optional_mapping(self, name: str) -> dict[str, str | None]:
        """Strings or null, which means that the key shall go."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, str | None) for item in value.values()):
            raise self.wrong(name, "an object of strings", value)
        return dict(value)

    def keys(self, name: str) -> tuple[str, ...]:
        """Of an object used as a set, as ExposedPorts and Volumes."""
        value = self.raw(name)
        if value is None:
            return ()
        if not isinstance(value, dict):
            raise self.wrong(name, "an object", value)
        return tuple(value)

    def object(self, name: str) -> "Fields":
        value = self.raw(name)
        if value is None:
            return Fields({}, self.name(name))
        if not isinstance(value, dict):
            raise self.wrong(name, "an object", value)
        return Fields(value, self.name(name))

    def has(self, name: str) -> bool:
        return self.raw(name) is not None

    def objects(self, name: str) -> list["Fields"]:
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(name, "a list of objects", value)
        return [Fields(item, f"{self.name(name)}[{at}]") for at, item in enumerate(value)]

    def object_map(self, name: str) -> dict[str, "Fields"]:
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, dict | None) for item in value.values()):
            raise self.wrong(name, "an object of objects", value)
        return {key: Fields(item or {}, f"{self.name(name)}.{key}") for key, item in value.items()}

    def refuse(self, names: Iterable[str]) -> None:
        """Raises Unimplemented for each that says more than Go's zero value."""
        for name in names:
            if self.raw(name) not in (None, False, 0, "", [], {}):
                raise Unimplemented(f"{self.name(name)} is not supported yet")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    names: Mapping[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")
