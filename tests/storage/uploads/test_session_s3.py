"""Sessions upon a bucket: several replicas, none of which can lock anything, and a service that fails."""

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.blobs.s3.store import S3Blobs
from storage.blobs.store import StoreUnavailable
from storage.errors import DigestMismatch
from storage.gc.sweep import Collector
from storage.metadata.engine import open_database
from storage.repository.store import ContentStore
from storage.settings import ContentSettings
from storage.uploads import sha2
from storage.uploads.errors import UploadBusy, UploadUnknown
from tests import s3
from tests.faulty import Fault, proxying

REPO = RepositoryName.parse("team/app")
PART = 5 * s3.PART
DATA = random.Random(3).randbytes(4 * PART + 12_345)
OFTEN = ContentSettings(upload_batch=50_000, checkpoint_bytes=PART + 1)


@pytest.fixture
async def replica(database_url, s3_options, clock):
    """`async with replica() as (content, blobs)`: another process, upon the same rows and the same bucket."""

    @asynccontextmanager
    async def start(endpoint: str | None = None, settings: ContentSettings = OFTEN):
        options = replace(s3_options, endpoint=endpoint or s3_options.endpoint, attempts=2)
        blobs = S3Blobs(options)
        await blobs.prepare()
        async with open_database(database_url, clock=clock) as database:
            content = ContentStore(database, blobs, settings)
            content.collector = Collector(database, blobs)
            yield content, blobs
        blobs.close()

    return start


@pytest.fixture
def names(s3_server, s3_options):
    def find() -> set[str]:
        client, where = s3_server.client(), {"Bucket": s3_options.bucket, "Prefix": s3_options.prefix}
        objects = client.list_objects_v2(**where).get("Contents", ())
        uploads = client.list_multipart_uploads(**where).get("Uploads", ())
        return {item["Key"] for item in objects} | {f"{item['Key']}?{item['UploadId']}" for item in uploads}

    return find


async def stored(content, digest) -> bytes:
    info = await content.blobs.stat(REPO, digest)
    return b"".join([chunk async for chunk in content.blobs.read(info)])


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, len(DATA)])
async def test_from_start_to_commit(replica, stream, names, size):
    async with replica() as (content, _):
        upload = await content.uploads.start(REPO)
        assert await upload.append(stream(DATA[:size])) == size
        info = await upload.commit(Digest.of(DATA[:size]))
        assert await stored(content, info.digest) == DATA[:size]
        assert len(names()) == 1


async def test_chunks_that_meet_another_replica_each_cost_no_read_and_no_copy(replica, stream, s3_server, names):
    """A load balancer knows nothing of sessions. What a chunk needs of those before it is in the row."""
    cuts = [0, 70_000, 140_000, 500_000, 500_001, 900_000, 1_200_000, len(DATA)]
    async with proxying(s3_server.port) as proxy, replica(proxy.endpoint) as (one, _), \
            replica(proxy.endpoint) as (two, _), replica(proxy.endpoint) as (three, _):
        upload_id = (await one.uploads.start(REPO)).id
        proxy.seen.clear()
        for number, (begin, end) in enumerate(pairwise(cuts)):
            content = (one, two, three)[number % 3]
            upload = await content.uploads.get(REPO, upload_id)
            assert await upload.append(stream(DATA[begin:end]), at=begin) == end
        await (await two.uploads.get(REPO, upload_id)).commit(Digest.of(DATA))
        begun = [line for line in proxy.seen if line.startswith("POST") and "?uploads" in line]
        assert len(begun) == 1, "one multipart upload from beginning to end"
        read = [line for line in proxy.seen if line.startswith("GET") and "/data/" in line and "uploadId" not in line]
        assert len(read) <= 2, "of what was too small for a part yet, and nothing else"
        assert await stored(three, Digest.of(DATA)) == DATA
    assert len(names()) == 1


async def test_where_hashes_cannot_be_recorded_the_bytes_are_read_back(replica, stream, names, monkeypatch):
    monkeypatch.setattr(sha2, "_library", lambda _: None)
    async with replica() as (one, _), replica() as (two, _):
        upload = await one.uploads.start(REPO)
        await upload.append(stream(DATA[: 2 * PART + 9]))
        again = await two.uploads.get(REPO, upload.id)
        await again.append(stream(DATA[2 * PART + 9 :]), at=2 * PART + 9)
        await (await one.uploads.get(REPO, upload.id)).commit(Digest.of(DATA))
        assert await stored(two, Digest.of(DATA)) == DATA
    assert len(names()) == 1


async def test_a_recorded_state_that_is_damaged_is_not_believed(replica, stream, database):
    import sqlalchemy as sa

    from storage.metadata.tables import uploads

    async with replica() as (one, _), replica() as (two, _):
        upload = await one.uploads.start(REPO)
        await upload.append(stream(DATA[: 2 * PART]))
        async with database.write() as tx:
            await tx.execute(sa.update(uploads).values(state=b"\1" * 40))
        again = await two.uploads.get(REPO, upload.id)
        await again.append(stream(DATA[2 * PART :]), at=2 * PART)
        await again.commit(Digest.of(DATA))


