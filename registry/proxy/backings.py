"""Where the bytes of a blob can be read while they come."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.blobs.store import BlobReader, StorageKey
from storage.errors import StoreFull
from storage.uploads.session import Upload

READ = 1024 * 1024


class StoreBacking:
    """The store's own file, before it is sealed: for stores whose bytes are files of this machine."""

    def __init__(self, blobs: BlobReader, upload: Upload) -> None:
        self._blobs = blobs
        self._upload = upload

    @property
    def stored(self) -> int:
        written = self._upload.written
        return written[1] if written else 0

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        written = self._upload.written
        if written is not None:
            async for chunk in self._blobs.read(written[0], start, length):
                yield chunk


class KeyBacking:
    """Bytes under a key that this process does not write: another does, or nobody any more."""

    def __init__(self, blobs: BlobReader, key: StorageKey, stored: int = 0) -> None:
        self._blobs = blobs
        self.key = key
        self.stored = stored

    async def look(self) -> None:
        """How many there are by now. Raises BytesMissing."""
        self.stored = await self._blobs.size(self.key)

    def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        return self._blobs.read(self.key, start, length)


class SpoolBacking:
    """A file without a name, for stores that cannot be read before a blob is whole (S3): readers that come later need
    the beginning from somewhere. It goes with the fill, however that ends."""

    def __init__(self, folder: Path) -> None:
        """Raises StoreFull."""
        self._file = -1
        with _translated(), tempfile.TemporaryFile(dir=folder, buffering=0) as unnamed:
            self._file = os.dup(unnamed.fileno())
        self.stored = 0

    async def write(self, chunk: bytes) -> None:
        """Raises StoreFull."""
        with _translated():
            await asyncio.to_thread(self._write, chunk)

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        end = min(start + length, self.stored)
        while start < end:
            chunk = await asyncio.to_thread(os.pread, self._file, min(READ, end - start), start)
            if not chunk:
                return
            start += len(chunk)
            yield chunk

    def __del__(self) -> None:
        if self._file < 0:
            return
        # Not a moment earlier: a reader's thread may be inside the descriptor, whose number another file would get.
        os.close(self._file)

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._file, view, self.stored)
            view = view[written:]
            self.stored += written


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreFull(f"no room to hold what comes from an upstream: {error.strerror}") from error
