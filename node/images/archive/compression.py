"""Archives as people send them: plain, gzip, zstd, bzip2 or xz, told by their first bytes and read with bounded memory.

Layers of images know the first three only (`node.images.unpack.decompress`); `docker cp`, load and import take the
others as well. Nothing is ever handed to a program for it (CVE-2026-41567): every decoder runs in this process.
"""

import bz2
import lzma
from collections.abc import Iterator

from node.images.unpack import decompress
from node.images.unpack.decompress import GZIP, PLAIN, ZSTD, Input
from node.images.unpack.errors import InvalidLayer

BZIP2, XZ = "bzip2", "xz"
KINDS = (PLAIN, GZIP, ZSTD, BZIP2, XZ)
HEAD = 8
"""Bytes that `told` wants to see."""

_READ = 256 * 1024
_OUTPUT = 1024 * 1024
_XZ_MEMORY = 256 * 1024 * 1024
"""What a decoder may allocate: `xz -9` needs 65 MiB."""


def told(head: bytes) -> str:
    """Raises LayerUnsupported for lz4."""
    if head.startswith(b"BZh"):
        return BZIP2
    if head.startswith(b"\xfd7zXZ\x00"):
        return XZ
    return decompress.sniff(head)


def chunks(source: Input, kind: str) -> Iterator[bytes]:
    """Non-empty chunks of at most 1 MiB. Raises InvalidLayer."""
    match kind:
        case "bzip2":
            return _streams(source, bz2.BZ2Decompressor, "bzip2")
        case "xz":
            return _streams(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), "xz")
        case _:
            return decompress.plain_chunks(source, kind)


def _streams(source: Input, make: "type[bz2.BZ2Decompressor] | object", name: str) -> Iterator[bytes]:
    """Streams one after the other, as bzip2(1) and xz(1) write them; NUL padding between them is allowed."""
    data = source.read(_READ)
    while data:
        decoder = make()  # type: ignore[operator]
        while not decoder.eof:
            if decoder.needs_input and not data and not (data := source.read(_READ)):
                raise InvalidLayer(f"the {name} stream ends too early")
            try:
                output = decoder.decompress(data, _OUTPUT)
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                raise InvalidLayer(f"broken {name} stream: {error}") from error
            data = b""
            if output:
                yield output
        data = decoder.unused_data.lstrip(b"\0") or source.read(_READ).lstrip(b"\0")
