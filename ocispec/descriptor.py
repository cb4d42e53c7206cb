"""Descriptors and platforms (OCI image-spec descriptor.md, image-index.md)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocispec.digest import Digest
from ocispec.errors import InvalidArgument

MAX_SIZE = 1 << 53  # the largest integer that every JSON reader keeps exact


class InvalidDescriptor(InvalidArgument):
    """A descriptor lacks a field or has one of the wrong type."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Where an image runs. `variant` is empty where the architecture has none."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """`linux/amd64`, `linux/arm/v7`, `arm64`. Raises InvalidArgument."""
        parts = text.lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(p and p.replace("_", "").replace("-", "").isalnum() for p in parts):
            raise InvalidArgument(f"invalid platform: {text[:100]!r} (want os/architecture[/variant])")
        if len(parts) == 1:
            if parts[0] not in _SYSTEMS | _ARCHITECTURES:
                # containerd's sentence, which clients know.
                raise InvalidArgument(f'"{text[:100]}": unknown operating system or architecture: invalid argument')
            parts = [parts[0], ""] if parts[0] in _SYSTEMS else ["linux", parts[0]]
        os, architecture, *rest = parts
        architecture, variant = _normalise(architecture, rest[0] if rest else "")
        return cls(os, architecture, variant)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Platform":
        architecture, variant = _normalise(_text(value, "architecture"), _text(value, "variant"))
        return cls(_text(value, "os"), architecture, variant)

    def satisfies(self, wanted: "Platform") -> bool:
        """Whether an image of this platform may be picked for `wanted`; an unset variant matches any, and an arm
        runs what was made for an older one (the exact variant is to be preferred)."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        if not wanted.variant or not self.variant or self.variant == wanted.variant:
            return True
        known = {self.variant, wanted.variant} <= _ARMS
        return self.architecture == "arm" and known and self.variant < wanted.variant

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


_ARMS = frozenset({"v5", "v6", "v7", "v8"})
_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd"})
_ARCHITECTURES = frozenset({
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm", "aarch64", "armel", "armhf", "i386", "x86-64", "x86_64",
})  # fmt: skip


def _normalise(architecture: str, variant: str) -> tuple[str, str]:
    """containerd's platform rules: `x86_64` is amd64, arm64's v8 is implied, arm without a variant is v7."""
    match architecture.lower():
        case "x86_64" | "x86-64":
            architecture = "amd64"
        case "aarch64":
            architecture = "arm64"
        case "armhf":
            architecture, variant = "arm", variant or "v7"
        case "armel":
            architecture, variant = "arm", variant or "v6"
        case "i386" | "i686":
            architecture = "386"
    if architecture == "arm64" and variant in ("v8", "8"):
        variant = ""
    if architecture == "arm":
        variant = "v7" if not variant else f"v{variant}" if variant in ("5", "6", "7", "8") else variant
    return architecture, variant


@dataclass(frozen=True, slots=True)
class Descriptor:
    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    platform: Platform | None = None
    urls: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: object, where: str = "descriptor") -> "Descriptor":
        """Raises InvalidDescriptor (naming `where`) or InvalidDigest."""
        if not isinstance(value, dict):
            raise InvalidDescriptor(f"{where} is not an object")
        no_lookalikes(value, _FIELDS, where)
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
            raise InvalidDescriptor(f"{where}.size is not a size in bytes: {str(size)[:50]}")
        digest = value.get("digest")
        if not isinstance(digest, str):
            raise InvalidDescriptor(f"{where}.digest is missing or not a string")
        platform = value.get("platform")
        if platform is not None and not isinstance(platform, dict):
            raise InvalidDescriptor(f"{where}.platform is not an object")
        urls = value.get("urls") or ()
        if not isinstance(urls, list | tuple) or not all(isinstance(url, str) for url in urls):
            raise InvalidDescriptor(f"{where}.urls is not a list of strings")
        return cls(
            media_type=media_type_from_json(value, "mediaType", where, required=True),
            digest=Digest.parse(digest),
            size=size,
            annotations=annotations_from_json(value.get("annotations"), where),
            artifact_type=media_type_from_json(value, "artifactType", where),
            platform=Platform.from_json(platform) if platform else None,
            urls=tuple(urls),
        )

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        if self.platform:
            out["platform"] = {"os": self.platform.os, "architecture": self.platform.architecture}
            if self.platform.variant:
                out["platform"]["variant"] = self.platform.variant
        return out


_FIELDS = frozenset({"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"})


def no_lookalikes(value: Mapping[str, Any], fields: frozenset[str], where: str) -> None:
    """Raises InvalidDescriptor for a name that is one of `fields` but for its case: encoding/json, which most clients
    read with, takes `Digest` for `digest`, and what was checked here would not be what they pull."""
    for name in value.keys() - fields:
        twin = next((field for field in fields if field.casefold() == name.casefold()), None)
        if twin:
            raise InvalidDescriptor(f"{where} has {name[:50]!r}, which some readers take for {twin!r}")


def annotations_from_json(value: object, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise InvalidDescriptor(f"{where}.annotations is not an object of strings")
    return value


# RFC 6838 section 4.2, without parameters. What passes is at most 255 characters and means nothing to a header.
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


def media_type_from_json(value: Mapping[str, Any], key: str, where: str, *, required: bool = False) -> str:
    """The media type under `key`, empty when it is absent and not `required`. Raises InvalidDescriptor."""
    text = _text(value, key, where)
    if not text and not required:
        return ""
    if not _MEDIA_TYPE.fullmatch(text):
        raise InvalidDescriptor(f"{where}.{key} is not a media type: {text[:100]!r}")
    return text


def _text(value: Mapping[str, Any], key: str, where: str = "platform") -> str:
    text = value.get(key, "")
    if not isinstance(text, str):
        raise InvalidDescriptor(f"{where}.{key} is not a string")
    return text
