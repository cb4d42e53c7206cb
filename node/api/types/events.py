"""An event as `docker events` reads it, and its filters."""

from collections.abc import Mapping, Sequence
from typing import Any

from node.api.version import ApiVersion
from node.events import Event

WITHOUT_LEGACY = ApiVersion(1, 52)


def event(value: Event, version: ApiVersion) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if value.type in ("container", "image") and version < WITHOUT_LEGACY:
        # Fields of before 1.22 that old clients still read.
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
    if (actions := filters.get("event")) and not _is_action(value.action, actions):
        return False
    return all(_about(value, kind, names) for kind, names in filters.items() if names and kind not in _GENERAL)


_GENERAL = frozenset({"label", "type", "scope", "event"})
_DETAILED = frozenset({"health_status", "exec_create", "exec_start"})


def _is_action(action: str, wanted: Sequence[str]) -> bool:
    """Actions of _DETAILED have details behind a colon (`exec_start: sh`); a filter may leave them out."""
    if action in wanted:
        return True
    return bool(_DETAILED & set(wanted)) and any(action.startswith(text) for text in wanted)


def _about(value: Event, kind: str, names: Sequence[str]) -> bool:
    name = value.attributes.get("name", "")
    if kind == "image":
        # What was made of an image is about it too.
        if value.type not in ("image", "container"):
            return False
        name = value.attributes.get("image", "") if value.type == "container" else name
        return any(text in (value.actor_id, name, _untagged(value.actor_id), _untagged(name)) or
                   _is_prefix(text, value.actor_id) for text in names)
    # As Docker: an id or name that begins so will do.
    return value.type == kind and any(value.actor_id.startswith(text) or name.startswith(text) for text in names)


def _untagged(reference: str) -> str:
    """Without the tag; the colon of a registry's port is none."""
    head, colon, tag = reference.rpartition(":")
    return head if colon and "/" not in tag else reference


def _is_prefix(text: str, actor_id: str) -> bool:
    return len(text) >= 4 and actor_id.removeprefix("sha256:").startswith(text)
