"""One blob on its way from an upstream: what has come, and readers that follow it.

Whoever brings the bytes calls `announce`, `add`, `finish` or `fail`; any number read at any place meanwhile, each at
its own speed, without slowing the others or the transfer. What just came is in memory; what was written is read back
from where it was written, so memory is bounded by what the writer has not written yet.

The last byte of every answer is held back until the digest is known to be right: a client can end up with a broken
connection, never with a complete answer that is wrong.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol

from ocispec.errors import SeawallError
from storage.blobs.store import BytesMissing
from storage.metadata.blobs import BlobInfo

SMALL = 16 * 1024
PIECE = 256 * 1024
"""Bytes given out at a time from memory."""


class Backing(Protocol):
    """Where the bytes are written."""

    @property
    def stored(self) -> int:
        """So many from the beginning can be read there."""
        ...

    def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """May end early, or raise BytesMissing when the bytes have moved."""
        ...


class Window:
    """The newest bytes, from `start` to `end`."""

    def __init__(self, start: int = 0) -> None:
        self.start = self.end = start
        self._chunks: deque[bytes | bytearray] = deque()

    def add(self, chunk: bytes) -> None:
        """Small ones are joined: an upstream that sends byte by byte must not cost an object for each."""
        self.end += len(chunk)
        if len(chunk) >= SMALL:
            self._chunks.append(chunk)
        elif self._chunks and isinstance(self._chunks[-1], bytearray) and len(self._chunks[-1]) < PIECE:
            self._chunks[-1] += chunk
        else:
            self._chunks.append(bytearray(chunk))

    def drop_before(self, offset: int) -> None:
        while self._chunks and self.start + len(self._chunks[0]) <= offset:
            self.start += len(self._chunks.popleft())

    def piece(self, at: int, end: int) -> bytes:
        """Some of the bytes from `at`, at most to `end`; empty: they are not here."""
        if not self.start <= at < min(end, self.end):
            return b""
        offset = self.start
        for chunk in self._chunks:
            if at < offset + len(chunk):
                first = at - offset
                return bytes(memoryview(chunk)[first : min(first + PIECE, end - offset)])
            offset += len(chunk)
        return b""


class Filling:
    def __init__(self) -> None:
        self.size: int | None = None
        self.begun = False
        self.info: BlobInfo | None = None
        self.error: SeawallError | None = None
        self._backing: Backing | None = None
        self._window = Window()
        self._changed = asyncio.Event()

    # -- for who brings the bytes

    def announce(self, size: int | None) -> None:
        """The upstream answers; the size is what it says, None when it does not. Raises nothing: one that says
        another size later is found out by whoever counts."""
        if not self.begun:
            self.begun, self.size = True, size
            self._tell()

    def start_at(self, offset: int) -> None:
        """The next byte that is added is this one."""
        self._window = Window(offset)

    def back(self, backing: Backing) -> None:
        """From now on bytes are written there."""
        self._backing = backing
        self.tell()

    def add(self, chunk: bytes) -> None:
        self._window.add(chunk)
        self.tell()

    def tell(self) -> None:
        """More may be readable."""
        if self._backing is not None:
            self._window.drop_before(self._backing.stored)
        self._tell()

    def finish(self, info: BlobInfo, backing: Backing) -> None:
        """It is a blob now, and lies there."""
        self.info, self._backing, self.size, self.begun = info, backing, info.size, True
        self._window = Window(info.size)
        self._tell()

    def fail(self, error: SeawallError) -> None:
        self.error = error
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- for who waits for them

    async def wait_begun(self) -> int | None:
        """The size, as soon as it is known; None: not before the end. Raises why there is nothing to read."""
        while not self.begun:
            if self.error is not None:
                raise self.error
            await self._changed.wait()
        return self.size

    async def wait_done(self) -> BlobInfo:
        while self.info is None:
            if self.error is not None:
                raise self.error
            await self._changed.wait()
        return self.info

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """Raises, also in the middle, why no more comes."""
        at, end = start, start + length
        while at < end:
            changed = self._changed
            limit = end if self.info is not None else end - 1
            before = at
            async for chunk in self._available(at, limit):
                at += len(chunk)
                yield chunk
            if at == before:
                if self.error is not None:
                    raise self.error
                await changed.wait()

    async def _available(self, at: int, limit: int) -> AsyncIterator[bytes]:
        """What can be read now without waiting for the upstream."""
        piece = self._window.piece(at, limit)
        while piece:
            at += len(piece)
            yield piece
            piece = self._window.piece(at, limit)
        backing = self._backing
        stored = 0 if backing is None else min(backing.stored, limit)
        if backing is None or at >= stored:
            return
        try:
            async with aclosing(backing.read(at, stored - at)) as chunks:  # type: ignore[type-var]  # generators all
                async for chunk in chunks:
                    yield chunk
        except BytesMissing:
            return  # they became a blob under another key, or were cut off: the next look tells
