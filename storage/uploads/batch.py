"""Chunks gathered until one write is worth a thread hop."""

from storage.uploads.hashing import Chunk

SMALL = 16 * 1024


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
