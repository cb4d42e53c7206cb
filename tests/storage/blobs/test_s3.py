"""What only a bucket does: parts and tails, writers that die, faults of the service, what is left behind."""

import asyncio
import base64
import random
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest

from ocispec.errors import SeawallError, Unavailable
from storage.blobs.keys import new_key, object_name, tails_of
from storage.blobs.s3.bucket import Bucket
from storage.blobs.s3.mark import InvalidMark, Mark
from storage.blobs.s3.options import S3Options
from storage.blobs.s3.store import S3Blobs
from storage.blobs.store import BytesMissing, KeyBusy, Leftovers, Presigner, StoreUnavailable
from storage.errors import StoreFull
from tests import s3
from tests.conftest import lacking
from tests.faulty import Fault, proxying

PART = 5 * s3.PART
DATA = random.Random(7).randbytes(6 * PART + 1000)


@pytest.fixture
async def store(s3_options):
    blobs = S3Blobs(s3_options)
    await blobs.prepare()
    yield blobs
    blobs.close()


@pytest.fixture
async def proxy(s3_server):
    async with proxying(s3_server.port) as started:
        yield started


@pytest.fixture
async def shaky(s3_options, proxy):
    """A store that meets the proxy's faults."""
    blobs = S3Blobs(replace(s3_options, endpoint=proxy.endpoint, attempts=3, read_timeout=1.0))
    await blobs.prepare()
    yield blobs
    blobs.close()


@pytest.fixture
def real(s3_server) -> None:
    """moto lets everybody in, checks no checksum, and fails where parts come to an upload that is over."""
    if not s3_server.faithful:
        lacking("needs radosgw (Debian packages radosgw, ceph-mon, ceph-osd, ceph-common)")


async def content(store, key, start=0, length=None) -> bytes:
    return b"".join([chunk async for chunk in store.read(key, start, length)])


async def stored(store, data: bytes):
    writer = await store.create()
    await writer.write([data])
    await writer.seal()
    return writer.key


def names(server, options: S3Options) -> set[str]:
    """Objects, and `name?` for unfinished multipart uploads."""
    client, where = server.client(), {"Bucket": options.bucket, "Prefix": options.prefix}
    objects = client.list_objects_v2(**where).get("Contents", ())
    uploads = client.list_multipart_uploads(**where).get("Uploads", ())
    return ({item["Key"].removeprefix(f"{options.prefix}/") for item in objects}
            | {item["Key"].removeprefix(f"{options.prefix}/") + "?" for item in uploads})


def test_it_says_what_it_can(s3_options):
    blobs = S3Blobs(s3_options)
    assert isinstance(blobs, Leftovers)
    assert isinstance(blobs, Presigner)
    blobs.close()


async def test_a_small_blob_is_one_request_and_its_seal_none(shaky, proxy):
    proxy.seen.clear()
    writer = await shaky.create()
    await writer.write([b"small"])
    await writer.flush()
    await writer.seal()
    assert [line.split()[0] for line in proxy.seen] == ["PUT"]


async def test_a_large_blob_is_parts_and_no_copy(shaky, proxy, s3_server, s3_options):
    proxy.seen.clear()
    key = await stored(shaky, DATA)
    puts = [line for line in proxy.seen if line.startswith("PUT")]
    assert len(puts) == 7
    assert all("partNumber=" in line for line in puts)
    assert names(s3_server, s3_options) == {object_name(key)}


async def test_going_on_elsewhere_sends_nothing_again_but_the_tail(s3_options, shaky, proxy, s3_server, store):
    """A clean handover: the other process takes the same parts."""
    writer = await store.create()
    await writer.write([DATA[: 2 * PART + 100]])
    await writer.flush()
    await writer.close()
    assert len(names(s3_server, s3_options)) == 2, "the parts and the tail"
    proxy.seen.clear()
    writer = await shaky.resume(writer.key, 2 * PART + 100, writer.mark)
    await writer.write([DATA[2 * PART + 100 :]])
    await writer.seal()
    assert not [line for line in proxy.seen if "uploads" in line and line.startswith("POST")]
    assert len([line for line in proxy.seen if "partNumber=" in line]) == 5
    assert await content(store, writer.key) == DATA
    assert names(s3_server, s3_options) == {object_name(writer.key)}


