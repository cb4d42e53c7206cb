"""A volume as `docker volume` reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

from node.api.parts import Volume


def volume(value: Volume) -> dict[str, Any]:
    return {
        "CreatedAt": value.created,
        "Driver": "local",
        "Labels": dict(value.labels) or None,
        "Mountpoint": value.mountpoint,
        "Name": value.name,
        "Options": dict(value.options) or None,
        "Scope": "local",
    }


def matches(value: Volume, filters: Mapping[str, Sequence[str]], *, used: bool) -> bool:
    """Values of one filter are alternatives; labels must all hold."""
    for text in filters.get("label", ()):
        key, equals, wanted = text.partition("=")
        if key not in value.labels or (equals and value.labels[key] != wanted):
            return False
    if (names := filters.get("name")) and not any(name in value.name for name in names):
        return False
    if (drivers := filters.get("driver")) and "local" not in drivers:
        return False
    dangling = filters.get("dangling")
    return not dangling or (dangling[-1].lower() in ("true", "1")) == (not used)
