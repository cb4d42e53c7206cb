"""What a container's monitor puts below the container's folder before its birth, where the host does not see it: the
root file systems of images that are mounted, and the files of secrets and configs, in memory."""

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.containers.bundle.mounts import IMAGES
from node.containers.launcher import FileAbout
from node.containers.model import Container, MountPoint
from node.containers.parts import FindsImages, ReadsSecrets
from node.snapshots.mounts import RootMount
from node.snapshots.store import RootSnapshots

FILE_KINDS = ("secret", "config")


class PrivateMounts:
    def __init__(self, images: FindsImages, snapshots: RootSnapshots, secrets: ReadsSecrets) -> None:
        self._images = images
        self._snapshots = snapshots
        self._secrets = secrets

    async def prepare(self, container: Container) -> None:
        """A writable layer of the container's own for each image it mounts. The container's folder exists."""
        for number, point in enumerate(_images(container)):
            chain = await self._images.ensure_unpacked(await self._images.get(point.reference))
            # The folder first: by it the next daemon finds the layer of a creation that a kill cut short.
            await asyncio.to_thread(_folder(container, number).mkdir, mode=0o700, parents=True)
            await self._snapshots.create(_layer(container.id, number), chain)

    async def images(self, container: Container) -> tuple[tuple[RootMount, Path], ...]:
        """What to mount, and where."""
        return tuple([
            (await self._snapshots.mount(_layer(container.id, number)), _folder(container, number))
            for number in range(len(_images(container)))
        ])

    async def contents(self, container: Container) -> tuple[tuple[FileAbout, ...], bytes]:
        """The files, and what is in them, one behind the other. Raises NoSuchSecret, Undecipherable."""
        about, contents = [], bytearray()
        for point in container.mounts:
            if point.kind in FILE_KINDS:
                data = await self._secrets.read(point.kind, point.reference)
                about.append(FileAbout(len(data), *point.owner, point.file_mode))
                contents += data
        return tuple(about), bytes(contents)

    async def remove(self, container_id: str, directory: Path) -> None:
        """The layers and the container's folder, the folder last."""
        for number in await asyncio.to_thread(_numbers, directory / IMAGES):
            await self._snapshots.remove(_layer(container_id, number))
        await self._snapshots.remove(container_id)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


@contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    """A descriptor of a file that has no name and holds this."""
    descriptor = os.memfd_create("seawall-files", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view):]
        yield descriptor
    finally:
        os.close(descriptor)


def _images(container: Container) -> Sequence[MountPoint]:
    return [point for point in container.mounts if point.kind == "image"]


def _layer(container_id: str, number: int) -> str:
    return f"{container_id}m{number}"


def _folder(container: Container, number: int) -> Path:
    return Path(container.directory) / IMAGES / str(number)


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]
    except FileNotFoundError:
        return []