async def test_a_tail_that_nothing_follows_is_not_sent_again(shaky, proxy, store, s3_server, s3_options):
    writer = await shaky.create()
    await writer.write([DATA])
    await writer.flush()
    await writer.close()
    proxy.seen.clear()
    again = await shaky.resume(writer.key, len(DATA), writer.mark)
    await again.seal()
    assert not [line for line in proxy.seen if line.startswith("GET") and "tails" in line and "prefix" not in line]
    assert await content(store, again.key) == DATA
    assert names(s3_server, s3_options) == {object_name(again.key)}


async def test_whoever_was_given_up_for_dead_changes_nothing(real, store, s3_options, s3_server):
    """Two processes write one upload: the second took over. What the first does then fails, or touches other keys."""
    elsewhere = S3Blobs(s3_options)
    await elsewhere.prepare()
    first = await store.create()
    await first.write([DATA[: 3 * PART + 5]])
    assert await first.flush() == 3 * PART + 5
    key, mark = first.key, first.mark
    await first.write([b"Z" * PART])  # sent, and never recorded
    second = await elsewhere.resume(key, 3 * PART + 5, mark, contested=True)
    await second.write([DATA[3 * PART + 5 :]])
    await second.flush()
    assert second.key != key
    with pytest.raises(KeyBusy):
        await first.write([b"Z" * PART, b"Z" * PART])
        await first.seal()
    await first.close()
    await second.seal()
    assert await content(elsewhere, second.key) == DATA
    await elsewhere.delete(key)
    assert names(s3_server, s3_options) == {object_name(second.key)}
    elsewhere.close()


async def test_a_small_upload_that_two_write_is_two_objects(store, s3_options):
    elsewhere = S3Blobs(s3_options)
    await elsewhere.prepare()
    first = await store.create()
    await first.write([b"begun "])
    await first.flush()
    key = first.key
    second = await elsewhere.resume(key, 6, first.mark, contested=True)
    await second.write([b"there"])
    await first.write([b"here"])
    await first.flush()
    assert await second.seal() == 11
    assert len({key, first.key, second.key}) == 3
    assert await content(store, key) == b"begun "
    assert await content(store, second.key) == b"begun there"
    await first.close()
    elsewhere.close()


async def test_parts_that_a_dead_writer_sent_beyond_the_mark_are_cut_off(store, s3_options):
    dead = S3Blobs(s3_options)
    await dead.prepare()
    writer = await dead.create()
    await writer.write([DATA[: PART + 7]])
    await writer.flush()
    key, mark = writer.key, writer.mark
    await writer.write([DATA[PART + 7 :]])
    await writer._sent()
    again = await store.resume(key, PART + 7, mark, contested=True)
    await again.write([b"otherwise"])
    await again.seal()
    assert await content(store, again.key) == DATA[: PART + 7] + b"otherwise"
    writer._failed = True
    await writer.close()
    dead.close()


EVERY = [Fault.INTERNAL, Fault.SLOW_DOWN, Fault.RESET, Fault.CUT_REQUEST, Fault.LOST_ANSWER, Fault.CUT_ANSWER]


@pytest.mark.parametrize(("step", "fault"), [
    *(("uploads HTTP", fault) for fault in (Fault.SLOW_DOWN, Fault.LOST_ANSWER)),
    *(("partNumber=1", fault) for fault in (Fault.RESET, Fault.CUT_REQUEST)),
    *(("partNumber=4", fault) for fault in EVERY), *(("uploadId=", fault) for fault in EVERY),
    *(("tails", fault) for fault in (Fault.INTERNAL, Fault.CUT_ANSWER))])
async def test_one_failure_of_every_step_is_got_over(shaky, proxy, store, fault, step, s3_server, s3_options):
    """POST ?uploads, parts, the tail and POST ?uploadId= (the completion)."""
    method = {"uploads HTTP": "POST", "uploadId=": "POST"}.get(step, "PUT")
    planned = proxy.next(fault, lambda request: request.startswith(method) and step in request.split("\r\n")[0])
    writer = await shaky.create()
    await writer.write([DATA[: 4 * PART + 3]])
    await writer.flush()
    await writer.write([DATA[4 * PART + 3 :]])
    assert await writer.seal() == len(DATA)
    assert planned.met == 1
    assert await content(store, writer.key) == DATA
    await store.tidy(writer.key)  # a lost answer to ?uploads leaves one without parts
    assert names(s3_server, s3_options) == {object_name(writer.key)}


