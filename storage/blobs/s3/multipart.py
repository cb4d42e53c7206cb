"""A multipart upload to a key, and what is done with one that another process began."""

import asyncio
from contextlib import suppress

from ocispec.errors import SeawallError
from storage.blobs import keys
from storage.blobs.s3.bucket import Bucket, ObjectMissing, Part
from storage.blobs.s3.mark import Mark
from storage.blobs.s3.spool import Spool
from storage.blobs.store import BytesMissing, StorageKey
from storage.errors import StoreFull

MOST_PARTS = 10_000
DOUBLE_EVERY = 2_000
COPY = 128 * 1024 * 1024
COPIES_AT_ONCE = 4


class Multipart:
    """Parts are numbered from 1 without a gap, because one is sent after the other: whatever breaks off, what the
    server has is the beginning of the blob."""

    def __init__(self, bucket: Bucket, key: StorageKey, upload: str, parts: list[Part]) -> None:
        self._bucket = bucket
        self.key = key
        self._name = keys.object_name(key)
        self._upload = upload
        self._parts = parts

    @classmethod
    async def begin(cls, bucket: Bucket, key: StorageKey) -> "Multipart":
        return cls(bucket, key, await bucket.begin(keys.object_name(key)), [])

    @classmethod
    async def find(cls, bucket: Bucket, key: StorageKey, mark: Mark) -> "Multipart":
        """Raises ObjectMissing when it was ended."""
        return cls(bucket, key, mark.upload, await bucket.parts(keys.object_name(key), mark.upload))

    @property
    def count(self) -> int:
        return len(self._parts)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.size for part in self._parts)

    def mark(self, tail: str | None) -> Mark:
        return Mark(self._upload, self.count, self.size, tail)

    def part_size(self, least: int) -> int:
        """Of the next part. They grow, slowly: S3 takes 10,000, and five of eight MiB would be a small limit."""
        return least << (self.count // DOUBLE_EVERY)

    async def add(self, spool: Spool) -> None:
        """Raises ObjectMissing when it was ended, StoreFull when S3 takes no more parts."""
        self._parts.append(await self._bucket.part(self._name, self._upload, self._next(), spool))

    async def add_object(self, name: str, length: int) -> None:
        """The first `length` bytes of another object, which the server copies. Raises ObjectMissing."""
        count = -(-length // COPY)
        first = self._next()
        cuts = [length * number // count for number in range(count + 1)]
        for begun in range(0, count, COPIES_AT_ONCE):
            self._parts += await asyncio.gather(*(
                self._bucket.copy_part(self._name, self._upload, first + number, name, cuts[number],
                                       cuts[number + 1] - cuts[number])
                for number in range(begun, min(begun + COPIES_AT_ONCE, count))))

    async def complete(self) -> None:
        """All that the server has becomes the object of the key. Raises BytesMissing when somebody aborted it."""
        try:
            await self._bucket.complete(self._name, self._upload, self._parts)
        except ObjectMissing:
            # Ended: by us, when the answer to the first try was lost. No other bytes are ever written to this name.
            if await whole(self._bucket, self.key) != self.size:
                raise BytesMissing(self.key) from None

    def _next(self) -> int:
        if self.count >= MOST_PARTS:
            raise StoreFull("the blob has more parts than a bucket takes (raise s3.part_size)")
        return self.count + 1


async def whole(bucket: Bucket, key: StorageKey) -> int:
    """The size of the key's object. Raises BytesMissing."""
    try:
        return await bucket.size(keys.object_name(key))
    except ObjectMissing:
        raise BytesMissing(key) from None


async def remove_tails(bucket: Bucket, key: StorageKey) -> None:
    async for tail in bucket.objects(keys.tails_of(key)):
        await bucket.delete(tail.name)


async def settle(bucket: Bucket, key: StorageKey, offset: int, mark: Mark) -> None:
    """End the upload, so that its first `offset` bytes can be read and no writer that is still alive can add to it.

    The server must be given all the parts it has (radosgw refuses a selection): what a killed writer sent beyond
    `offset` is in the object too, and harmless. Raises BytesMissing.
    """
    try:
        found = await Multipart.find(bucket, key, mark)
    except ObjectMissing:
        found = None  # settled or sealed before
    if found is not None:
        if found.size == mark.size < offset:
            if mark.tail is None:
                raise BytesMissing(key)
            try:
                await found.add_object(keys.tails_of(key) + mark.tail, offset - mark.size)
            except ObjectMissing:
                raise BytesMissing(key) from None
        if found.size < offset:
            raise BytesMissing(key)
        await found.complete()
    elif await whole(bucket, key) < offset:
        raise BytesMissing(key)
    with suppress(SeawallError):  # in the object now; the collector finds what does not go
        await remove_tails(bucket, key)
