"""Upload sessions: what is durable when, who may write, and what every failure leaves."""

import asyncio
import hashlib
from contextlib import suppress
from datetime import timedelta

import pytest

from ocispec.digest import ALGORITHMS, Digest, InvalidDigest
from ocispec.reference import RepositoryName
from storage.blobs.disk import DiskBlobs
from storage.blobs.memory import MemoryBlobs
from storage.blobs.store import BytesMissing
from storage.errors import DigestMismatch, StoreFull
from storage.metadata.engine import open_database
from storage.repository.store import ContentStore
from storage.settings import ContentSettings
from storage.uploads import session
from storage.uploads.errors import OffsetMismatch, UploadBusy, UploadUnknown

REPO = RepositoryName.parse("team/app")
SMALL = ContentSettings(upload_batch=10_000, checkpoint_bytes=50_000)
DATA = bytes(range(256)) * 1000


class Broken(Exception):
    """The client is gone."""


async def breaking(data: bytes, size: int = 1000):
    for first in range(0, len(data), size):
        yield data[first : first + size]
    raise Broken


async def keys(blobs) -> set[str]:
    return {item.key async for item in blobs.list()}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "byte", "large"])
async def test_from_start_to_commit(content, blobs, stream, algorithm, data):
    upload = await content.uploads.start(REPO, algorithm)
    assert await upload.append(stream(data)) == len(data) == upload.offset
    info = await upload.commit(Digest.of(data, algorithm))
    assert (info.digest, info.size) == (Digest.of(data, algorithm), len(data))
    assert blobs.path(info.key).read_bytes() == data
    assert await content.blobs.stat(REPO, info.digest) == info
    with pytest.raises(UploadUnknown):
        await content.uploads.get(REPO, upload.id)
    for over in (upload.commit(info.digest), upload.abort(), upload.append(stream(b"x"))):
        with pytest.raises(UploadUnknown):
            await over


async def test_an_empty_session_without_any_append_commits_the_empty_blob(content):
    upload = await content.uploads.start(REPO)
    assert (await upload.commit(Digest.of(b""))).size == 0


async def test_any_algorithm_at_commit(content, stream):
    upload = await content.uploads.start(REPO, "sha256")
    await upload.append(stream(DATA))
    info = await upload.commit(Digest.of(DATA, "sha512"))
    assert info.digest.algorithm == "sha512"


async def test_an_unknown_algorithm_is_refused_at_the_start(content):
    with pytest.raises(InvalidDigest):
        await content.uploads.start(REPO, "md5")


async def test_in_pieces_by_different_requests(content, stream):
    upload = await content.uploads.start(REPO)
    for first in range(0, len(DATA), 100_000):
        again = await content.uploads.get(REPO, upload.id)
        assert await again.append(stream(DATA[first : first + 100_000]), at=first) == min(first + 100_000, len(DATA))
    assert (await (await content.uploads.get(REPO, upload.id)).commit(Digest.of(DATA))).size == len(DATA)


async def test_chunks_of_every_size_arrive_in_order(content, stream):
    async def odd():
        yield b""
        for size in (1, 16 * 1024 - 1, 16 * 1024, 1, 1, 3_000_000, 7, 20_000):
            yield bytes([size % 251]) * size

    expected = b"".join([chunk async for chunk in odd()])
    upload = await content.uploads.start(REPO)
    await upload.append(odd())
    assert (await upload.commit(Digest.of(expected))).size == len(expected)


async def test_another_offset_is_refused_and_nothing_is_read(content, stream):
    upload = await content.uploads.start(REPO)
    await upload.append(stream(b"12345"))

    async def never():
        raise AssertionError("the body must not be read")
        yield b""

    for at in (0, 4, 6, 10**12):
        with pytest.raises(OffsetMismatch) as caught:
            await upload.append(never(), at=at)
        assert caught.value.offset == 5
    assert await upload.append(stream(b"67"), at=5) == 7


async def test_a_session_is_bound_to_its_repository(content):
    upload = await content.uploads.start(REPO)
    for repo, upload_id in ((RepositoryName.parse("team/other"), upload.id), (REPO, "x"), (REPO, "0" * 36),
                            (REPO, "' OR 1=1 --" + "x" * 25), (REPO, "")):
        with pytest.raises(UploadUnknown):
            await content.uploads.get(repo, upload_id)
    assert (await content.uploads.get(REPO, upload.id)).offset == 0