async def test_a_service_that_stays_away_is_unavailable_and_the_durable_part_goes_on(shaky, proxy, store):
    writer = await shaky.create()
    await writer.write([DATA[: 2 * PART]])
    assert await writer.flush() == 2 * PART
    key, mark = writer.key, writer.mark
    planned = proxy.next(Fault.SLOW_DOWN, lambda request: request.startswith("PUT"), times=100)
    with pytest.raises(StoreUnavailable):
        await writer.write([DATA[2 * PART :]])
        await writer.seal()
    await writer.close()
    assert planned.met >= 3, "tried again"
    planned.left = 0
    again = await shaky.resume(key, 2 * PART, mark, contested=True)
    await again.write([DATA[2 * PART :]])
    await again.seal()
    assert await content(store, again.key) == DATA


async def test_a_service_that_is_silent_is_given_up(shaky, proxy):
    proxy.next(Fault.SILENCE, times=100)
    writer = await shaky.create()
    await writer.write([b"x"])
    with pytest.raises(Unavailable) as caught:
        await writer.flush()
    assert "127.0.0.1" not in caught.value.message
    proxy.planned.clear()
    await writer.close()


async def test_a_completion_whose_answer_never_came_is_found_done(shaky, proxy, store):
    writer = await shaky.create()
    await writer.write([DATA])
    await writer.flush()
    await writer.close()
    planned = proxy.next(Fault.LOST_ANSWER, lambda request: request.startswith("POST") and "uploadId=" in request,
                         times=3)
    again = await shaky.resume(writer.key, len(DATA), writer.mark)
    with pytest.raises(StoreUnavailable):
        await again.seal()
    await again.close()
    assert planned.met == 3
    third = await shaky.resume(writer.key, len(DATA), writer.mark, contested=True)
    assert await third.seal() == len(DATA)
    assert third.key == writer.key, "nothing is copied"
    assert await content(store, third.key) == DATA


@pytest.mark.parametrize("fault", [Fault.CUT_ANSWER, Fault.RESET, Fault.INTERNAL, Fault.SLOW_DOWN])
async def test_a_read_that_breaks_goes_on_where_it_broke(shaky, proxy, store, fault):
    key = await stored(store, DATA)
    proxy.seen.clear()
    proxy.next(fault, lambda request: request.startswith("GET"), times=2)
    assert await content(shaky, key, 5) == DATA[5:]
    assert await content(shaky, key) == DATA
    assert len(proxy.seen) == 4


async def test_a_read_that_never_gets_on_is_given_up(shaky, proxy, store):
    key = await stored(store, b"")
    proxy.next(Fault.INTERNAL, times=1000)
    with pytest.raises(StoreUnavailable):
        await content(shaky, key)


async def test_a_reader_that_leaves_early_leaves_nothing_open(store):
    key = await stored(store, DATA)
    for _ in range(2 * 24 + 5):  # more than there are threads or connections
        async with aclosing(store.read(key)) as chunks:
            await anext(chunks)
    assert await content(store, key) == DATA


async def test_damage_on_the_way_is_noticed_by_the_service(real, s3_options):
    bucket = Bucket(s3_options)
    await bucket.open()
    bucket._checksum = lambda spool: {"ContentMD5": base64.b64encode(b"0" * 16).decode()}
    blobs = S3Blobs(s3_options)
    blobs._bucket = bucket
    writer = await blobs.create()
    await writer.write([b"x"])
    with pytest.raises(StoreUnavailable, match="BadDigest"):
        await writer.flush()
    await writer.close()
    blobs.close()


@pytest.mark.parametrize("checksum", ["md5", "crc32", "none"])
async def test_every_checksum(s3_options, checksum):
    blobs = S3Blobs(replace(s3_options, checksum=checksum))
    await blobs.prepare()
    assert await content(blobs, await stored(blobs, DATA)) == DATA
    assert await content(blobs, await stored(blobs, b"small")) == b"small"
    blobs.close()


async def test_encrypted_by_the_service_with_our_key(s3_options, s3_server):
    blobs = S3Blobs(replace(s3_options, encryption="aws:kms", encryption_key=s3.KMS_KEY))
    await blobs.prepare()
    for data in (DATA, b"small"):
        key = await stored(blobs, data)
        assert await content(blobs, key) == data
        head = s3_server.client().head_object(Bucket=s3_options.bucket, Key=f"{s3_options.prefix}/{object_name(key)}")
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"].endswith(s3.KMS_KEY)
    blobs.close()


