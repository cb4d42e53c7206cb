"""One read: bounded read-ahead, and going on by range where a stream broke off."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import suppress

from ocispec.errors import OutOfRange, SeawallError
from storage.blobs.s3.bucket import Bucket, Stream
from storage.blobs.store import StoreUnavailable

CHUNK = 1024 * 1024
PATIENCE = 5
"""Streams that may break in a row without a byte before a read is given up."""

PAUSE = 0.1
LONGEST_PAUSE = 3.0


async def read(bucket: Bucket, name: str, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
    """The bytes from `start` up to `end`, in chunks; two are in memory at most. Raises ObjectMissing."""
    failures = 0
    while end is None or start < end:
        try:
            stream, length = await bucket.get(name, start, end)
        except OutOfRange:
            return  # nothing begins there
        end = start + length if end is None else min(end, start + length)
        chunks = _ahead(bucket, stream, end - start)
        try:
            async for chunk in chunks:
                start += len(chunk)
                failures = 0
                yield chunk
        except StoreUnavailable:
            failures += 1
            if failures >= PATIENCE:
                raise
            await asyncio.sleep(min(LONGEST_PAUSE, PAUSE * 2**failures) * (0.5 + random.random()))  # noqa: S311
        finally:
            await chunks.aclose()


async def _ahead(bucket: Bucket, stream: Stream, left: int) -> AsyncGenerator[bytes, None]:
    """`left` bytes of the stream: the next chunk is fetched while the caller has this one. Raises StoreUnavailable
    when there are fewer."""
    fetching = asyncio.create_task(bucket.pull(stream, min(left, CHUNK)))
    try:
        while left:
            chunk = await fetching
            if not chunk:
                raise StoreUnavailable("the bucket's answer ended too early")
            left -= len(chunk)
            if left:
                fetching = asyncio.create_task(bucket.pull(stream, min(left, CHUNK)))
            yield chunk
    finally:
        fetching.cancel()
        with suppress(asyncio.CancelledError, SeawallError):
            await fetching
        bucket.drop(stream)
