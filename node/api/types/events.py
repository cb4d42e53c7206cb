"""An event as `docker events` reads it, and its filters."""

from collections.abc import Mapping, Sequence
from typing import Any

from node.events import Event

_ACTORS = ("container", "image", "network", "volume")


def event(value: Event) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if value.type in ("container", "image"):
        # Fields of before 1.22 that the docker command still falls back on.
        document = {"status": value.action, "id": value.actor_id}
        if value.type == "container" and value.attributes.get("image"):
            document["from"] = value.attributes["image"]
    return document | {
        "Type": value.type,
        "Action": value.action,
        "Actor": {"ID": value.actor_id, "Attributes": dict(value.attributes)},
        "scope": "local",
        "time": value.time_ns // 10**9,
        "timeNano": value.time_ns,
    }


def matches(value: Event, filters: Mapping[str, Sequence[str]]) -> bool:
    """Values of one filter are alternatives; labels must all hold."""
    attributes = value.attributes
    for text in filters.get("label", ()):
        key, equals, wanted = text.partition("=")
        if key not in attributes or (equals and attributes[key] != wanted):
            return False
    if (types := filters.get("type")) and value.type not in types:
        return False
    if (scopes := filters.get("scope")) and "local" not in scopes:
        return False
    # An action may have details behind a colon: `exec_start: sh`.
    if (actions := filters.get("event")) and not {value.action, value.action.partition(":")[0]} & set(actions):
        return False
    return all(_about(value, kind, names) for kind, names in filters.items() if names and kind not in _GENERAL)


_GENERAL = frozenset({"label", "type", "scope", "event"})


def _about(value: Event, kind: str, names: Sequence[str]) -> bool:
    if kind not in _ACTORS:
        return False  # daemons, services and the like: nothing of theirs happens here
    if kind == "image" and value.type == "container":
        return value.attributes.get("image") in names
    if value.type != kind:
        return False
    name = value.attributes.get("name", "")
    short = name.partition(":")[0] if kind == "image" else name
    return any(text in (name, short, value.actor_id) or _is_prefix(text, value.actor_id) for text in names)


def _is_prefix(text: str, actor_id: str) -> bool:
    return len(text) >= 4 and actor_id.removeprefix("sha256:").startswith(text)