async def test_deleting_takes_parts_and_tails_along(store, s3_options, s3_server):
    writer = await store.create()
    await writer.write([DATA])
    await writer.flush()
    await writer.close()
    assert len(names(s3_server, s3_options)) == 2
    listed = {(item.key, item.size) async for item in store.list()}
    assert {key for key, _ in listed} == {writer.key}
    assert sum(size for _, size in listed) == len(DATA)
    await store.delete(writer.key)
    assert names(s3_server, s3_options) == set()
    with pytest.raises(BytesMissing):
        await store.resume(writer.key, len(DATA), writer.mark)


async def test_leftovers_beside_a_blob_go_and_the_blob_stays(store, s3_options, s3_server):
    key = await stored(store, DATA)
    client = s3_server.client()
    name = f"{s3_options.prefix}/{object_name(key)}"
    client.create_multipart_upload(Bucket=s3_options.bucket, Key=name)
    client.put_object(Bucket=s3_options.bucket, Key=f"{s3_options.prefix}/{tails_of(key)}{new_key()}", Body=b"tail")
    assert {item.key async for item in store.leftovers()} == {key}
    await store.tidy(key)
    assert names(s3_server, s3_options) == {object_name(key)}
    assert await content(store, key) == DATA


async def test_what_others_keep_in_the_bucket_is_none_of_ours(store, s3_options, s3_server):
    for name in ("data/readme", "data/00/nothing", f"data/ff/{'0' * 32}", "tails/00/x", "other/thing"):
        s3_server.client().put_object(Bucket=s3_options.bucket, Key=f"{s3_options.prefix}/{name}", Body=b"x")
    assert [item async for item in store.list()] == []


async def test_an_address_gives_the_bytes_for_a_while(real, store):
    key = await stored(store, DATA)
    url = await store.url(key, expires=timedelta(seconds=60), content_type="application/octet-stream")
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
        assert await answer.read() == DATA
        assert answer.headers["Content-Disposition"] == "attachment"
    async with aiohttp.ClientSession() as session, session.put(url, data=b"other") as answer:
        assert answer.status == 403
    assert s3.SECRET not in url


async def test_more_uploads_than_threads_and_no_more_threads_than_said(s3_options):
    import threading

    blobs = S3Blobs(replace(s3_options, threads=3))
    await blobs.prepare()
    writers = [await blobs.create() for _ in range(40)]
    for first in range(0, 2 * PART, PART // 2):
        await asyncio.gather(*(writer.write([DATA[first : first + PART // 2]]) for writer in writers))
    running = [thread.name for thread in threading.enumerate()]
    assert sum(name.startswith("s3-write") for name in running) <= 3
    await asyncio.gather(*(writer.seal() for writer in writers))
    assert await content(blobs, writers[-1].key) == DATA[: 2 * PART]
    blobs.close()


@pytest.mark.root
async def test_no_room_to_gather_parts_in_is_a_full_store(s3_options, small_disk):
    blobs = S3Blobs(replace(s3_options, spool=small_disk, part_size=16 << 20))
    await blobs.prepare()
    writer = await blobs.create()
    with pytest.raises(StoreFull, match=r"s3\.spool"):
        await writer.write([b"x" * (9 << 20)])
    await writer.close()
    blobs.close()




@pytest.mark.parametrize("text", ["", "x", "a b c d", "a 1 -1 -", "a 1 1", "a 1 1 t more", " 1 1 t"])
def test_a_damaged_mark_is_refused(text):
    with pytest.raises(InvalidMark):
        Mark.parse(text)


def test_a_mark_is_read_as_it_was_written():
    for mark in (Mark("2~abc.-_", 3, 100, None), Mark("id", 10_000, 1 << 42, "0" * 32)):
        assert Mark.parse(str(mark)) == mark


def test_secrets_are_not_shown(s3_options):
    assert s3.SECRET not in repr(replace(s3_options, session_token=s3.SECRET))


async def test_a_folder_to_gather_in_that_is_not_there_is_said_so_at_the_start(s3_options, tmp_path):
    blobs = S3Blobs(replace(s3_options, spool=tmp_path / "absent"))
    with pytest.raises(SeawallError, match="No such file"):
        await blobs.prepare()
    blobs.close()


async def test_credentials_from_the_environment(s3_options, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.SECRET)
    blobs = S3Blobs(replace(s3_options, access_key=None, secret_key=None))
    await blobs.prepare()
    assert await content(blobs, await stored(blobs, b"small")) == b"small"
    blobs.close()


async def test_wrong_credentials_are_said_so_at_the_start(real, s3_options):
    blobs = S3Blobs(replace(s3_options, secret_key="wrong"))
    with pytest.raises(SeawallError, match="403|Forbidden"):
        await blobs.prepare()
    blobs.close()
