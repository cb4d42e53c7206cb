"""A secret or config as `docker secret` and `docker config` read it."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from node.api.parts import Secret
from ocispec.errors import InvalidArgument

FILTERS = frozenset({"id", "label", "name", "names"})


def secret(value: Secret, data: bytes | None = None) -> dict[str, Any]:
    """`data` of a config only: a secret's is never shown."""
    spec: dict[str, Any] = {"Name": value.name, "Labels": dict(value.labels)}
    if data is not None:
        spec["Data"] = base64.b64encode(data).decode()
    return {
        "ID": value.id,
        "Version": {"Index": value.version},
        "CreatedAt": value.created,
        "UpdatedAt": value.updated,
        "Spec": spec,
    }


def decode_data(text: str) -> bytes:
    """Raises InvalidArgument."""
    try:
        return base64.b64decode(text.translate({ord("-"): "+", ord("_"): "/"}), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"invalid JSON: Data is not base64: {error}") from error


def matches(value: Secret, filters: Mapping[str, Sequence[str]]) -> bool:
    for text in filters.get("label", ()):
        key, equals, wanted = text.partition("=")
        if key not in value.labels or (equals and value.labels[key] != wanted):
            return False
    if (ids := filters.get("id")) and not any(value.id.startswith(one) for one in ids):
        return False
    if (names := filters.get("name")) and not any(value.name.startswith(one) for one in names):
        return False
    exact = filters.get("names")
    return not exact or value.name in exact
