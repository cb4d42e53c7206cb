"""A blob store that is watched. It can do what the store beneath can: every capability shows through."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from storage.blobs.store import (
    BlobStore,
    BlobWriter,
    Leftovers,
    LocalFiles,
    Presigner,
    SharedFiles,
    StorageKey,
    StoredBytes,
)
from storage.observation import Observer, Tally


def observed(blobs: BlobStore, observer: Observer) -> BlobStore:
    """`blobs`, watched, with the same capabilities: `isinstance` asks for them, so each is a class of its own."""
    having = [mixin for capability, mixin in _CAPABILITIES.items() if isinstance(blobs, capability)]
    made = type("ObservedBlobs", (*having, ObservedBlobs), {})
    return cast("BlobStore", made(blobs, observer))


class ObservedBlobs:
    def __init__(self, blobs: BlobStore, observer: Observer) -> None:
        self._blobs = blobs
        self._observer = observer
        self._read = observer.tally("store.read.bytes")
        self._written = observer.tally("store.write.bytes")

    def _span(self, call: str) -> AbstractContextManager[object]:
        return self._observer.span("store", call)

    async def size(self, key: StorageKey) -> int:
        with self._span("size"):
            return await self._blobs.size(key)

    async def read(self, key: StorageKey, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        chunks = aiter(self._blobs.read(key, start, length))
        with self._span("read"):
            first = await anext(chunks, b"")
        if first:
            self._read.add(len(first))
            yield first
        async for chunk in chunks:
            self._read.add(len(chunk))
            yield chunk

    async def create(self) -> BlobWriter:
        with self._span("create"):
            return ObservedWriter(await self._blobs.create(), self._observer, self._written)

    async def resume(self, key: StorageKey, offset: int, mark: str = "", *, contested: bool = False) -> BlobWriter:
        with self._span("resume"):
            writer = await self._blobs.resume(key, offset, mark, contested=contested)
            return ObservedWriter(writer, self._observer, self._written)

    async def settle(self, key: StorageKey, offset: int, mark: str = "") -> None:
        with self._span("settle"):
            await self._blobs.settle(key, offset, mark)

    async def delete(self, key: StorageKey) -> None:
        with self._span("delete"):
            await self._blobs.delete(key)

    def list(self) -> AsyncIterator[StoredBytes]:
        return self._blobs.list()


class _Beneath:
    _blobs: Any
    _observer: Observer


class _LocalFiles(_Beneath):
    def path(self, key: StorageKey) -> Path:
        return cast("Path", self._blobs.path(key))


class _SharedFiles(_Beneath):
    async def link(self, file: int) -> StorageKey:
        return cast("StorageKey", await self._blobs.link(file))

    async def clone(self, file: int) -> StorageKey:
        return cast("StorageKey", await self._blobs.clone(file))


class _Leftovers(_Beneath):
    def leftovers(self) -> AsyncIterator[StoredBytes]:
        return cast("AsyncIterator[StoredBytes]", self._blobs.leftovers())

    async def tidy(self, key: StorageKey) -> None:
        await self._blobs.tidy(key)


class _Presigner(_Beneath):
    async def url(self, key: StorageKey, *, expires: timedelta, content_type: str) -> str:
        with self._observer.span("store", "url"):
            return cast("str", await self._blobs.url(key, expires=expires, content_type=content_type))


_CAPABILITIES: dict[Any, type] = {
    LocalFiles: _LocalFiles, SharedFiles: _SharedFiles, Leftovers: _Leftovers, Presigner: _Presigner}


class ObservedWriter:
    def __init__(self, writer: BlobWriter, observer: Observer, written: Tally) -> None:
        self._writer = writer
        self._observer = observer
        self._written = written

    @property
    def key(self) -> StorageKey:
        return self._writer.key

    @property
    def mark(self) -> str:
        return self._writer.mark

    @property
    def offset(self) -> int:
        return self._writer.offset

    @property
    def readable(self) -> int:
        return self._writer.readable

    async def write(self, chunks: Sequence[bytes | bytearray]) -> None:
        before = self._writer.offset
        try:
            with self._observer.span("store", "write"):
                await self._writer.write(chunks)
        finally:
            self._written.add(max(self._writer.offset - before, 0))

    async def flush(self) -> int:
        with self._observer.span("store", "flush"):
            return await self._writer.flush()

    async def seal(self) -> int:
        with self._observer.span("store", "seal"):
            return await self._writer.seal()

    async def close(self) -> None:
        await self._writer.close()
