"""BlobStore, Leftovers and Presigner upon a bucket."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

from storage.blobs import keys
from storage.blobs.s3.bucket import Bucket, Found, ObjectMissing, translated
from storage.blobs.s3.mark import Mark
from storage.blobs.s3.multipart import Multipart, remove_tails, settle, whole
from storage.blobs.s3.options import S3Options
from storage.blobs.s3.reading import read
from storage.blobs.s3.spool import check
from storage.blobs.s3.writing import S3Writer, Source
from storage.blobs.store import BytesMissing, KeyBusy, StorageKey, StoredBytes
from storage.blobs.threads import Threads

FILE_THREADS = 8
TURNS = 3
"""Times an upload is aborted: a part that was under way may arrive after the first."""


class S3Blobs:
    """`prepare` before anything else, `close` at the end."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._bucket = Bucket(options)
        self._files = Threads(FILE_THREADS, "s3-spool", translated)
        self._open: dict[StorageKey, S3Writer] = {}

    async def prepare(self) -> None:
        """Raises StoreUnavailable."""
        await self._files.run(check, self._options.spool)
        await self._bucket.open()

    def close(self) -> None:
        self._bucket.close()
        self._files.close()

    async def size(self, key: StorageKey) -> int:
        return await whole(self._bucket, key)

    async def read(self, key: StorageKey, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        name = keys.object_name(key)
        try:
            async for chunk in read(self._bucket, name, start, None if length is None else start + length):
                yield chunk
        except ObjectMissing:
            raise BytesMissing(key) from None

    async def create(self) -> S3Writer:
        return S3Writer(self._bucket, self._options, self._files, keys.new_key(), self._opened)

    async def resume(self, key: StorageKey, offset: int, mark: str = "", *, contested: bool = False) -> S3Writer:
        if key in self._open:
            raise KeyBusy(key)
        if mark:
            multipart = await self._going_on(key, offset, Mark.parse(mark), contested=contested)
            if multipart is not None:
                tail = Mark.parse(mark).tail
                rest = Source(keys.tails_of(key) + tail, offset - multipart.size) if tail else None
                return S3Writer(self._bucket, self._options, self._files, key, self._opened, multipart=multipart,
                                tail=rest)
        size = await whole(self._bucket, key)
        if size < offset:
            raise BytesMissing(key)
        if key in self._open:
            raise KeyBusy(key)
        base = Source(keys.object_name(key), offset, exact=size == offset)
        return S3Writer(self._bucket, self._options, self._files, key, self._opened, base=base)

    async def settle(self, key: StorageKey, offset: int, mark: str = "") -> None:
        if mark:
            await settle(self._bucket, key, offset, Mark.parse(mark))

    async def delete(self, key: StorageKey) -> None:
        if key in self._open:
            self._open[key].deleted()
        await asyncio.gather(self._bucket.delete(keys.object_name(key)), self.tidy(key))

    async def list(self) -> AsyncIterator[StoredBytes]:
        async for found in self._bucket.objects(f"{keys.FOLDER}/"):
            for stored in _ours(found):
                yield stored
        async for stored in self.leftovers():
            yield stored

    async def leftovers(self) -> AsyncIterator[StoredBytes]:
        async for found in self._bucket.uploads(f"{keys.FOLDER}/"):
            for stored in _ours(found):
                yield StoredBytes(stored.key, await self._sent(found), stored.modified)
        async for found in self._bucket.objects(f"{keys.TAILS}/"):
            for stored in _ours(found):
                yield stored

    async def tidy(self, key: StorageKey) -> None:
        await asyncio.gather(self._abort(keys.object_name(key)), remove_tails(self._bucket, key))

    async def url(self, key: StorageKey, *, expires: timedelta, content_type: str) -> str:
        return await self._bucket.url(keys.object_name(key), expires, content_type)

    async def _going_on(self, key: StorageKey, offset: int, mark: Mark, *, contested: bool) -> Multipart | None:
        """The multipart upload, exactly as the mark tells; None when the bytes are an object now."""
        if not contested:
            try:
                found = await Multipart.find(self._bucket, key, mark)
            except ObjectMissing:
                return None
            if (found.count, found.size) == (mark.count, mark.size) and (offset > mark.size) == bool(mark.tail):
                if key in self._open:
                    raise KeyBusy(key)
                return found
        await settle(self._bucket, key, offset, mark)
        return None

    async def _abort(self, name: str) -> None:
        for _ in range(TURNS):
            found = [item async for item in self._bucket.uploads(name) if item.name == name and item.upload]
            if not found:
                return
            for item in found:
                await self._bucket.abort(name, item.upload or "")

    async def _sent(self, found: Found) -> int:
        try:
            return sum(part.size for part in await self._bucket.parts(found.name, found.upload or ""))
        except ObjectMissing:
            return 0

    def _opened(self, key: StorageKey, writer: S3Writer | None) -> None:
        if writer is None:
            self._open.pop(key, None)
        else:
            self._open[key] = writer


def _ours(found: Found) -> list[StoredBytes]:
    """Nothing for a name that is none of ours: the bucket may hold other things."""
    try:
        return [StoredBytes(keys.key_of(found.name), found.size, found.modified)]
    except keys.InvalidKey:
        return []
