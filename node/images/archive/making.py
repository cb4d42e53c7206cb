"""Images of one new layer: `docker import` (a tar alone) and `docker commit` (a container's changes upon its image)."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from node.images.archive.intake import Intake, Made, Taking, config_type, layer_type, manifest_of
from node.images.archive.load import Names
from node.images.image import UNNAMED, Image
from node.images.progress import Silent
from ocispec import mediatype
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument
from ocispec.image import ImageConfig
from ocispec.reference import Reference, RepositoryName

Body = AsyncIterator[bytes]


class Packed(Protocol):
    """A layer's facts when all of its bytes have come (node.files.workers.Packed)."""

    @property
    def diff_id(self) -> Digest: ...
    @property
    def digest(self) -> Digest: ...
    @property
    def size(self) -> int: ...
    @property
    def plain_size(self) -> int: ...
    @property
    def compression(self) -> str: ...


class LayerStream(Protocol):
    """A layer while it is made."""

    def chunks(self) -> Body: ...
    async def packed(self) -> Packed: ...


class Packs(Protocol):
    """Makes a layer of a tar (node.files.workers.Workers)."""

    def pack(self, body: Body) -> AbstractAsyncContextManager[LayerStream]: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the new image is: `config` as in the image's document, `step` its history entry."""

    created: str
    config: Mapping[str, Any]
    step: Mapping[str, Any]
    author: str = ""
    comment: str = ""


class Maker:
    def __init__(self, intake: Intake, images: Names, packs: Packs, platform: Platform) -> None:
        self._intake = intake
        self._images = images
        self._packs = packs
        self._platform = platform

    async def from_tar(self, body: Body, recipe: Recipe, target: Reference | None, platform: Platform | None) -> Digest:
        """Raises what is wrong with the archive or name."""
        document = {**_platform(platform or self._platform), **_about(recipe)}
        async with self._packs.pack(body) as stream:
            return await self._make(stream, None, document, recipe, target)

    async def upon(self, base: Image, stream: LayerStream, recipe: Recipe, target: Reference | None) -> Digest:
        kept = {key: value for key, value in base.config.document.items()
                if key in ("architecture", "os", "variant", "os.version", "os.features")}  # fmt: skip
        return await self._make(stream, base, {**kept, **_about(recipe)}, recipe, target)

    async def _make(self, stream: LayerStream, base: Image | None, document: Mapping[str, Any], recipe: Recipe,
                    target: Reference | None) -> Digest:  # fmt: skip
        name = _target(target)
        repository = name.repository if name else UNNAMED
        try:
            async with self._intake.taking("make") as taking:
                made = await _taken(taking, repository, stream, base, document, recipe)
                await taking.unpack(made, Silent())
                tags = (name.tag,) if name and name.tag else ()
                await taking.name(repository, made.manifest, tags)
        finally:
            self._images.changed()
        assert made.manifest.config is not None
        return made.manifest.config.digest


async def _taken(taking: Taking, repository: RepositoryName, stream: LayerStream, base: Image | None,
                 document: Mapping[str, Any], recipe: Recipe) -> Made:  # fmt: skip
    told: list[Packed] = []

    async def digest() -> Digest:
        told.append(await stream.packed())
        return told[0].digest

    below = base.manifest.layers if base else ()
    await taking.link(repository, below)
    await taking.stream(repository, stream.chunks(), digest)
    layer = told[0]
    like = base.manifest if base else None
    docker = like is not None and like.media_type == mediatype.DOCKER_MANIFEST and layer.compression == "gzip"
    diff_ids: Sequence[Digest] = (*(base.config.diff_ids if base else ()), layer.diff_id)
    history = [*(base.config.history if base else ()), dict(recipe.step)]
    # Docker's word for the image it was made from, shown by inspect; OCI's document has none and ignores it.
    parent = {"parent": str(base.id)} if base else {}
    raw = json.dumps({**document, **parent, "config": dict(recipe.config), "history": history,
                      "rootfs": {"type": "layers", "diff_ids": [str(one) for one in diff_ids]}},
                     separators=(",", ":")).encode()  # fmt: skip
    config = Descriptor(config_type(docker=docker), await taking.document(repository, raw), len(raw))
    descriptor = Descriptor(layer_type(layer.compression, like), layer.digest, layer.size)
    return Made(repository, manifest_of(config, (*below, descriptor), docker=docker), ImageConfig.parse(raw))


def _target(target: Reference | None) -> Reference | None:
    if target is not None and target.digest is not None:
        raise InvalidArgument("cannot use digest reference")
    return target.with_default_tag() if target else None


def _platform(platform: Platform) -> Mapping[str, str]:
    values = {"architecture": platform.architecture, "os": platform.os, "variant": platform.variant}
    return {key: value for key, value in values.items() if value}


def _about(recipe: Recipe) -> Mapping[str, str]:
    values = {"created": recipe.created, "author": recipe.author, "comment": recipe.comment}
    return {key: value for key, value in values.items() if value}
