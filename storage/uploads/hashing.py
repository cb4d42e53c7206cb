"""Hashing off the event loop, and remembering how far each session's hash has come.

A hash state is never written anywhere: it cannot be taken from a client or a row, only recomputed from bytes
(pickled hash states were Quay's CVE-2026-32590). Losing one costs a read, never correctness.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocispec.digest import Digest, new_hasher

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

Chunk = bytes | bytearray
REMEMBERED = 4096


@dataclass(slots=True)
class Hashed:
    """A hash of the first `offset` bytes of something."""

    algorithm: str
    hasher: "Hash"
    offset: int = 0

    @classmethod
    def nothing(cls, algorithm: str) -> "Hashed":
        """Raises InvalidDigest for an algorithm that we do not compute."""
        return cls(algorithm, new_hasher(algorithm))

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
