"""A volume as `docker volume` reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

from node.api.parts import Volume
from ocispec.errors import InvalidArgument

LIST_FILTERS = frozenset({"dangling", "driver", "label", "name"})
PRUNE_FILTERS = frozenset({"all", "label", "label!"})
ANONYMOUS = "com.docker.volume.anonymous"
_TRUTHS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def volume(value: Volume, usage: tuple[int, int] | None = None) -> dict[str, Any]:
    """`usage`: how many containers have it, and its bytes (-1: not counted)."""
    document = _volume(value)
    return document if usage is None else document | {"UsageData": {"RefCount": usage[0], "Size": usage[1]}}


def _volume(value: Volume) -> dict[str, Any]:
    return {
        "CreatedAt": value.created,
        "Driver": "local",
        "Labels": dict(value.labels) or None,
        "Mountpoint": value.mountpoint,
        "Name": value.name,
        "Options": dict(value.options) or None,
        "Scope": "local",
    }


def check_filters(filters: Mapping[str, Sequence[str]], known: frozenset[str]) -> None:
    """Raises InvalidArgument."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name[:100]}'")
    for name in ("dangling", "all"):
        truth(filters, name)


def truth(filters: Mapping[str, Sequence[str]], name: str) -> bool | None:
    """Of a filter that is true or false; None when it is not given. Raises InvalidArgument."""
    values = filters.get(name)
    if not values:
        return None
    told = {_TRUTHS.get(value.lower()) for value in values}
    if len(told) != 1 or None in told:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)[:100]}]'")
    return told.pop()


def matches(value: Volume, filters: Mapping[str, Sequence[str]], *, used: bool) -> bool:
    """Values of one filter are alternatives; labels must all hold."""
    if not all(_labelled(value, text) for text in filters.get("label", ())):
        return False
    if (names := filters.get("name")) and not any(name in value.name for name in names):
        return False
    if (drivers := filters.get("driver")) and "local" not in drivers:
        return False
    dangling = truth(filters, "dangling")
    return dangling is None or dangling == (not used)


def prunable(value: Volume, filters: Mapping[str, Sequence[str]], *, every: bool) -> bool:
    """`every`: named ones too."""
    if not every and ANONYMOUS not in value.labels:
        return False
    if any(_labelled(value, text) for text in filters.get("label!", ())):
        return False
    return all(_labelled(value, text) for text in filters.get("label", ()))


def _labelled(value: Volume, text: str) -> bool:
    key, equals, wanted = text.partition("=")
    return key in value.labels and (not equals or value.labels[key] == wanted)
