"""What every BlobStore keeps to: disk, bucket and the fake in memory alike."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from storage.blobs.disk import DiskBlobs
from storage.blobs.keys import new_key
from storage.blobs.memory import MemoryBlobs
from storage.blobs.s3.store import S3Blobs
from storage.blobs.store import BlobStore, BytesMissing, KeyBusy, KeySealed

MIB = 1024 * 1024
PIECE = 64 * 1024


@pytest.fixture(params=["disk", "memory", "s3"])
async def store(request, tmp_path) -> AsyncIterator[BlobStore]:
    if request.param == "memory":
        yield MemoryBlobs()
    elif request.param == "disk":
        disk = DiskBlobs(tmp_path / "content")
        await disk.prepare()
        yield disk
    else:
        bucket = S3Blobs(request.getfixturevalue("s3_options"))
        await bucket.prepare()
        yield bucket
        bucket.close()


async def stored(store, *chunks: bytes):
    writer = await store.create()
    await writer.write(chunks)
    await writer.seal()
    return writer.key


async def content(store, key, start=0, length=None) -> bytes:
    return b"".join([chunk async for chunk in store.read(key, start, length)])


async def test_what_is_sealed_is_read_back(store):
    key = await stored(store, b"one", bytearray(b"two"), b"", b"three")
    assert await content(store, key) == b"onetwothree"
    assert await store.size(key) == 11


async def test_nothing_at_all_may_be_sealed(store):
    key = await stored(store)
    assert await store.size(key) == 0
    assert await content(store, key) == b""


@pytest.mark.parametrize(("start", "length", "expected"), [
    (0, None, b"0123456789"), (3, None, b"3456789"), (3, 4, b"3456"), (0, 0, b""), (9, 1, b"9"), (9, 5, b"9"),
    (10, None, b""), (15, 2, b""),
])
async def test_ranges(store, start, length, expected):
    assert await content(store, await stored(store, b"0123456789"), start, length) == expected


async def test_reads_come_in_chunks_of_a_mebibyte_at_most(store):
    data = bytes(range(256)) * 4096 * 2 + b"tail"
    key = await stored(store, data)
    chunks = [chunk async for chunk in store.read(key)]
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= MIB


async def test_thousands_of_chunks_in_one_write(store):
    chunks = [b"%d," % number for number in range(5000)]
    assert await content(store, await stored(store, *chunks)) == b"".join(chunks)


async def test_an_unsealed_key_goes_on_where_it_is_told_to(store):
    writer = await store.create()
    await writer.write([b"durable", b"lost"])
    assert writer.offset == 11
    assert await writer.flush() == 11
    await writer.close()
    writer = await store.resume(writer.key, 7, writer.mark)
    assert writer.offset == 7
    assert await writer.flush() == 7
    assert await store.size(writer.key) == 7
    await writer.write([b" again"])
    assert await writer.seal() == 13
    assert await content(store, writer.key) == b"durable again"


async def test_one_writer_at_a_time(store):
    writer = await store.create()
    await writer.write([b"x"])
    with pytest.raises(KeyBusy):
        await store.resume(writer.key, 0, writer.mark)
    await writer.close()
    await (await store.resume(writer.key, 1, writer.mark)).close()


async def test_sealed_means_sealed(store):
    key = await stored(store, b"final")
    try:
        writer = await store.resume(key, 5)
    except KeySealed:
        pass
    else:  # a store that cannot tell writes elsewhere
        await writer.write([b" not"])
        await writer.seal()
        assert writer.key != key
        assert await content(store, writer.key) == b"final not"
    assert await content(store, key) == b"final"


async def test_closing_twice_and_after_sealing_is_nothing(store):
    writer = await store.create()
    await writer.close()
    await writer.close()
    writer = await store.resume(writer.key, 0, writer.mark)
    await writer.seal()
    await writer.close()


async def test_fewer_bytes_than_promised_are_missing_bytes(store):
    writer = await store.create()
    await writer.write([b"abc"])
    await writer.close()
    with pytest.raises(BytesMissing):
        await store.resume(writer.key, 4, writer.mark)


async def test_absent_keys(store):
    key = new_key()
    with pytest.raises(BytesMissing):
        await store.size(key)
    with pytest.raises(BytesMissing):
        await content(store, key)
    with pytest.raises(BytesMissing):
        await store.resume(key, 0)
    await store.delete(key)


async def test_deleted_is_gone_and_a_read_that_had_begun_goes_on(store):
    data = b"a" * MIB + b"b" * MIB
    key = await stored(store, data)
    async with aclosing(store.read(key)) as chunks:
        first = await anext(chunks)
        await store.delete(key)
        assert first + b"".join([chunk async for chunk in chunks]) == data
    with pytest.raises(BytesMissing):
        await store.size(key)


async def test_sealing_a_deleted_key_fails(store):
    writer = await store.create()
    await writer.write([b"x"])
    await store.delete(writer.key)
    with pytest.raises(BytesMissing):
        await writer.seal()
    await writer.close()


@pytest.mark.parametrize("contested", [False, True])
@pytest.mark.parametrize("cuts", [(3, 10), (6, 12), (12, 13, 20), (20, 21), (5, 10, 15)], ids=str)
async def test_a_large_blob_in_pieces_is_whole_and_readable_when_it_was_settled(store, cuts, contested):
    """Sizes on both sides of a bucket's parts (5 pieces here)."""
    data = random.Random(1).randbytes(24 * PIECE + 7)
    writer = await store.create()
    begin = 0
    for cut in cuts:
        await writer.write([data[begin : cut * PIECE]])
        assert await writer.flush() == writer.offset == cut * PIECE
        await writer.close()
        begin = cut * PIECE
        if contested:
            await store.settle(writer.key, begin, writer.mark)
            assert await content(store, writer.key, 0, begin) == data[:begin]
        writer = await store.resume(writer.key, begin, writer.mark, contested=contested)
        assert writer.offset == begin
    await writer.write([data[begin:]])
    assert await writer.seal() == len(data)
    assert await content(store, writer.key) == data
    assert await content(store, writer.key, 5 * PIECE - 3, 6) == data[5 * PIECE - 3 : 5 * PIECE + 3]


async def test_list_names_every_key_sealed_or_not(store):
    before = datetime.now(UTC) - timedelta(seconds=2)
    sealed = await stored(store, b"12345")
    writer = await store.create()
    await writer.write([b"123"])
    await writer.flush()
    listed = [item async for item in store.list()]
    await writer.close()
    assert {(item.key, item.size) for item in listed} == {(sealed, 5), (writer.key, 3)}
    assert all(before < item.modified < datetime.now(UTC) + timedelta(seconds=2) for item in listed)


async def test_many_writers_at_once(store):
    async def one(number: int) -> None:
        data = bytes([number]) * (100_000 + number)
        key = await stored(store, data[:50_000], data[50_000:])
        assert await content(store, key) == data

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(one(number))