async def test_a_wrong_digest_keeps_the_session(content, stream):
    upload = await content.uploads.start(REPO)
    await upload.append(stream(b"abc"))
    with pytest.raises(DigestMismatch):
        await upload.commit(Digest.of(b"abcd"))
    with pytest.raises(DigestMismatch):
        await upload.commit(Digest.of(b"abcd", "sha512"))
    again = await content.uploads.get(REPO, upload.id)
    assert again.offset == 3
    await again.append(stream(b"d"), at=3)
    await again.commit(Digest.of(b"abcd"))


async def test_what_arrived_before_the_source_broke_is_kept(content, stream):
    upload = await content.uploads.start(REPO)
    with pytest.raises(Broken):
        await upload.append(breaking(DATA[:99_999]))
    again = await content.uploads.get(REPO, upload.id)
    assert again.offset == 99_999
    await again.append(stream(DATA[99_999:]), at=99_999)
    await again.commit(Digest.of(DATA))


async def test_what_arrived_before_a_cancellation_is_kept(content, stream, until):
    stuck = asyncio.Event()

    async def body():
        for first in range(0, 50_000, 1000):
            yield DATA[first : first + 1000]
        stuck.set()
        await asyncio.Event().wait()

    upload = await content.uploads.start(REPO)
    task = asyncio.create_task(upload.append(body()))
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = await content.uploads.get(REPO, upload.id)
    assert again.offset == 50_000
    await again.append(stream(DATA[50_000:]))
    await again.commit(Digest.of(DATA))


async def test_cancelled_at_any_moment_it_goes_on_from_its_offset(database, blobs, stream):
    """A cancellation every few steps, until all is there: the hash must never disagree with the bytes."""
    content = ContentStore(database, blobs, SMALL)
    upload = await content.uploads.start(REPO)
    for turns in range(1, 400):
        again = await content.uploads.get(REPO, upload.id)
        task = asyncio.create_task(again.append(stream(DATA[again.offset :]), at=again.offset))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns < 390:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if (await content.uploads.get(REPO, upload.id)).offset == len(DATA):
            break
    info = await (await content.uploads.get(REPO, upload.id)).commit(Digest.of(DATA))
    assert blobs.path(info.key).read_bytes() == DATA


async def test_a_second_writer_is_told_so(content, stream):
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow():
        yield b"first"
        entered.set()
        await go.wait()

    upload = await content.uploads.start(REPO)
    other = await content.uploads.get(REPO, upload.id)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(upload.append(slow()))
        await entered.wait()
        for attempt in (other.append(stream(b"x")), other.commit(Digest.of(b"first")), other.abort()):
            with pytest.raises(UploadBusy):
                await attempt
        go.set()
    assert writing.result() == 5
    await other.commit(Digest.of(b"first"))


async def test_two_processes_do_not_write_one_session(content, database_url, blobs, stream, tmp_path):
    """Two stores upon the same files are what two workers are."""
    upload = await content.uploads.start(REPO)
    await upload.append(stream(b"begun "))
    async with open_database(database_url) as second:
        elsewhere = ContentStore(second, DiskBlobs(tmp_path / "content"))
        entered, go = asyncio.Event(), asyncio.Event()

        async def slow():
            yield b"here"
            entered.set()
            await go.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(upload.append(slow()))
            await entered.wait()
            with pytest.raises(UploadBusy):
                await (await elsewhere.uploads.get(REPO, upload.id)).append(stream(b"there"))
            go.set()
        # The other process goes on where this one ended, without its hasher; then this one finishes.
        assert await (await elsewhere.uploads.get(REPO, upload.id)).append(stream(b" there"), at=10) == 16
    assert await upload.append(stream(b"."), at=16) == 17
    await upload.commit(Digest.of(b"begun here there."))


async def test_of_two_first_appends_in_two_processes_one_wins(content, database_url, blobs, stream, tmp_path):
    upload = await content.uploads.start(REPO)
    async with open_database(database_url) as second:
        other = await ContentStore(second, DiskBlobs(tmp_path / "content")).uploads.get(REPO, upload.id)
        entered, go = asyncio.Event(), asyncio.Event()

        async def slow():
            yield b"late"
            entered.set()
            await go.wait()

        late = asyncio.create_task(upload.append(slow()))
        await entered.wait()
        await other.append(stream(b"early"))
        go.set()
        with pytest.raises(UploadBusy):
            await late
    await (await content.uploads.get(REPO, upload.id)).commit(Digest.of(b"early"))
    assert len(await keys(blobs)) == 1, "the loser's bytes are removed"


