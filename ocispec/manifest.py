"""Manifests: parsed once, the raw bytes kept and never re-serialised (OCI image-spec manifest.md, image-index.md)."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocispec import mediatype
from ocispec.descriptor import (
    Descriptor,
    InvalidDescriptor,
    annotations_from_json,
    media_type_from_json,
    no_lookalikes,
)
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument

MAX_BYTES = 4 * 1024 * 1024
"""The largest manifest we store: the size the distribution-spec asks every registry to accept."""
MAX_CHILDREN = 20_000
"""Descriptors of one list. An image has some hundred at most; each costs a row, and a look whether it is there."""

MAX_NESTED = 250_000
"""Objects and arrays of one document, counted before it is parsed: 4 MiB of `{},` would be 100 MiB of dictionaries.
MAX_CHILDREN descriptors with platform and annotations are a quarter of it."""

_FIELDS = frozenset({"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject",
                     "annotations"})


class InvalidManifest(InvalidArgument):
    """The bytes are no manifest that may be stored; the message says which rule they break."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest, an artifact manifest or an index.

    `children` are the manifests of an index; `config` and `layers` belong to an image manifest, but an index may list
    layers too (a build cache does). `artifact_type` is the effective one of the referrers API: the field, else an
    image manifest's config media type.
    """

    raw: bytes
    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    subject: Descriptor | None
    annotations: Mapping[str, str]
    artifact_type: str

    @property
    def is_index(self) -> bool:
        return self.media_type in mediatype.INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers: what must be stored as blobs beside the manifest."""
        return (self.config, *self.layers) if self.config else self.layers

    def digest(self, algorithm: str = "sha256") -> Digest:
        return Digest.of(self.raw, algorithm)

    def descriptor(self, digest: Digest) -> Descriptor:
        return Descriptor(self.media_type, digest, len(self.raw), self.annotations, self.artifact_type)


def parse(raw: bytes, content_type: str = "") -> Manifest:
    """Parse and check a manifest.

    `content_type` is the HTTP header it came with; empty means "believe the document". Raises InvalidManifest for
    broken JSON, an unknown media type, a type that differs from the document's own (the confusion of CVE-2021-41190),
    a document that is both image and index, one that readers may understand differently (a name twice, or in another
    case), and malformed descriptors; InvalidDigest for a bad digest in it.
    """
    try:
        document = _document(raw)
        media_type = _media_type(document, mediatype.strip_parameters(content_type))
        if media_type in mediatype.INDEXES:
            return _index(raw, document, media_type)
        return _image(raw, document, media_type)
    except InvalidDescriptor as error:
        raise InvalidManifest(error.message, detail=error.detail) from error


def _document(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise InvalidManifest(f"manifest is larger than {MAX_BYTES} bytes")
    if raw.count(b"{") + raw.count(b"[") > MAX_NESTED:
        raise InvalidManifest(f"manifest has more than {MAX_NESTED} objects and lists")
    try:
        # Decoded first: bytes would let UTF-16 in, which no other client reads (RFC 8259, 8.1).
        document = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"manifest is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidManifest("manifest is not a JSON object")
    no_lookalikes(document, _FIELDS, "manifest")
    if document.get("schemaVersion") != 2:
        raise InvalidManifest(f"unsupported schemaVersion: {str(document.get('schemaVersion'))[:50]} (want 2)")
    if "manifests" in document and ("config" in document or "layers" in document):
        raise InvalidManifest("manifest has both 'manifests' and 'config' or 'layers': it must be one or the other")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that comes twice some readers take the first and some the last: what was checked here would not be
    what a client runs."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InvalidManifest(f"{twice[:100]!r} comes twice in one object")
    return found


def _no_number(text: str) -> Any:
    raise InvalidManifest(f"{text} is not JSON")


def _media_type(document: dict[str, Any], content_type: str) -> str:
    declared = document.get("mediaType", "")
    if not isinstance(declared, str):
        raise InvalidManifest("mediaType is not a string")
    if declared and content_type and declared != content_type:
        raise InvalidManifest(f"Content-Type {content_type!r} differs from the manifest's mediaType {declared!r}")
    media_type = declared or content_type
    if not media_type:
        media_type = mediatype.OCI_INDEX if "manifests" in document else mediatype.OCI_MANIFEST
    if media_type not in mediatype.MANIFESTS:
        raise InvalidManifest(f"unsupported manifest media type: {media_type[:200]!r}")
    return media_type


def _list(document: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidManifest(f"{key} is not a list")
    if len(value) > MAX_CHILDREN:
        raise InvalidManifest(f"{key} has {len(value)} entries, more than {MAX_CHILDREN}")
    return tuple(Descriptor.from_json(item, f"{key}[{number}]") for number, item in enumerate(value))


def _subject(document: dict[str, Any]) -> Descriptor | None:
    value = document.get("subject")
    return None if value is None else Descriptor.from_json(value, "subject")


def _index(raw: bytes, document: dict[str, Any], media_type: str) -> Manifest:
    if not isinstance(document.get("manifests"), list):
        raise InvalidManifest("index has no 'manifests' list")
    entries = _list(document, "manifests")
    return Manifest(
        raw=raw, media_type=media_type, config=None,
        layers=tuple(entry for entry in entries if mediatype.is_blob(entry.media_type)),
        children=tuple(entry for entry in entries if not mediatype.is_blob(entry.media_type)),
        subject=_subject(document), annotations=annotations_from_json(document.get("annotations"), "index"),
        artifact_type=media_type_from_json(document, "artifactType", "manifest"),
    )


def _image(raw: bytes, document: dict[str, Any], media_type: str) -> Manifest:
    if "manifests" in document:
        raise InvalidManifest(f"a {media_type} document has 'manifests'")
    if "config" not in document:
        raise InvalidManifest("image manifest has no 'config'")
    config = Descriptor.from_json(document["config"], "config")
    return Manifest(
        raw=raw, media_type=media_type, config=config, layers=_list(document, "layers"), children=(),
        subject=_subject(document), annotations=annotations_from_json(document.get("annotations"), "manifest"),
        artifact_type=media_type_from_json(document, "artifactType", "manifest") or config.media_type,
    )
