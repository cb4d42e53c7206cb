"""`docker load`: every image of an archive, verified like a pulled one."""

import contextlib
import secrets
import shutil
from asyncio import to_thread
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from node.images.archive.errors import NothingOfPlatform
from node.images.archive.intake import Intake, Made, Taking, config_type, layer_type, manifest_of
from node.images.archive.layouts import Family, Held, families
from node.images.archive.spool import Spool
from node.images.image import UNNAMED
from node.images.progress import Progress
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.reference import Reference, RepositoryName

Body = AsyncIterator[bytes]


class Spools(Protocol):
    """Takes archives apart (node.files.workers.Workers)."""

    async def spool(self, body: Body, folder: Path) -> Sequence[Any]: ...


class Names(Protocol):
    """The images that are here (node.images.store.Images)."""

    def changed(self) -> None: ...
    async def tag(self, source: str, target: Reference) -> None: ...
    async def holds(self, image: Digest) -> bool: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """`names` are familiar references; none for an image that the archive does not name."""

    id: Digest
    names: tuple[str, ...]


class Loader:
    def __init__(self, intake: Intake, images: Names, spools: Spools, scratch: Path) -> None:
        self._intake = intake
        self._images = images
        self._spools = spools
        self._scratch = scratch

    async def load(self, body: Body, progress: Progress, platform: Platform | None = None) -> list[Loaded]:
        """Raises NotAnArchive, NothingOfPlatform, DiffIdMismatch, and what is wrong with a layer or name. Images before
        the broken one stay."""
        async with self._spooled(body) as spool:
            wanted = [one for family in await families(spool) if (one := _of(family, platform)) is not None]
            if not wanted:
                raise NothingOfPlatform(f"the archive holds no image for {platform}")
            return [loaded for family in wanted for loaded in await self._family(spool, family, progress)]

    @contextlib.asynccontextmanager
    async def _spooled(self, body: Body) -> AsyncIterator[Spool]:
        folder = self._scratch / f"load-{secrets.token_hex(8)}"
        await to_thread(folder.mkdir, mode=0o700, parents=True)
        try:
            yield Spool(folder, await self._spools.spool(body, folder))
        finally:
            await to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _family(self, spool: Spool, family: Family, progress: Progress) -> list[Loaded]:
        repository = family.names[0].repository if family.names else UNNAMED
        names = tuple(name.familiar() for name in family.names)
        try:
            async with self._intake.taking("load") as taking:
                made = [await self._image(taking, spool, held, repository) for held in family.images]
                for one in made:
                    await taking.unpack(one, progress)
                if not names and family.index is None and await self._images.holds(_id(made[0])):
                    return [Loaded(_id(made[0]), ())]  # it is here already, under names that it keeps
                tags = [name.tag for name in family.names if name.repository == repository and name.tag is not None]
                await taking.name(repository, family.index or made[0].manifest, tags)
        finally:
            self._images.changed()
        top = (family.index or made[0].manifest).digest()
        for name in family.names:
            await self._images.tag(f"{repository}@{top}", name)
        return [Loaded(_id(made[0]), names)]

    async def _image(self, taking: Taking, spool: Spool, held: Held, repository: RepositoryName) -> Made:
        manifest = held.manifest
        config = await taking.document(repository, held.config.raw)
        if manifest is None:
            descriptor = Descriptor(config_type(docker=False), config, len(held.config.raw))
            layers = [Descriptor(layer_type(layer.packed), Digest("sha256", layer.digest), layer.size)
                      for layer in held.layers]  # fmt: skip
            manifest = manifest_of(descriptor, layers)
        for layer, member in zip(manifest.layers, held.layers, strict=True):
            await taking.blob(repository, layer.digest, lambda member=member: spool.chunks(member))  # type: ignore[misc]
        return Made(repository, manifest, held.config)


def _of(family: Family, platform: Platform | None) -> Family | None:
    """The family cut down to one platform."""
    if platform is None:
        return family
    fitting = tuple(held for held in family.images if held.config.platform.satisfies(platform))
    if not fitting:
        return None
    return family if len(fitting) == len(family.images) else Family(fitting[:1], None, family.names)


def _id(made: Made) -> Digest:
    assert made.manifest.config is not None
    return made.manifest.config.digest
