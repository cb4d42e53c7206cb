"""A program that pushes and collects, and stops for ever at a named step: `crashing.py FOLDER STEP [BUCKET]`.

BUCKET are S3Options as JSON; without them bytes go to the folder.

It prints the step when it is there; the test then kills it. Steps are calls of the blob store, which the rooms above
alternate with transactions: before and after each lies one point at which only bytes, or only rows, have changed.
"""

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ocispec import manifest, mediatype
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.disk import DiskBlobs
from storage.blobs.store import BlobStore, BlobWriter, StorageKey, StoredBytes
from storage.gc.sweep import Collector
from storage.metadata.engine import open_database
from storage.repository.store import ContentStore
from storage.settings import ContentSettings

REPO = RepositoryName.parse("team/app")
SETTINGS = ContentSettings(upload_batch=10_000, checkpoint_bytes=40_000)


class Stops:
    def __init__(self, step: str) -> None:
        self._step, _, number = step.partition(":")
        self._left = int(number or 1)

    async def at(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                print(step, flush=True)
                await asyncio.Event().wait()


class StoppingWriter:
    def __init__(self, writer: BlobWriter, stops: Stops) -> None:
        self._writer, self._stops = writer, stops

    @property
    def key(self) -> StorageKey:
        return self._writer.key

    @property
    def mark(self) -> str:
        return self._writer.mark

    @property
    def readable(self) -> int:
        return self._writer.readable

    @property
    def offset(self) -> int:
        return self._writer.offset

    async def write(self, chunks: Sequence[bytes | bytearray]) -> None:
        await self._writer.write(chunks)
        await self._stops.at("written")

    async def flush(self) -> int:
        offset = await self._writer.flush()
        await self._stops.at("flushed")
        return offset

    async def seal(self) -> int:
        await self._stops.at("sealing")
        size = await self._writer.seal()
        await self._stops.at("sealed")
        return size

    async def close(self) -> None:
        await self._writer.close()
        await self._stops.at("closed")


class StoppingBlobs:
    def __init__(self, blobs: BlobStore, stops: Stops) -> None:
        self._blobs, self._stops = blobs, stops

    async def size(self, key: StorageKey) -> int:
        return await self._blobs.size(key)

    def read(self, key: StorageKey, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        return self._blobs.read(key, start, length)

    async def create(self) -> StoppingWriter:
        writer = StoppingWriter(await self._blobs.create(), self._stops)
        await self._stops.at("created")
        return writer

    async def resume(self, key: StorageKey, offset: int, mark: str = "", *, contested: bool = False) -> StoppingWriter:
        writer = StoppingWriter(await self._blobs.resume(key, offset, mark, contested=contested), self._stops)
        await self._stops.at("resumed")
        return writer

    async def settle(self, key: StorageKey, offset: int, mark: str = "") -> None:
        await self._blobs.settle(key, offset, mark)

    async def delete(self, key: StorageKey) -> None:
        await self._stops.at("deleting")
        await self._blobs.delete(key)
        await self._stops.at("deleted")

    def list(self) -> AsyncIterator[StoredBytes]:
        return self._blobs.list()


async def open_store(folder: Path, bucket: str | None) -> BlobStore:
    if bucket is None:
        store: Any = DiskBlobs(folder / "content")
    else:
        from storage.blobs.s3.options import S3Options
        from storage.blobs.s3.store import S3Blobs

        options = json.loads(bucket)
        store = S3Blobs(S3Options(**{**options, "spool": Path(options["spool"])}))
    await store.prepare()
    return store


async def main(folder: Path, step: str, bucket: str | None = None) -> None:
    blobs = StoppingBlobs(await open_store(folder, bucket), Stops(step))
    async with open_database(f"sqlite+aiosqlite:///{folder}/content.db") as database:
        content = ContentStore(database, blobs, SETTINGS)
        number = 0
        while True:
            number += 1
            await push(content, number)
            old = await content.manifests.get(REPO, Tag("latest"))
            await content.manifests.delete(REPO, old.digest)
            await Collector(database, blobs).run(grace=timedelta(0))
            await push(content, number)
            print("pushed", flush=True)


async def push(content: ContentStore, number: int) -> None:
    layer = hashlib.sha256(b"%d" % number).digest() * 4000
    config = await upload(content, b"{}")
    await upload(content, layer)
    held = await upload(content, layer)  # held already: its bytes go again, through a tombstone
    document = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST,
                "config": {"mediaType": mediatype.OCI_CONFIG, "digest": str(config), "size": 2},
                "layers": [{"mediaType": mediatype.OCI_LAYER, "digest": str(held), "size": len(layer)}]}
    await content.manifests.put(REPO, manifest.parse(json.dumps(document).encode()), tags=[Tag("latest")])


async def upload(content: ContentStore, data: bytes) -> Digest:
    started = await content.uploads.start(REPO)
    print("upload", started.id, flush=True)
    for first in range(0, len(data), 100_000):
        await started.append(pieces(data[first : first + 100_000]), at=first)
    return (await started.commit(Digest.of(data))).digest


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for first in range(0, len(data), 3000):
        yield data[first : first + 3000]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
