"""Chunks gathered until one write is worth a thread hop."""

from collections.abc import Iterator
from contextlib import contextmanager

from storage.uploads.hashing import Chunk

SMALL = 16 * 1024
LEAST = 128 * 1024
"""Bytes below which a batch is never cut: then the hop to a thread would cost more than the work."""

IN_FLIGHT = 2
"""Batches of one upload in memory: one being stored, one arriving."""


class Batch:
    """Large chunks are kept as they came; small ones are joined, so that a body that arrives byte by byte costs its
    size and not a Python object for each byte."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0
        self.chunks: list[Chunk] = []

    def add(self, chunk: bytes) -> None:
        if not chunk:
            return
        self.size += len(chunk)
        if len(chunk) >= SMALL:
            self.chunks.append(chunk)
        elif self.chunks and isinstance(self.chunks[-1], bytearray):
            self.chunks[-1] += chunk
        else:
            self.chunks.append(bytearray(chunk))

    @property
    def full(self) -> bool:
        return self.size >= self._limit


class Shares:
    """The memory for batches, divided among the uploads that are receiving: a few get large batches, many small ones,
    and together they take the same. Asked before each batch, since others come and go while an upload runs."""

    def __init__(self, memory: int, largest: int) -> None:
        self._memory = memory
        self._largest = largest
        self._receiving = 0

    @contextmanager
    def receiving(self) -> Iterator[None]:
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    @property
    def batch(self) -> int:
        """Bytes of the next batch of one upload."""
        share = self._memory // (max(self._receiving, 1) * IN_FLIGHT)
        return min(self._largest, max(share, LEAST))
