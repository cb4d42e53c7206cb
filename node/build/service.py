"""What the API asks of this room."""

import asyncio
import posixpath
import secrets
import shutil
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from node.build.builder import Builder, Images
from node.build.copying import Copier
from node.build.results import Held, Kept, Results
from node.build.roots import Roots
from node.build.running import Contained, Runner
from node.build.stage import Means
from node.build.values import Output, Request, StepFailed
from node.dockerfile.ignore import Ignore
from node.files.errors import PathMissing
from node.files.trees import Stopped
from node.files.workers import Extraction, Workers
from node.snapshots.mounts import RootMount
from node.snapshots.store import RootSnapshots
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from storage.repository.store import ContentStore

MAX_DOCKERFILE = 4 * 1024 * 1024
BESIDE = ".dockerfile.stdin"
"""The name under which `seawall build -f -` sends what is no part of the context."""

Body = AsyncIterator[bytes]


class HasImages(Held, Images, Protocol):
    """node.images.store.Images."""


class Builds:
    def __init__(self, folder: Path, content: ContentStore, images: HasImages, containers: Contained,
                 snapshots: RootSnapshots, workers: Workers, platform: Platform) -> None:  # fmt: skip
        self._folder = folder
        self._workers = workers
        self._roots = Roots(folder / "roots", snapshots)
        self._results = Results(content, images)
        copier = Copier(workers, snapshots, self._roots, folder / "scratch")
        self._runner = Runner(containers, folder / "caches")
        means = Means(self._results, copier, self._runner, self._roots, workers, snapshots)
        self._builder = Builder(means, images, platform)

    async def open(self) -> None:
        """Remove what a killed daemon was in the middle of. Before anything is built."""
        await asyncio.to_thread(self._prepare)
        await self._roots.clear()
        await self._runner.clear()

    def _prepare(self) -> None:
        for name in ("contexts", "scratch"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for name in ("contexts", "scratch", "caches", "roots"):
            (self._folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    @asynccontextmanager
    async def context(self, body: Body) -> AsyncIterator[Path]:
        """The build's own files from an archive of any known compression; everything in it belongs to root, as a COPY
        puts it. Gone at the end. Raises what is wrong with the archive."""
        folder = self._folder / "contexts" / secrets.token_hex(16)
        await asyncio.to_thread(folder.mkdir, mode=0o755)
        try:
            into = Stopped(RootMount("bind", str(folder), ("rw", "rbind")), writable=True)
            await self._workers.write(into, "/", body, Extraction(owner=(0, 0)))
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, True))

    async def dockerfile(self, context: Path, name: str) -> bytes:
        """Raises StepFailed."""
        return await self._text(context, name, f"Cannot locate specified Dockerfile: {name}")

    async def hidden(self, context: Path, dockerfile: str) -> tuple[str, ...]:
        """What clients send though it is left out: the Dockerfile and the list itself. Raises InvalidDockerfile."""
        dockerfile = posixpath.normpath("/" + dockerfile).lstrip("/")
        if dockerfile == BESIDE:
            return (BESIDE,)
        for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
            try:
                ignore = Ignore.parse(await self._text(context, name, name))
            except StepFailed:
                continue
            sent = (dockerfile, f"{dockerfile}.dockerignore", ".dockerignore")
            return tuple(path for path in sent if ignore.leaves_out(path))
        return ()

    async def _text(self, context: Path, name: str, problem: str) -> bytes:
        tree = Stopped(RootMount("bind", str(context), ("ro", "rbind")))
        data = b""
        try:
            async with self._workers.raw(tree, posixpath.normpath("/" + name)) as stream:
                async for chunk in stream.chunks():
                    data += chunk
                    if len(data) > MAX_DOCKERFILE:
                        raise StepFailed(f"{name} has more than {MAX_DOCKERFILE} bytes")
                await stream.done()
        except PathMissing as error:
            raise StepFailed(problem) from error
        return data

    async def build(self, request: Request, output: Output) -> Digest:
        """Raises InvalidDockerfile, StepFailed and what bases and files bring about."""
        return await self._builder.build(request, output)

    async def kept(self) -> Sequence[Kept]:
        """The cache, oldest first."""
        return await self._results.kept()

    async def prune(
        self, *, before: datetime | None = None, keep: int = 0, keys: Collection[str] = ()
    ) -> tuple[Sequence[str], int]:
        """Keys of what is gone from the cache, and bytes that are free again."""
        return await self._results.prune(before=before, keep=keep, keys=keys)
