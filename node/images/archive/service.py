"""save, load, import and the images that commits make: what the API and the containers ask of this room."""

import shutil
from asyncio import to_thread
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from node.images.archive.intake import Intake
from node.images.archive.load import Body, Loaded, Loader, Names, Spools
from node.images.archive.making import LayerStream, Maker, Packs, Recipe
from node.images.archive.save import Saver, Wanted, choose
from node.images.catalog import Catalog
from node.images.image import Image
from node.images.progress import Progress
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.reference import Reference
from storage.repository.store import ContentStore


class Held(Names, Protocol):
    """The images that are here (node.images.store.Images)."""

    @property
    def intake(self) -> Intake: ...
    async def catalog(self) -> Catalog: ...


class Workers(Spools, Packs, Protocol):
    """What takes archives apart (node.files.workers.Workers)."""


class Archives:
    def __init__(self, content: ContentStore, images: Held, workers: Workers, scratch: Path,
                 platform: Platform) -> None:  # fmt: skip
        self._images = images
        self._intake = images.intake
        self._scratch = scratch
        self._saver = Saver(content)
        self._loader = Loader(self._intake, images, workers, scratch)
        self._maker = Maker(self._intake, images, workers, platform)

    async def clear(self) -> None:
        """Remove what a killed daemon left half taken in. Before anything is asked."""
        await to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        await self._intake.clear()

    async def choose(self, names: Sequence[str], platform: Platform | None = None) -> Sequence[Wanted]:
        """Raises ImageNotFound, AmbiguousImage, PlatformMissing."""
        return choose(await self._images.catalog(), names, platform)

    def save(self, wanted: Sequence[Wanted]) -> AsyncIterator[bytes]:
        """The archive. Raises BlobUnknown when an image is removed meanwhile."""
        return self._saver.chunks(wanted)

    async def load(self, body: Body, progress: Progress, platform: Platform | None = None) -> Sequence[Loaded]:
        """Raises NotAnArchive, NothingOfPlatform, DiffIdMismatch, InvalidLayer…"""
        return await self._loader.load(body, progress, platform)

    async def from_tar(self, body: Body, recipe: Recipe, target: Reference | None,
                       platform: Platform | None = None) -> Digest:  # fmt: skip
        """The id of an image of this tar alone."""
        return await self._maker.from_tar(body, recipe, target, platform)

    async def upon(self, base: Image, layer: LayerStream, recipe: Recipe, target: Reference | None) -> Digest:
        """The id of an image of one more layer."""
        return await self._maker.upon(base, layer, recipe, target)
