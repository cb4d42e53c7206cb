"""Archives that are images, on their way in: taken apart into numbered files, or packed as one layer."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from node.files.errors import TooMuch
from node.files.sending import Gzipped, Plain
from node.images.archive import compression
from node.images.unpack import tar
from node.images.unpack.decompress import GZIP, ZSTD, FileInput, PlainStream
from node.images.unpack.files import write, write_sparse
from node.images.unpack.tar import Entry, TarReader

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMES = {tar.REGULAR: "file", tar.HARD_LINK: "hardlink", tar.SYMLINK: "symlink"}
_HEAD = 512

MAX_MEMBERS = 100_000
MAX_NAME = 512
"""The daemon is told of every member and keeps what it is told: images need few, with short names."""


class Unhashed:
    """Stands in where nobody wants the digest of the stream."""

    def update(self, _data: object) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


class Tee:
    """An input whose bytes are also written to `copy`, as they are, and hashed."""

    def __init__(self, source: FileInput, copy: Plain) -> None:
        self._source = source
        self._copy = copy
        self._hash = hashlib.sha256(usedforsecurity=False)
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self._copy.write(data)
        self.size += len(data)
        return data

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def opened(source: FileInput, limit: int) -> PlainStream:
    """The archive behind whatever compression it has, at most `limit` bytes of it."""
    kind = compression.told(source.peek(compression.HEAD))
    return PlainStream(compression.chunks(source, kind), limit, Unhashed())  # type: ignore[arg-type]


def spool(source: FileInput, folder: int, *, max_bytes: int, max_entries: int) -> Iterator[Mapping[str, Any]]:
    """Each file of the archive becomes a numbered one in `folder`; what it was called is only told, never used."""
    stream = opened(source, max_bytes)
    reader = TarReader(stream)
    most = min(max_entries, MAX_MEMBERS)
    for number, entry in enumerate(reader):
        if number >= most:
            raise TooMuch(f"the archive has more than {most} entries")
        if len(entry.name) > MAX_NAME or len(entry.link) > MAX_NAME:
            raise TooMuch(f"the archive has a name of more than {MAX_NAME} bytes")
        kind = _NAMES.get(entry.type)
        if kind is None:
            continue
        told: dict[str, Any] = {"name": _text(entry.name), "kind": kind, "link": _text(entry.link)}
        if kind == "file":
            told |= _file(entry, reader, folder, str(number))
        yield told
    stream.drain()


def _file(entry: Entry, archive: TarReader, folder: int, name: str) -> dict[str, Any]:
    descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
    hasher = hashlib.sha256(usedforsecurity=False)
    try:
        if entry.regions is not None:
            write_sparse(descriptor, entry, archive)
            _hash_again(descriptor, hasher)
        else:
            for piece in archive.data():
                hasher.update(piece)
                write(descriptor, piece)
        head = os.pread(descriptor, _HEAD, 0)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    return {"file": name, "size": size, "digest": hasher.hexdigest(), "packed": compression.told(head)}


def _hash_again(descriptor: int, hasher: "hashlib._Hash") -> None:
    position = 0
    while data := os.pread(descriptor, 1 << 20, position):
        hasher.update(data)
        position += len(data)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def pack(source: FileInput, out: int, *, max_bytes: int) -> Mapping[str, Any]:
    """One archive as a layer: gzip and zstd stay the bytes they are, everything else becomes gzip."""
    kind = compression.told(source.peek(compression.HEAD))
    if kind not in (GZIP, ZSTD):
        gzipped = Gzipped(out)
        stream = PlainStream(compression.chunks(source, kind), max_bytes, Unhashed())  # type: ignore[arg-type]
        while piece := stream.some(1 << 20):
            gzipped.write(bytes(piece))
        gzipped.end()
        return {**gzipped.digests(), "packed": GZIP, "plain_size": stream.size}
    pipe = Plain(out)
    tee = Tee(source, pipe)
    stream = PlainStream(compression.chunks(tee, kind), max_bytes)
    stream.drain()
    while tee.read():
        pass
    pipe.end()
    return {"diff_id": stream.hexdigest(), "digest": tee.hexdigest(), "size": tee.size, "packed": kind,
            "plain_size": stream.size}  # fmt: skip
