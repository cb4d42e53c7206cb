"""The `filters` query parameter, in both of its forms: `{"name": ["value"]}` and `{"name": {"value": true}}`."""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from node.api.types.units import parse_time
from ocispec.errors import InvalidArgument


def parse_filters(text: str) -> Mapping[str, tuple[str, ...]]:
    """Raises InvalidArgument."""
    if not text:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid filter: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidArgument("invalid filter: not an object")
    return {name: _values(name, value) for name, value in document.items()}


@dataclass(frozen=True, slots=True)
class PruneQuery:
    """The filters that every prune of Docker knows; `until` in nanoseconds since the epoch."""

    until: int = 0
    labels: tuple[str, ...] = ()
    not_labels: tuple[str, ...] = ()


def parse_prune(text: str, *, others: Collection[str] = ()) -> tuple[PruneQuery, Mapping[str, tuple[str, ...]]]:
    """And the values of those in `others`. Raises InvalidArgument for any other name."""
    given = parse_filters(text)
    for name in given:
        if name not in ("until", "label", "label!", *others):
            raise InvalidArgument(f"invalid filter '{name}'")
    moments = given.get("until", ())
    if len(moments) > 1:
        raise InvalidArgument("more than one until filter specified")
    until = parse_time(moments[0], time.time()) if moments else 0
    query = PruneQuery(until, given.get("label", ()), given.get("label!", ()))
    return query, {name: values for name, values in given.items() if name in others}


def _values(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, dict):
        return tuple(key for key, wanted in value.items() if wanted)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InvalidArgument(f"invalid filter '{name}': not a list of strings")
