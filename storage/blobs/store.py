"""What a blob store can do, split by what a caller may do with it.

A key is opaque, private and used once: a re-upload of the same content gets a new key, so it can never meet the
pending deletion of the old one. A key that was sealed never changes its bytes again.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NewType, Protocol, runtime_checkable

from ocispec.errors import FailedPrecondition, NotFound, Unavailable

StorageKey = NewType("StorageKey", str)


class BytesMissing(NotFound):
    """No bytes under this key."""

    def __init__(self, key: StorageKey) -> None:
        super().__init__(f"no stored bytes under key {key}")


class KeySealed(FailedPrecondition):
    """The key is sealed: its bytes never change again."""

    def __init__(self, key: StorageKey) -> None:
        super().__init__(f"stored bytes {key} are sealed")


class KeyBusy(FailedPrecondition):
    """Another writer, of this or another process, has the key open."""

    def __init__(self, key: StorageKey) -> None:
        super().__init__(f"stored bytes {key} are being written by another")


class CannotShare(FailedPrecondition):
    """The file's bytes cannot become the store's without a copy; the message says why."""


class StoreUnavailable(Unavailable):
    """The disk or bucket fails in a way that is neither absence nor fullness."""


@dataclass(frozen=True, slots=True)
class StoredBytes:
    key: StorageKey
    size: int
    modified: datetime


class BlobReader(Protocol):
    async def size(self, key: StorageKey) -> int:
        """Size in bytes. Raises BytesMissing."""
        ...

    def read(self, key: StorageKey, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Chunks of at most 1 MiB from `start`; to the end when `length` is None. Raises BytesMissing at the first.
        A read that has begun survives `delete` of its key."""
        ...


@runtime_checkable
class LocalFiles(Protocol):
    """The capability of a store whose bytes are files of this machine (they can be sent with sendfile(2))."""

    def path(self, key: StorageKey) -> Path:
        """Where the sealed bytes lie; the file may be absent."""
        ...


@runtime_checkable
class SharedFiles(Protocol):
    """The capability of a store that can hold a file of this machine without a second copy of its bytes. The caller
    has it open for reading, knows what is in it, and knows that nobody will ever write to it."""

    async def link(self, file: int) -> StorageKey:
        """A sealed, durable key that is another name for the open file. Raises CannotShare and StoreFull."""
        ...

    async def clone(self, file: int) -> StorageKey:
        """A sealed, durable key that shares the file's blocks until one of both changes. Raises CannotShare."""
        ...


class Written(Protocol):
    """What an open key holds, and where."""

    @property
    def key(self) -> StorageKey:
        """Where the bytes lie. `flush` and `seal` may move them to another key: whoever recorded the one before
        records the new one and deletes the old."""
        ...

    @property
    def mark(self) -> str:
        """What `resume` wants to know besides key and offset, as of the last flush; opaque, recorded with them.
        One that is not empty means that the store cannot keep two processes from writing the key: they must agree
        otherwise whose turn it is before they `resume`."""
        ...

    @property
    def offset(self) -> int:
        """Bytes accepted so far."""
        ...

    @property
    def readable(self) -> int:
        """How many of them can be read under `key` now: for who reads what is still being written. A bucket gives
        out nothing of parts before they are one object."""
        ...


class BlobWriter(Written, Protocol):
    """One open key. Not safe for concurrent use; `close` it whatever happens (it keeps what was written)."""

    async def write(self, chunks: Sequence[bytes | bytearray]) -> None:
        """Append. Raises StoreFull; then `offset` says how much was kept. A cancelled write is over when the
        cancellation arrives at the caller."""
        ...

    async def flush(self) -> int:
        """Make what was written survive a power cut; gives the durable offset."""
        ...

    async def seal(self) -> int:
        """`flush`, make the key itself durable and immutable, close; gives the final size. Raises BytesMissing when
        the key was deleted meanwhile."""
        ...

    async def close(self) -> None:
        """Release the file or connection; the bytes stay for `resume`."""
        ...


class BlobIngest(Protocol):
    async def create(self) -> BlobWriter:
        """A writer to a new key."""
        ...

    async def resume(self, key: StorageKey, offset: int, mark: str = "", *, contested: bool = False) -> BlobWriter:
        """Continue an unsealed key at `offset`; bytes beyond it are cut off, by the next flush at the latest.

        `mark` is that of the flush that gave `offset`. `contested`: another process may still be writing the key,
        alive or half dead; what it does from now on must not matter. Raises BytesMissing when the key holds fewer
        than `offset` bytes, KeyBusy while another writer has it open, and KeySealed when it is sealed, unless the
        store cannot tell: then the writer goes on under another key, and the sealed bytes stay as they are."""
        ...

    async def settle(self, key: StorageKey, offset: int, mark: str = "") -> None:
        """Make the first `offset` bytes of an unsealed key readable; its mark stays good for `resume`. Raises
        BytesMissing."""
        ...


class BlobAdmin(Protocol):
    async def delete(self, key: StorageKey) -> None:
        """Remove the bytes, sealed or not. No error when they are gone already."""
        ...

    def list(self) -> AsyncIterator[StoredBytes]:
        """Every key, sealed or not, in no order."""
        ...


@runtime_checkable
class Leftovers(Protocol):
    """The capability of a store in which unfinished writes take room beside the bytes under a key. `list` names such
    keys too, and `delete` removes all of it; this is for keys that live."""

    def leftovers(self) -> AsyncIterator[StoredBytes]:
        """Keys that have unfinished writes; some belong to uploads that go on. In no order, perhaps twice."""
        ...

    async def tidy(self, key: StorageKey) -> None:
        """Remove what unfinished writes left beside the sealed bytes of `key`."""
        ...


@runtime_checkable
class Presigner(Protocol):
    """The capability of a store that clients can read from without us."""

    async def url(self, key: StorageKey, *, expires: timedelta, content_type: str) -> str:
        """An address that gives the sealed bytes to whoever has it, for so long, as a download of this type."""
        ...


class BlobStore(BlobReader, BlobIngest, BlobAdmin, Protocol):
    """All of it: what a composition root constructs and hands out in parts."""
