"""A layer's bytes as one plain stream, read with bounded memory whatever the compression promises to expand to."""

import os
from collections.abc import Iterator
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Protocol, cast

import zstandard
from isal import igzip_lib, isal_zlib

from node.images.unpack.errors import InvalidLayer, LayerTooLarge, LayerUnsupported

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

GZIP, ZSTD, PLAIN = "gzip", "zstd", "plain"

_READ = 256 * 1024
_OUTPUT = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_FOREIGN = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x04\x22\x4d\x18": "lz4"}
_MAX_WINDOW = 1 << 27  # zstd's own default limit (--long=27): what a decoder must be ready to allocate


class Input(Protocol):
    """Where compressed bytes come from."""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


class FileInput:
    """A descriptor (pipe or file). `position` counts what was read, for progress."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ahead = b""
        self.position = 0

    def peek(self, size: int) -> bytes:
        """The first `size` bytes (fewer at the end), not consumed. Call it once, before the first read."""
        while len(self._ahead) < size and (chunk := os.read(self._descriptor, _READ)):
            self._ahead += chunk
        return self._ahead[:size]

    def read(self, size: int = _READ) -> bytes:
        if self._ahead:
            chunk, self._ahead = self._ahead, b""
        else:
            chunk = os.read(self._descriptor, size if size > 0 else _READ)
        self.position += len(chunk)
        return chunk


def sniff(head: bytes) -> str:
    """The compression by its magic number. Raises LayerUnsupported for one that image layers do not use."""
    if head.startswith(_GZIP_MAGIC):
        return GZIP
    skippable = len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    if head.startswith(_ZSTD_MAGIC) or skippable:
        return ZSTD
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise LayerUnsupported(f"the layer is compressed with {name}; image layers are plain, gzip or zstd")
    return PLAIN


def plain_chunks(source: Input, compression: str) -> Iterator[bytes]:
    """Non-empty chunks of at most 1 MiB. Raises InvalidLayer."""
    match compression:
        case "gzip":
            return _gunzip(source)
        case "zstd":
            return _unzstd(source)
        case _:
            return iter(lambda: source.read(_READ), b"")


def _gunzip(source: Input) -> Iterator[bytes]:
    """Members one after the other (pigz, eStargz); NUL padding after the last is allowed (gzip(1) allows it too)."""
    data = source.read(_READ)
    while data:
        member = isal_zlib.decompressobj(wbits=31)
        while not member.eof:
            data = data or source.read(_READ)
            try:
                # Without input, too: the last input may have left output behind.
                output = member.decompress(data, _OUTPUT)
            except igzip_lib.IsalError as error:  # type: ignore[misc] # its stub calls it a value
                raise InvalidLayer(f"broken gzip stream: {error}") from error
            if output:
                yield output
            elif not data and not member.eof:
                raise InvalidLayer("the gzip stream ends too early")
            data = member.unconsumed_tail
        data = member.unused_data or source.read(_READ)
        while data and not data.startswith(_GZIP_MAGIC[: len(data)]):
            if data.strip(b"\0"):
                raise InvalidLayer("bytes that are no gzip member follow the gzip stream")
            data = source.read(_READ)


def _unzstd(source: Input) -> Iterator[bytes]:
    """Frames one after the other, skippable ones skipped."""
    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        # A raw reader, not decompressobj: that would give all output of an input chunk at once, gigabytes if it likes.
        with decoder.stream_reader(cast("IO[bytes]", source), _READ, read_across_frames=True, closefd=False) as reader:
            while output := reader.read(_OUTPUT):
                yield output
    except zstandard.ZstdError as error:
        raise InvalidLayer(f"broken zstd stream: {error}") from error


class PlainStream:
    """The decompressed stream for the archive reader: hashed as it passes, never more than `limit` bytes."""

    def __init__(self, chunks: Iterator[bytes], limit: int, hasher: "Hash | None" = None) -> None:
        self._chunks = chunks
        self._limit = limit
        self._hasher = hasher if hasher is not None else sha256(usedforsecurity=False)
        self._chunk = memoryview(b"")
        self.size = 0

    def _next(self) -> memoryview:
        chunk = next(self._chunks, b"")
        self.size += len(chunk)
        if self.size > self._limit:
            raise LayerTooLarge(f"the layer unpacks to more than {self._limit} bytes")
        self._hasher.update(chunk)
        return memoryview(chunk)

    def some(self, most: int) -> memoryview:
        """1 to `most` bytes without copying; empty at the end of the stream."""
        if not self._chunk:
            self._chunk = self._next()
        part, self._chunk = self._chunk[:most], self._chunk[most:]
        return part

    def exactly(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end of the stream."""
        if len(self._chunk) >= size:
            part, self._chunk = self._chunk[:size], self._chunk[size:]
            return bytes(part)
        parts = []
        while size and (part := self.some(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Raises InvalidLayer when the stream ends before."""
        while size:
            part = self.some(size)
            if not part:
                raise InvalidLayer("the archive ends in the middle of an entry")
            size -= len(part)

    def drain(self) -> None:
        """Read to the end: what follows the archive belongs to the diff_id too."""
        while self.some(_OUTPUT):
            pass

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()
