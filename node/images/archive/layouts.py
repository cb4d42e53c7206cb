"""What images an archive holds: an OCI layout, Docker's `manifest.json` (1.10 and later), or its older `repositories`.

An archive of today's Docker is both of the first two: the layout says the manifests, `manifest.json` the names.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from node.images.archive.errors import NotAnArchive
from node.images.archive.spool import Spool
from node.images.catalog import is_image
from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.errors import InvalidArgument
from ocispec.image import ImageConfig
from ocispec.manifest import Manifest
from ocispec.reference import Reference

T = TypeVar("T")

MAX_IMAGES = 1000
_NAME, _REF = "io.containerd.image.name", "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Held:
    """One image of an archive. `layers` are members of the spool, bottom first. With `manifest` its bytes are kept as
    they are, and `index` is what it stands under; without it the manifest is made here."""

    config: ImageConfig
    layers: Sequence[Any]
    names: tuple[Reference, ...] = ()
    manifest: Manifest | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """Images that belong together: those of one index, or one alone. `names` are of the whole."""

    images: tuple[Held, ...]
    index: Manifest | None = None
    names: tuple[Reference, ...] = field(default_factory=tuple)


async def families(spool: Spool) -> list[Family]:
    """Raises NotAnArchive, and what is wrong with a document."""
    if spool.has("index.json") and spool.has("oci-layout"):
        return await _layout(spool)
    if spool.has("manifest.json"):
        return [Family((held,), names=held.names) for held in await _docker(spool)]
    if spool.has("repositories"):
        return [Family((held,), names=held.names) for held in await _oldest(spool)]
    raise NotAnArchive("the archive holds no image: it has neither manifest.json nor index.json nor repositories")


# -- OCI


async def _layout(spool: Spool) -> list[Family]:
    named = await _docker_names(spool)
    top = manifests.parse(await spool.read("index.json"), mediatype.OCI_INDEX)
    found: dict[str, Family] = {}
    for descriptor in _bounded(top.children):
        manifest = await _manifest(spool, descriptor)
        if manifest.is_index:
            members = [child for child in manifest.children
                       if spool.has(f"blobs/{child.digest.algorithm}/{child.digest.encoded}")]
            images = [image for child in _bounded(members) if (image := await _image(spool, child)) is not None]
        else:
            image = await _image(spool, descriptor)
            images = [] if image is None else [image]
        if not images:
            continue
        names = {name: None for image in images for name in named.get(str(image.config_digest), ())}
        names.update(dict.fromkeys(_annotated(descriptor)))
        key = str(descriptor.digest)
        before = found[key].names if key in found else ()
        held = tuple(image.held for image in images)
        found[key] = Family(held, manifest if manifest.is_index else None, (*before, *names))
    if not found:
        raise NotAnArchive("the archive's index.json names no container image that the archive holds")
    return [Family(one.images, one.index, tuple(dict.fromkeys(one.names))) for one in found.values()]


@dataclass(frozen=True, slots=True)
class _Found:
    held: Held
    config_digest: object


async def _image(spool: Spool, descriptor: Descriptor) -> _Found | None:
    """None: it is no container image (an attestation, another artifact), or parts of it are left out."""
    manifest = await _manifest(spool, descriptor)
    if not is_image(manifest):
        return None
    assert manifest.config is not None
    present = [blob for blob in manifest.blobs
               if spool.has(f"blobs/{blob.digest.algorithm}/{blob.digest.encoded}")]
    if not present:
        return None
    config = ImageConfig.parse(await spool.bytes_of(spool.blob(manifest.config.digest)))
    layers = [spool.blob(layer.digest) for layer in manifest.layers]
    return _Found(Held(config, layers, manifest=manifest), manifest.config.digest)


async def _manifest(spool: Spool, descriptor: Descriptor) -> Manifest:
    return manifests.parse(await spool.bytes_of(spool.blob(descriptor.digest)), descriptor.media_type)


async def _docker_names(spool: Spool) -> Mapping[str, Sequence[Reference]]:
    """Names by the digest of the config, of the `manifest.json` beside the layout."""
    if not spool.has("manifest.json"):
        return {}
    names: dict[str, list[Reference]] = {}
    for entry in _entries(await spool.document("manifest.json")):
        member = spool.get(_text(entry, "Config"))
        names.setdefault(f"sha256:{member.digest}", []).extend(_references(entry.get("RepoTags")))
    return names


def _annotated(descriptor: Descriptor) -> Iterable[Reference]:
    for key in (_NAME, _REF):
        text = descriptor.annotations.get(key, "")
        # A bare `latest` is a tag of nothing.
        if text and (key == _NAME or ":" in text or "/" in text):
            try:
                reference = Reference.parse(text)
            except InvalidArgument:
                if key == _NAME:
                    raise
                continue
            return (reference.with_default_tag(),) if not reference.digest else ()
    return ()


# -- Docker


async def _docker(spool: Spool) -> list[Held]:
    images = []
    for entry in _bounded(_entries(await spool.document("manifest.json"))):
        config = ImageConfig.parse(await spool.read(_text(entry, "Config")))
        names = entry.get("Layers") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise NotAnArchive("manifest.json: Layers is not a list of names")
        if len(names) != len(config.diff_ids):
            raise NotAnArchive(f"invalid manifest, layers length mismatch: expected {len(config.diff_ids)}, "
                               f"got {len(names)}")
        layers = [spool.get(name) for name in names]
        images.append(Held(config, layers, tuple(_references(entry.get("RepoTags")))))
    if not images:
        raise NotAnArchive("manifest.json names no image")
    return images


def _entries(document: object) -> list[Mapping[str, Any]]:
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise NotAnArchive("manifest.json is not a list of images")
    return document


def _references(value: object) -> list[Reference]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise NotAnArchive("manifest.json: RepoTags is not a list of names")
    found = [Reference.parse(name) for name in value]
    if any(one.tag is None or one.digest for one in found):
        raise NotAnArchive("manifest.json: RepoTags holds something that is no name with a tag")
    return found


# -- before Docker 1.10: one folder a layer, each with the image's JSON of that day


async def _oldest(spool: Spool) -> list[Held]:
    repositories = await spool.document("repositories")
    if not isinstance(repositories, dict):
        raise NotAnArchive("repositories is not an object")
    names: dict[str, list[Reference]] = {}
    for repository, tags in repositories.items():
        if not isinstance(tags, dict):
            raise NotAnArchive("repositories is not an object of objects")
        for tag, image in tags.items():
            names.setdefault(str(image), []).append(Reference.parse(f"{repository}:{tag}"))
    return [await _old_image(spool, image, tuple(held)) for image, held in _bounded(list(names.items()))]


async def _old_image(spool: Spool, image: str, names: tuple[Reference, ...]) -> Held:
    documents: list[Mapping[str, Any]] = []
    layers: list[Any] = []
    here = image
    while here:
        if not here.isalnum() or len(documents) > MAX_IMAGES:
            raise NotAnArchive("the archive's images lead in a circle, or to no id")
        document = await spool.document(f"{here}/json")
        if not isinstance(document, dict):
            raise NotAnArchive(f"{here}/json is not an object")
        documents.append(document)
        layers.append(spool.get(f"{here}/layer.tar"))
        here = str(document.get("parent") or "")
    top = documents[0]
    history = [_step(document) for document in reversed(documents)]
    kept = {key: top[key] for key in ("architecture", "os", "created", "author", "config") if top.get(key)}
    diff_ids = [f"sha256:{layer.digest}" for layer in reversed(layers)]
    raw = json.dumps({"architecture": "amd64", "os": "linux", **kept, "history": history,
                      "rootfs": {"type": "layers", "diff_ids": diff_ids}}, separators=(",", ":"))
    return Held(ImageConfig.parse(raw.encode()), list(reversed(layers)), names)


def _step(document: Mapping[str, Any]) -> Mapping[str, str]:
    container = document.get("container_config")
    command = container.get("Cmd") if isinstance(container, dict) else None
    step = {"created": document.get("created"), "author": document.get("author"), "comment": document.get("comment"),
            "created_by": " ".join(map(str, command)) if isinstance(command, list) else ""}  # fmt: skip
    return {key: value for key, value in step.items() if isinstance(value, str) and value}


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise NotAnArchive(f"manifest.json: {key} is not a name")
    return value


def _bounded(values: Sequence[T]) -> Sequence[T]:
    if len(values) > MAX_IMAGES:
        raise NotAnArchive(f"the archive names more than {MAX_IMAGES} images")
    return values