async def test_a_lost_hasher_is_made_up_by_reading(database, blobs, stream):
    upload = await ContentStore(database, blobs).uploads.start(REPO)
    await upload.append(stream(DATA[:100_000]))
    restarted = ContentStore(database, blobs)
    again = await restarted.uploads.get(REPO, upload.id)
    await again.append(stream(DATA[100_000:]), at=100_000)
    await (await ContentStore(database, blobs).uploads.get(REPO, upload.id)).commit(Digest.of(DATA))


async def test_bytes_behind_the_durable_offset_are_cut_off(database, blobs, stream):
    content = ContentStore(database, blobs)
    upload = await content.uploads.start(REPO)
    await upload.append(stream(b"durable"))
    (key,) = await keys(blobs)
    with blobs.path(key).open("ab") as file:
        file.write(b" and what a killed process had written besides")
    again = await ContentStore(database, blobs).uploads.get(REPO, upload.id)
    await again.append(stream(b"!"), at=7)
    assert (await again.commit(Digest.of(b"durable!"))).size == 8


async def test_commit_cuts_off_too(database, blobs, stream):
    content = ContentStore(database, blobs)
    upload = await content.uploads.start(REPO)
    await upload.append(stream(b"durable"))
    (key,) = await keys(blobs)
    with blobs.path(key).open("ab") as file:
        file.write(b" and more")
    info = await upload.commit(Digest.of(b"durable"))
    assert blobs.path(info.key).read_bytes() == b"durable"


async def test_checkpoints_bound_what_a_crash_loses(database, blobs, stream):
    content = ContentStore(database, blobs, SMALL)
    upload = await content.uploads.start(REPO)
    seen = []

    async def body():
        async for chunk in stream(DATA):
            seen.append((await content.uploads.get(REPO, upload.id)).offset)
            yield chunk

    await upload.append(body())
    sent = [1000 * number for number in range(len(seen))]
    assert max(there - durable for there, durable in zip(sent, seen, strict=True)) <= 50_000 + 3 * 10_000 + 1000


async def test_the_same_content_twice_at_once_is_kept_once(content, blobs, stream):
    uploads = [await content.uploads.start(RepositoryName.parse(f"team/{number}")) for number in range(5)]
    for upload in uploads:
        await upload.append(stream(DATA))
    infos = await asyncio.gather(*(upload.commit(Digest.of(DATA)) for upload in uploads))
    assert len({info.key for info in infos}) == 1
    assert await keys(blobs) == {infos[0].key}
    for upload in uploads:
        assert await content.blobs.stat(upload.repo, infos[0].digest) == infos[0]


async def test_abort_leaves_nothing(content, blobs, stream):
    upload = await content.uploads.start(REPO)
    await upload.append(stream(DATA))
    await upload.abort()
    assert await keys(blobs) == set()
    with pytest.raises(UploadUnknown):
        await content.uploads.get(REPO, upload.id)
    await (await content.uploads.start(REPO)).abort()


async def test_expire_takes_idle_sessions_only(content, blobs, stream, clock):
    idle = await content.uploads.start(REPO)
    await idle.append(stream(b"old"))
    never = await content.uploads.start(REPO)
    clock.turn(hours=2)
    fresh = await content.uploads.start(REPO)
    await fresh.append(stream(b"new"))
    assert await content.uploads.expire(timedelta(hours=1)) == 2
    for gone in (idle, never):
        with pytest.raises(UploadUnknown):
            await content.uploads.get(REPO, gone.id)
    await fresh.commit(Digest.of(b"new"))
    assert len(await keys(blobs)) == 1


async def test_expire_leaves_a_session_that_is_being_written(content, clock):
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow():
        yield b"slow"
        entered.set()
        await go.wait()

    upload = await content.uploads.start(REPO)
    async with asyncio.TaskGroup() as group:
        group.create_task(upload.append(slow()))
        await entered.wait()
        clock.turn(hours=2)
        assert await content.uploads.expire(timedelta(hours=1)) == 0
        go.set()
    await upload.commit(Digest.of(b"slow"))


