"""Blobs in memory: the fake that passes the same contract as the disk, for tests and throw-away registries."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from storage.blobs.keys import new_key
from storage.blobs.store import BytesMissing, KeyBusy, KeySealed, StorageKey, StoredBytes
from storage.errors import StoreFull

CHUNK = 1024 * 1024


@dataclass(slots=True)
class _Object:
    data: bytearray = field(default_factory=bytearray)
    sealed: bool = False
    busy: bool = False
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))


class MemoryBlobs:
    """BlobStore. `capacity` in bytes makes it full as a disk gets full; None is without bound."""

    def __init__(self, capacity: int | None = None) -> None:
        self._objects: dict[StorageKey, _Object] = {}
        self._capacity = capacity

    @property
    def room(self) -> int | None:
        if self._capacity is None:
            return None
        return self._capacity - sum(len(stored.data) for stored in self._objects.values())

    async def size(self, key: StorageKey) -> int:
        return len(self._get(key).data)

    async def read(self, key: StorageKey, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        data = self._get(key).data
        end = len(data) if length is None else min(len(data), start + length)
        for first in range(start, end, CHUNK):
            yield bytes(data[first : min(first + CHUNK, end)])

    async def create(self) -> "MemoryWriter":
        key = new_key()
        self._objects[key] = stored = _Object()
        return MemoryWriter(self, key, stored)

    async def resume(self, key: StorageKey, offset: int, mark: str = "", *,  # noqa: ARG002  # nobody else has this memory
                     contested: bool = False) -> "MemoryWriter":  # noqa: ARG002
        stored = self._get(key)
        if stored.busy:
            raise KeyBusy(key)
        if stored.sealed:
            raise KeySealed(key)
        if len(stored.data) < offset:
            raise BytesMissing(key)
        del stored.data[offset:]
        return MemoryWriter(self, key, stored)

    async def settle(self, key: StorageKey, offset: int, mark: str = "") -> None:
        """Memory can be read while it grows."""

    async def delete(self, key: StorageKey) -> None:
        self._objects.pop(key, None)

    async def list(self) -> AsyncIterator[StoredBytes]:
        for key, stored in [*self._objects.items()]:
            yield StoredBytes(key, len(stored.data), stored.modified)

    def holds(self, key: StorageKey) -> bool:
        return key in self._objects

    def _get(self, key: StorageKey) -> _Object:
        try:
            return self._objects[key]
        except KeyError:
            raise BytesMissing(key) from None


class MemoryWriter:
    """BlobWriter."""

    def __init__(self, store: MemoryBlobs, key: StorageKey, stored: _Object) -> None:
        self._store = store
        self._key = key
        self._stored = stored
        stored.busy = True

    @property
    def key(self) -> StorageKey:
        return self._key

    @property
    def mark(self) -> str:
        return ""

    @property
    def offset(self) -> int:
        return len(self._stored.data)

    @property
    def readable(self) -> int:
        return self.offset

    async def write(self, chunks: Sequence[bytes | bytearray]) -> None:
        self._stored.modified = datetime.now(UTC)
        for chunk in chunks:
            room = self._store.room
            self._stored.data += chunk if room is None else chunk[:room]
            if room is not None and len(chunk) > room:
                raise StoreFull("no space left for blobs")

    async def flush(self) -> int:
        return self.offset

    async def seal(self) -> int:
        if not self._store.holds(self._key):
            raise BytesMissing(self._key)
        self._stored.sealed = True
        await self.close()
        return self.offset

    async def close(self) -> None:
        self._stored.busy = False
