"""The `filters` query parameter, in both of its forms: `{"name": ["value"]}` and `{"name": {"value": true}}`."""

import json
from collections.abc import Mapping

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


def _values(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, dict):
        return tuple(key for key, wanted in value.items() if wanted)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InvalidArgument(f"invalid filter '{name}': not a list of strings")