async def test_a_full_store_keeps_the_durable_offset_and_recovers(database, stream):
    blobs = MemoryBlobs(capacity=150_000)
    content = ContentStore(database, blobs, SMALL)
    upload = await content.uploads.start(REPO)
    await upload.append(stream(DATA[:20_000]))
    with pytest.raises(StoreFull):
        await upload.append(stream(DATA[20_000:]), at=20_000)
    again = await content.uploads.get(REPO, upload.id)
    durable = again.offset
    assert 20_000 <= durable <= 150_000
    (key,) = await keys(blobs)
    assert await blobs.size(key) == durable, "what is not counted on gives its room back"
    blobs._capacity = None
    await again.append(stream(DATA[durable:]), at=durable)
    await again.commit(Digest.of(DATA))


async def test_a_store_that_is_full_at_the_first_byte_leaves_no_bytes(database, stream):
    blobs = MemoryBlobs(capacity=0)
    upload = await ContentStore(database, blobs).uploads.start(REPO)
    with pytest.raises(StoreFull):
        await upload.append(stream(b"x"))
    assert await keys(blobs) == set()
    assert (await ContentStore(database, blobs).uploads.get(REPO, upload.id)).offset == 0


@pytest.mark.root
async def test_a_full_disk(tmp_path, small_disk, stream):
    """Blobs and rows on one full file system: nothing breaks, and space that is freed is enough to go on."""
    blobs = DiskBlobs(small_disk / "content")
    await blobs.prepare()
    async with open_database(f"sqlite+aiosqlite:///{small_disk}/content.db") as database:
        content = ContentStore(database, blobs, ContentSettings(upload_batch=300_000, checkpoint_bytes=1_000_000))
        upload = await content.uploads.start(REPO)

        async def endless():
            while True:
                yield DATA

        with pytest.raises(StoreFull):
            await upload.append(endless())
        again = await content.uploads.get(REPO, upload.id)
        kept = again.offset
        hasher = hashlib.sha256((DATA * (kept // len(DATA) + 1))[:kept])
        assert (await again.commit(Digest("sha256", hasher.hexdigest()))).size == kept
        with pytest.raises(StoreFull):
            await (await content.uploads.start(REPO)).append(endless())
        assert (await content.blobs.stat(REPO, Digest("sha256", hasher.hexdigest()))).size == kept


async def test_bytes_that_vanished_are_an_error_and_no_blob(content, blobs, stream):
    upload = await content.uploads.start(REPO)
    await upload.append(stream(b"abc"))
    (key,) = await keys(blobs)
    await blobs.delete(key)
    with pytest.raises(BytesMissing):
        await upload.commit(Digest.of(b"abc"))
    assert await content.blobs.has_any(Digest.of(b"abc")) is None


async def test_a_sealed_key_whose_commit_did_not_happen_is_committed_by_the_next_try(content, blobs, stream):
    upload = await content.uploads.start(REPO)
    await upload.append(stream(b"abc"))
    await upload._seal()
    info = await (await content.uploads.get(REPO, upload.id)).commit(Digest.of(b"abc"))
    assert blobs.path(info.key).read_bytes() == b"abc"


async def test_memory_does_not_grow_with_the_body(database, blobs):
    """One byte a chunk and large chunks: what is gathered stays near one batch."""
    sizes = []
    real = session.Pipeline._store

    async def watched(self, batch):
        sizes.append((batch.size, len(batch.chunks)))
        await real(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.Pipeline, "_store", watched)
        content = ContentStore(database, blobs, SMALL)

        async def bytewise():
            for _ in range(30_000):
                yield b"x"
            for _ in range(30):
                yield b"y" * 17_000

        await (await content.uploads.start(REPO)).append(bytewise())
    assert max(size for size, _ in sizes) <= 10_000 + 17_000
    assert max(count for _, count in sizes) <= 2


async def test_a_session_that_somebody_goes_on_with_is_not_expired(content, clock, stream, monkeypatch):
    upload = await content.uploads.start(REPO)
    await upload.append(stream(b"idle"))
    clock.turn(days=2)
    listed = session.rows.idle_since

    async def then_it_goes_on(tx, cutoff):
        found = await listed(tx, cutoff)
        await upload.append(stream(b" no more"))
        return found

    monkeypatch.setattr(session.rows, "idle_since", then_it_goes_on)
    assert await content.uploads.expire(timedelta(days=1)) == 0
    assert (await content.uploads.get(REPO, upload.id)).offset == len(b"idle no more")
