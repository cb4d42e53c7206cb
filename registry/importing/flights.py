"""Blobs on their way: so many at once, and each once however many repositories want it."""

import asyncio

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.importing.progress import Counts
from registry.importing.source import Source
from registry.importing.target import Target


class Flights:
    """`jobs` blobs are read at a time, so memory does not grow with what there is."""

    def __init__(self, source: Source, target: Target, counts: Counts, jobs: int) -> None:
        self._source = source
        self._target = target
        self._counts = counts
        self._places = asyncio.Semaphore(jobs)
        self._running: dict[Digest, asyncio.Event] = {}

    async def take(self, repo: RepositoryName, digest: Digest) -> int:
        """Make the blob part of the repository; gives its size. Raises Damaged."""
        while (running := self._running.get(digest)) is not None:
            await running.wait()
        self._running[digest] = over = asyncio.Event()
        try:
            async with self._places:
                # Also who met no other: that one may have come and gone since this repository was looked at.
                held = await self._target.held(repo, [digest])
                if digest in held:
                    self._counts.blobs_known += 1
                    return held[digest]
                return await self._take(repo, digest)
        finally:
            del self._running[digest]
            over.set()

    async def _take(self, repo: RepositoryName, digest: Digest) -> int:
        file = await asyncio.to_thread(self._source.open_blob, repo, digest)
        try:
            size = await self._target.take(repo, digest, file, self._source.blob_path(repo, digest))
        finally:
            file.close()
        self._counts.blobs += 1
        self._counts.bytes += size
        return size
