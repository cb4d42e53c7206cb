"""What is where while an upload grows, and how it becomes one object without a copy.

An upload is in one of two states:

- *whole*: all that is durable is an object under the key. Small blobs know no other state: a flush puts them, a seal
  has nothing left to do. Whatever is added goes to a new key, so no name is ever written with two contents: a request
  that arrives late, or twice, or from a process that was given up for dead, changes nothing that anybody counts on.
- *parts*: a multipart upload to the key, and a tail: an object that holds what is not enough for a part yet (S3 wants
  5 MiB). A tail's name is random and it is written once. The row's mark tells both.

Parts have no such protection: two processes that go on with one multipart upload would overwrite each other's. So
its users claim the row first (the mark says that they must), and one that finds a claim of somebody else, dead or
alive, does not go on but settles (see `multipart`) and is then in the first state.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ocispec.errors import SeawallError
from storage.blobs import keys
from storage.blobs.s3.bucket import Bucket, ObjectMissing
from storage.blobs.s3.multipart import Multipart, remove_tails
from storage.blobs.s3.options import S3Options
from storage.blobs.s3.reading import read
from storage.blobs.s3.spool import Spool
from storage.blobs.store import BytesMissing, KeyBusy, StorageKey
from storage.blobs.threads import Threads


@dataclass(frozen=True, slots=True)
class Source:
    """The first `length` bytes of an object, which belong before the spool. `exact`: it has no more."""

    name: str
    length: int
    exact: bool = True


class S3Writer:
    """BlobWriter. While a part is sent, the next one is gathered; both are in files, not in memory."""

    def __init__(self, bucket: Bucket, options: S3Options, files: Threads, key: StorageKey,
                 opened: "Callable[[StorageKey, S3Writer | None], None]", *, base: Source | None = None,
                 multipart: Multipart | None = None, tail: Source | None = None) -> None:
        self._bucket = bucket
        self._options = options
        self._files = files
        self._key = key
        self._opened = opened
        self._base = base
        self._multipart = multipart
        self._tail = tail
        self._spool, self._spare = Spool(options.spool), Spool(options.spool)
        self._sending: asyncio.Task[None] | None = None
        self._unused = base is None and multipart is None
        self._changed = base is None and multipart is None
        self._offset = sum(part.length for part in (base, tail) if part) + (multipart.size if multipart else 0)
        self._flushed = self._unused is False and (base is None or base.exact)
        self._mark = str(multipart.mark(tail.name.rpartition("/")[2] if tail else None)) if multipart else ""
        self._readable = base.length if base else 0
        self._failed = self._closed = self._deleted = False
        opened(key, self)

    @property
    def key(self) -> StorageKey:
        return self._key

    @property
    def mark(self) -> str:
        return self._mark

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def readable(self) -> int:
        return self._readable

    def deleted(self) -> None:
        """Somebody deleted the key: nothing may be sealed any more."""
        self._deleted = True

    async def write(self, chunks: Sequence[bytes | bytearray]) -> None:
        with self._failing():
            self._flushed, self._changed = False, True
            await self._load()
            views = [memoryview(chunk) for chunk in chunks if chunk]
            while views:
                before = self._spool.size
                await self._files.run(self._spool.fill, views, self._part_size())
                self._offset += self._spool.size - before
                if self._spool.size >= self._part_size():
                    await self._send()

    async def flush(self) -> int:
        if not self._flushed:
            with self._failing():
                await self._load()
                await self._sent()
                if self._is_small():
                    await self._put_whole()
                else:
                    await self._put_tail()
            self._flushed = True
        return self._offset

    async def seal(self) -> int:
        if self._deleted:
            raise BytesMissing(self._key)
        await self._sent()
        if not self._flushed:
            await self._load()
        if self._is_small():
            await self.flush()
        elif self._multipart is not None or not self._flushed:
            await self._finish()
        await self.close()
        return self._offset

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._over()
            if self._changed and not self._flushed and not self._failed and not self._deleted:
                await self.flush()
        finally:
            self._opened(self._key, None)
            for spool in (self._spool, self._spare):
                self._files.soon(spool.close)

    async def _over(self) -> None:
        """Nothing is being sent any more, however often the caller is cancelled: the spools are about to go."""
        while self._sending is not None and not self._sending.done():
            try:
                await asyncio.wait([self._sending])
            except asyncio.CancelledError:
                self._failed = True
        if self._sending is not None and self._sending.exception() is not None:
            self._failed = True

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """After a failure what the writer holds and what it counts may differ: it records nothing more."""
        try:
            yield
        except BaseException:
            self._failed = True
            raise

    def _is_small(self) -> bool:
        """Whether all the bytes are in the spool."""
        return self._multipart is None and self._base is None

    def _part_size(self) -> int:
        least = self._options.part_size
        return self._multipart.part_size(least) if self._multipart else least

    async def _put_whole(self) -> None:
        key = self._take_key()
        await self._bucket.put(keys.object_name(key), self._spool)
        self._move(key)
        self._mark, self._readable = "", self._spool.size

    async def _put_tail(self) -> None:
        multipart = await self._begun()
        tail = None
        if self._tail is not None and not self._spool.size:
            tail = self._tail.name.rpartition("/")[2]
        elif self._spool.size:
            tail = uuid.uuid4().hex
            await self._bucket.put(keys.tails_of(multipart.key) + tail, self._spool)
        self._mark = str(multipart.mark(tail))

    async def _send(self) -> None:
        """Begin to send what the spool holds as a part, once the one before is sent."""
        await self._sent()
        multipart = await self._begun()
        full, self._spool = self._spool, self._spare
        self._spare = full

        async def send() -> None:
            await self._adding(multipart.add(full))
            full.clear()

        self._sending = asyncio.create_task(send())

    async def _sent(self) -> None:
        """Raises what sending the last part raised, once."""
        if self._sending is None:
            return
        try:
            await asyncio.shield(self._sending)
        finally:
            if self._sending.done():
                self._sending = None

    async def _begun(self) -> Multipart:
        if self._multipart is None:
            multipart = await Multipart.begin(self._bucket, self._take_key())
            if self._base is not None:
                await self._adding(multipart.add_object(self._base.name, self._base.length))
                self._base = None
            self._multipart, self._readable = multipart, 0
            self._move(multipart.key)
        return self._multipart

    async def _finish(self) -> None:
        with self._failing():
            multipart = await self._begun()
            if self._spool.size:
                await self._adding(multipart.add(self._spool))
            elif self._tail is not None:
                await self._adding(multipart.add_object(self._tail.name, self._tail.length))
            await multipart.complete()
            self._mark, self._flushed, self._readable = "", True, self._offset
        # The blob is whole; what is left beside it is for the collector if it does not go now.
        with suppress(SeawallError):
            await remove_tails(self._bucket, multipart.key)

    async def _load(self) -> None:
        """Bytes that come before what is written next and are too few for a part go to the spool first."""
        small = self._base if self._base and self._base.length < self._options.part_size else None
        source = self._tail or small
        if source is None:
            return
        try:
            async for chunk in read(self._bucket, source.name, 0, source.length):
                await self._files.run(self._spool.fill, [memoryview(chunk)], source.length)
        except ObjectMissing:
            raise BytesMissing(self._key) from None
        if self._spool.size != source.length:
            raise BytesMissing(self._key)
        self._tail = None
        if small is source:
            self._base = None

    def _take_key(self) -> StorageKey:
        """One that nothing was ever written to."""
        if self._unused:
            self._unused = False
            return self._key
        return keys.new_key()

    def _move(self, key: StorageKey) -> None:
        if key != self._key:
            self._opened(self._key, None)
            self._key = key
            self._opened(key, self)

    async def _adding(self, adding: Awaitable[None]) -> None:
        """Raises KeyBusy when the multipart upload is no longer there: only another process ends it."""
        try:
            await adding
        except ObjectMissing:
            raise KeyBusy(self._key) from None
