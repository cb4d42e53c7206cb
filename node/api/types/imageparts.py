"""The manifests of an image (`docker image ls --tree`, `docker image inspect` of clients since API 1.48), and platforms
as clients write them since then: JSON of the OCI object."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from node.images.image import Part
from ocispec.descriptor import Platform
from ocispec.errors import InvalidArgument

Json = dict[str, Any]


class InvalidPlatform(InvalidArgument):
    """The parameter is no JSON of a platform."""


def manifests(parts: Sequence[Part], uses: Mapping[str, Sequence[str]]) -> list[Json]:
    return [_manifest(part, uses) for part in parts]


def _manifest(part: Part, uses: Mapping[str, Sequence[str]]) -> Json:
    unpacked = part.image.size if part.image else 0
    document: Json = {
        "ID": str(part.descriptor.digest),
        "Descriptor": part.descriptor.to_json(),
        "Available": part.available,
        "Size": {"Content": part.content, "Total": part.content + unpacked},
        "Kind": "attestation" if part.attests else "image",
    }
    if part.attests:
        document["AttestationData"] = {"For": str(part.attests)}
    else:
        named = part.descriptor.platform
        shown = part.image.platform if part.image else named
        document["ImageData"] = {
            "Platform": platform(shown) if shown else {"architecture": "unknown", "os": "unknown"},
            "Containers": list(uses.get(str(part.image.id), ())) if part.image else [],
            "Size": {"Unpacked": unpacked},
        }
    return document


def platform(value: Platform) -> Json:
    document = {"architecture": value.architecture, "os": value.os}
    return document | {"variant": value.variant} if value.variant else document


def parse_platform(text: str) -> Platform | None:
    """`{"os": "linux", "architecture": "arm64"}`; None when it is empty. Raises InvalidPlatform."""
    if not text:
        return None
    try:
        value = json.loads(text)
        if not isinstance(value, dict) or not value.get("os") or not value.get("architecture"):
            raise ValueError("OS and Architecture must be provided")
        return Platform.from_json(value)
    except (ValueError, RecursionError) as error:
        raise InvalidPlatform(f"failed to parse platform: {error}") from error
    except InvalidArgument as error:
        raise InvalidPlatform(f"failed to parse platform: {error.message}") from error
