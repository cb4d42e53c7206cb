"""Hashing off the event loop, and remembering how far each session's hash has come.

A state is kept in memory, and in the session's own row for other processes (see `sha2`); never does one come from a
client. Losing it costs a read, never correctness: the digest that was recorded beside it must be the one it gives.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass

from ocispec.digest import Digest
from storage.uploads import sha2
from storage.uploads.sha2 import Hasher, InvalidState, Resumable

Chunk = bytes | bytearray
REMEMBERED = 4096


@dataclass(slots=True)
class Hashed:
    """A hash of the first `offset` bytes of something."""

    algorithm: str
    hasher: Hasher
    offset: int = 0

    @classmethod
    def nothing(cls, algorithm: str) -> "Hashed":
        """Raises InvalidDigest for an algorithm that we do not compute."""
        return cls(algorithm, sha2.make(algorithm))

    @classmethod
    def restored(cls, state: bytes, digest: Digest, offset: int) -> "Hashed | None":
        """From what `state` gave at `offset`, where the digest was this one; None when that cannot be believed."""
        try:
            hasher = sha2.restore(digest.algorithm, state)
        except InvalidState:
            return None
        if hasher is None or hasher.count != offset or hasher.hexdigest() != digest.encoded:
            return None
        return cls(digest.algorithm, hasher, offset)

    @classmethod
    async def of(cls, chunks: AsyncIterable[bytes], algorithm: str) -> "Hashed":
        hashed = cls.nothing(algorithm)
        async for chunk in chunks:
            await hashed.update([chunk])
        return hashed

    async def update(self, chunks: Sequence[Chunk]) -> None:
        """In a thread (hashlib releases the GIL). Once begun it is finished, even when the caller is cancelled:
        `copy` before it if that would matter."""
        await asyncio.to_thread(self._update, chunks)

    def _update(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self.hasher.update(chunk)
            self.offset += len(chunk)

    def copy(self) -> "Hashed":
        return Hashed(self.algorithm, self.hasher.copy(), self.offset)

    def state(self) -> bytes | None:
        """None where only this process can go on."""
        return self.hasher.state() if isinstance(self.hasher, Resumable) else None

    def digest(self) -> Digest:
        return Digest(self.algorithm, self.hasher.hexdigest())


class HashCache:
    """The hash of each session at its durable offset; the longest unused goes first."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._entries: OrderedDict[str, Hashed] = OrderedDict()

    def take(self, upload_id: str, offset: int) -> Hashed | None:
        """A copy to go on with; None when it is not known at exactly this offset."""
        entry = self._entries.get(upload_id)
        if entry is None or entry.offset != offset:
            return None
        return entry.copy()

    def put(self, upload_id: str, hashed: Hashed) -> None:
        self._entries[upload_id] = hashed.copy()
        self._entries.move_to_end(upload_id)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def forget(self, upload_id: str) -> None:
        self._entries.pop(upload_id, None)