async def test_what_checkpoints_store_twice_is_a_batch_at_most_each(replica, stream, s3_server):
    settings = ContentSettings(upload_batch=PART // 8, checkpoint_bytes=2 * PART)
    sent = []

    def tail(request: str) -> bool:
        if request.startswith("PUT") and "/tails/" in request.split("\r\n", maxsplit=1)[0]:
            sent.extend(int(line.split()[1]) for line in request.lower().split("\r\n")
                        if line.startswith("content-length"))
        return False

    async with proxying(s3_server.port) as proxy, replica(proxy.endpoint, settings) as (content, _):
        proxy.next(Fault.INTERNAL, tail, times=1)
        upload = await content.uploads.start(REPO)
        await upload.append(stream(DATA * 3, 7_001))
        await upload.commit(Digest.of(DATA * 3))
    *between, last = sent
    assert len(between) >= 5
    assert max(between) <= PART // 8 + 7_001
    assert last == len(DATA * 3) % PART


@pytest.mark.parametrize("first", [1000, 2 * PART + 1], ids=["small", "parts"])
async def test_the_later_of_two_writers_takes_over(replica, stream, names, first):
    """A client that gave its connection up comes again through another replica; the first still holds half a body."""
    async with replica() as (one, _), replica() as (two, _):
        upload = await one.uploads.start(REPO)
        await upload.append(stream(DATA[:first]))
        entered, go = asyncio.Event(), asyncio.Event()

        async def slow():
            yield b"Z" * (PART // 2)
            entered.set()
            await go.wait()
            yield b"Z" * 2 * PART

        earlier = asyncio.create_task(upload.append(slow(), at=first))
        await entered.wait()
        later = await two.uploads.get(REPO, upload.id)
        await later.append(stream(DATA[first:]), at=first)
        go.set()
        with pytest.raises(UploadBusy):
            await earlier
        await later.commit(Digest.of(DATA))
        assert await stored(two, Digest.of(DATA)) == DATA
        await collect(two)
    assert len(names()) == 1


async def test_of_two_first_appends_one_wins(replica, stream, names):
    async with replica() as (one, _), replica() as (two, _):
        upload = await one.uploads.start(REPO)
        other = await two.uploads.get(REPO, upload.id)
        results = await asyncio.gather(upload.append(stream(DATA)), other.append(stream(DATA)), return_exceptions=True)
        assert sorted(map(str, map(type, results))) == [str(int), str(UploadBusy)]
        await (await one.uploads.get(REPO, upload.id)).commit(Digest.of(DATA))
        await collect(one)
    assert len(names()) == 1


async def test_two_commits_at_once(replica, stream, names):
    async with replica() as (one, _), replica() as (two, _):
        upload = await one.uploads.start(REPO)
        await upload.append(stream(DATA))
        other = await two.uploads.get(REPO, upload.id)
        results = await asyncio.gather(upload.commit(Digest.of(DATA)), other.commit(Digest.of(DATA)),
                                       return_exceptions=True)
        assert [result for result in results if not isinstance(result, Exception)], results
        assert all(isinstance(result, UploadBusy | UploadUnknown) for result in results if isinstance(result, Exception))
        assert await stored(one, Digest.of(DATA)) == DATA
        await collect(one)
    assert len(names()) == 1


async def test_a_wrong_digest_keeps_the_session_whatever_its_algorithm(replica, stream, names):
    async with replica() as (content, _):
        upload = await content.uploads.start(REPO)
        await upload.append(stream(DATA[: 3 * PART]))
        for digest in (Digest.of(DATA), Digest.of(DATA, "sha512")):
            with pytest.raises(DigestMismatch):
                await (await content.uploads.get(REPO, upload.id)).commit(digest)
        again = await content.uploads.get(REPO, upload.id)
        await again.append(stream(DATA[3 * PART :]), at=3 * PART)
        await again.commit(Digest.of(DATA, "sha512"))
        assert await stored(content, Digest.of(DATA, "sha512")) == DATA
    assert len(names()) == 1


async def test_cancelled_at_any_moment_it_goes_on_from_its_offset(replica, stream, names):
    async with replica() as (content, _):
        upload = await content.uploads.start(REPO)
        for turns in range(1, 60):
            again = await content.uploads.get(REPO, upload.id)
            task = asyncio.create_task(again.append(stream(DATA[again.offset :], 20_000), at=again.offset))
            for _ in range(turns * 3):
                await asyncio.sleep(0)
            if turns < 50:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if (await content.uploads.get(REPO, upload.id)).offset == len(DATA):
                break
        await (await content.uploads.get(REPO, upload.id)).commit(Digest.of(DATA))
        assert await stored(content, Digest.of(DATA)) == DATA
        await collect(content)
    assert len(names()) == 1


@pytest.mark.parametrize("fault", [Fault.INTERNAL, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST_ANSWER, Fault.CUT_REQUEST])
@pytest.mark.parametrize("request_number", [1, 3, 6])
async def test_a_service_that_fails_for_a_while_at_any_request(replica, stream, s3_server, names, fault,
                                                               request_number):
    """More often than is tried again: the session stays where its row says, and the client comes back."""
    async with proxying(s3_server.port) as proxy, replica(proxy.endpoint) as (content, _):
        upload = await content.uploads.start(REPO)
        proxy.seen.clear()
        planned = proxy.next(fault, lambda _: len(proxy.seen) >= request_number, times=3)
        for _ in range(9):
            again = await content.uploads.get(REPO, upload.id)
            try:
                if again.offset < len(DATA):
                    await again.append(stream(DATA[again.offset :]), at=again.offset)
                await again.commit(Digest.of(DATA))
            except Exception as error:
                assert type(error).__name__ in ("StoreUnavailable", "UploadBusy"), error
            else:
                break
        assert planned.met == 3
        assert await stored(content, Digest.of(DATA)) == DATA
        await collect(content)
    assert len(names()) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_many_uploads_through_two_replicas_of_a_shaky_service(replica, stream, s3_server, names, seed):
    """Every fifth request goes wrong somehow; clients come back until they are done, to whichever replica."""
    chance = random.Random(seed)
    faults = [Fault.INTERNAL, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST_ANSWER, Fault.CUT_REQUEST, Fault.CUT_ANSWER]
    blobs = [chance.randbytes(chance.choice([10, PART // 2, PART, 3 * PART + 1, 5 * PART])) for _ in range(10)]

    async def push(data: bytes, replicas: list[ContentStore]) -> None:
        upload_id = (await chance.choice(replicas).uploads.start(REPO)).id
        for _ in range(60):
            try:
                upload = await chance.choice(replicas).uploads.get(REPO, upload_id)
                if upload.offset < len(data):
                    end = min(len(data), upload.offset + chance.choice([PART // 3, PART, 4 * PART]))
                    await upload.append(stream(data[upload.offset : end], 30_000), at=upload.offset)
                if upload.offset == len(data):
                    await upload.commit(Digest.of(data))
                    return
            except UploadUnknown:
                return  # an earlier commit was recorded, and what followed it failed
            except (StoreUnavailable, UploadBusy):
                continue
        raise AssertionError("never done")

    async with proxying(s3_server.port) as proxy, replica(proxy.endpoint) as (one, _), \
            replica(proxy.endpoint) as (two, _):
        planned = [proxy.next(fault, lambda _: chance.random() < 1 / 5 / len(faults), 10**6) for fault in faults]
        async with asyncio.TaskGroup() as group:
            for data in blobs:
                group.create_task(push(data, [one, two]))
        assert sum(fault.met for fault in planned) > 5
        proxy.planned.clear()
        for data in blobs:
            assert await stored(two, Digest.of(data)) == data
        await collect(one)
        assert len(names()) == len(blobs)


async def test_abort_and_expiry_leave_nothing(replica, stream, names, clock):
    async with replica() as (content, _):
        for size in (10, len(DATA)):
            upload = await content.uploads.start(REPO)
            await upload.append(stream(DATA[:size]))
            await upload.abort()
        upload = await content.uploads.start(REPO)
        await upload.append(stream(DATA))
        clock.turn(hours=2)
        assert await content.uploads.expire(timedelta(hours=1)) == 1
    assert names() == set()


async def test_the_collector_takes_what_nobody_names_and_leaves_what_goes_on(replica, stream, names, s3_server,
                                                                             s3_options):
    async with replica() as (content, blobs):
        upload = await content.uploads.start(REPO)
        await upload.append(stream(DATA[: 2 * PART + 1]))
        done = await content.uploads.start(REPO)
        await done.append(stream(DATA))
        info = await done.commit(Digest.of(DATA))
        kept = names()
        client, prefix = s3_server.client(), f"{s3_options.prefix}/data/{info.key[:2]}/{info.key}"
        client.create_multipart_upload(Bucket=s3_options.bucket, Key=prefix)
        lost = await blobs.create()
        await lost.write([DATA])
        await lost.flush()
        await lost.close()
        assert len(names()) == len(kept) + 3
        report = await content.collector.run(grace=timedelta(hours=1), dry_run=True)
        assert len(names()) == len(kept) + 3
        assert {item.key for item in report.removed if item.kind == "bytes"} == {lost.key, info.key}
        await content.collector.run(grace=timedelta(hours=1))
        assert names() == kept
        await upload.append(stream(DATA[2 * PART + 1 :]), at=2 * PART + 1)
        await upload.commit(Digest.of(DATA))


async def collect(content) -> None:
    """The test's clock is years ahead of the bucket's: everything there is old."""
    await content.collector.run(grace=timedelta(hours=1))
