"""The metadata database behaves the same on SQLite and Postgres: schema, transactions, order, concurrency.

The rooms above are tested upon SQLite in tests/storage; here is one walk through all of them upon both.
"""

import asyncio
import contextlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

import migrations.storage
from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument
from ocispec.reference import RepositoryName, Tag, referrers_tag
from storage.blobs.memory import MemoryBlobs
from storage.errors import BlobUnknown
from storage.gc.leases import Leases
from storage.gc.sweep import Collector
from storage.metadata import repositories, tables
from storage.metadata.engine import DatabaseBehind, DatabaseTooNew, DatabaseUnavailable, open_database
from storage.metadata.referrers import Wanted
from storage.repository.manifests import ManifestBlobUnknown, ManifestUnknown
from storage.repository.store import ContentStore
from storage.scrub import Scrubber, ScrubOptions
from storage.uploads.errors import UploadBusy, UploadUnknown

REPO, OTHER = RepositoryName.parse("team/app"), RepositoryName.parse("team/other")


@pytest.fixture
async def database(url):
    async with open_database(url) as opened:
        yield opened


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def content(database, blobs) -> ContentStore:
    return ContentStore(database, blobs)


async def body(data: bytes):
    yield data


async def push(content, data: bytes, repo=REPO):
    upload = await content.uploads.start(repo)
    await upload.append(body(data))
    return await upload.commit(Digest.of(data))


def index(*children):
    return manifests.parse(json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [
        {"mediaType": child.media_type, "digest": str(child.digest), "size": len(child.raw)}
        for child in children]}).encode())


def image(config, *layers, subject=None, **fields):
    document = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST,
                "config": {"mediaType": mediatype.OCI_CONFIG, "digest": str(config.digest), "size": config.size},
                "layers": [{"mediaType": mediatype.OCI_LAYER, "digest": str(b.digest), "size": b.size} for b in layers],
                **fields}
    if subject is not None:
        document["subject"] = subject.descriptor(subject.digest()).to_json()
    return manifests.parse(json.dumps(document).encode())


async def test_migrations_make_exactly_the_tables(database):
    async with database.read() as tx:
        differences = await tx.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), tables.metadata))
    assert differences == []


@pytest.mark.parametrize("url", [
    "sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "mysql+pymysql://h/d", "", "nonsense", "nosuch://x"])
async def test_urls_that_cannot_work_are_refused(url):
    with pytest.raises(InvalidArgument):
        async with open_database(url):
            pass


@pytest.mark.parametrize("url", [
    "postgresql+asyncpg://seawall@/x?host=/nonexistent", "sqlite+aiosqlite:////no/such/folder/x"])
async def test_a_database_that_does_not_answer_says_so(url):
    with pytest.raises(DatabaseUnavailable):
        async with open_database(url):
            pass


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "content.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(DatabaseUnavailable):
        async with open_database(f"sqlite+aiosqlite:///{tmp_path}/content.db"):
            pass


async def test_opened_again_it_is_what_it_was(url, blobs):
    async with open_database(url) as database:
        stored = await push(ContentStore(database, blobs), b"kept")
    async with open_database(url, migrate=False) as database:
        assert await ContentStore(database, blobs).blobs.stat(REPO, stored.digest) == stored


async def test_a_database_from_the_future_or_the_past_is_refused(url):
    with pytest.raises(DatabaseBehind):
        async with open_database(url, migrate=False):
            pass
    async with open_database(url) as database, database.write() as tx:
        await tx.execute(sa.text("UPDATE alembic_version SET version_num='9999'"))
    for migrate in (True, False):
        with pytest.raises(DatabaseTooNew, match="9999"):
            async with open_database(url, migrate=migrate):
                pass


async def test_annotations_of_older_manifests_are_found(url, blobs):
    """Migration 0008 reads them again from what is stored."""
    async with open_database(url) as database:
        content = ContentStore(database, blobs)
        config = await push(content, b"{}")
        subject = image(config, made="first")
        for fields in ({"annotations": {"ü": "\ud800"}}, {"annotations": {}}, {}):
            await content.manifests.put(REPO, image(config, subject=subject, **fields))
        before = await content.referrers.page(REPO, Wanted(subject.digest()), limit=9, room=1 << 20)
        async with database.write() as tx:
            await tx.run_sync(_down_to_0007)
    async with open_database(url) as database:
        after = await ContentStore(database, blobs).referrers.page(REPO, Wanted(subject.digest()), limit=9,
                                                                   room=1 << 20)
    assert after == before
    assert sorted(item.annotations for item in after.found) == [b"", b"", b'{"\\u00fc":"\\ud800"}']


async def test_a_damaged_manifest_keeps_nobody_from_upgrading(url, blobs):
    async with open_database(url) as database:
        content = ContentStore(database, blobs)
        config = await push(content, b"{}")
        stored = await content.manifests.put(REPO, image(config))
        async with database.write() as tx:
            await tx.execute(sa.update(tables.manifests).values(raw=b"\xff{"))
            await tx.run_sync(_down_to_0007)
    async with open_database(url) as database:
        assert (await ContentStore(database, blobs).manifests.get(REPO, stored.digest)).raw == b"\xff{"


def _down_to_0007(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.storage.__file__).parent))
    config.attributes["connection"] = connection
    command.downgrade(config, "0007")


async def test_several_processes_may_open_a_new_database_at_once(url):
    program = ("import asyncio, sys\nfrom storage.metadata.engine import open_database\n"
               "async def main():\n    async with open_database(sys.argv[1]):\n        pass\n"
               "asyncio.run(main())\n")
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, url) for _ in range(4)]
    assert await asyncio.gather(*(process.wait() for process in processes)) == [0] * 4


async def test_a_transaction_that_raises_leaves_nothing(database):
    with pytest.raises(KeyError):
        async with database.write() as tx:
            await repositories.ensure(tx, REPO, database.now())
            raise KeyError
    async with database.read() as tx:
        assert await repositories.find(tx, REPO) is None


async def test_a_cancelled_transaction_leaves_nothing_and_the_lock_free(database):
    async def write(entered: asyncio.Event):
        async with database.write() as tx:
            await repositories.ensure(tx, REPO, database.now())
            entered.set()
            await asyncio.Event().wait()

    entered = asyncio.Event()
    task = asyncio.create_task(write(entered))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.write() as tx:
        assert await repositories.find(tx, REPO) is None
        await repositories.ensure(tx, REPO, database.now())


async def test_instants_and_digests_come_back_as_they_went(database):
    at = datetime(2031, 2, 3, 4, 5, 6, 789123, tzinfo=UTC)
    async with database.write() as tx:
        await repositories.ensure(tx, REPO, at)
        await tx.execute(sa.insert(tables.blobs).values(
            digest=Digest.of(b"x", "sha512"), key="k", size=1 << 40, created=at, touched=at))
        row = (await tx.execute(sa.select(tables.blobs.c.digest, tables.blobs.c.size, tables.blobs.c.touched))).one()
    assert tuple(row) == (Digest.of(b"x", "sha512"), 1 << 40, at)


async def test_one_walk_through_everything(content, database, blobs):
    config, layer = await push(content, b"{}"), await push(content, b"layer")
    assert await push(content, b"layer", OTHER) == layer
    parsed = image(config, layer)
    stored = await content.manifests.put(REPO, parsed, tags=[Tag("B"), Tag("a"), Tag("_")])
    assert await content.manifests.put(REPO, parsed, tags=[Tag("a")]) == stored
    for reference in (Tag("a"), stored.digest):
        assert await content.manifests.get(REPO, reference) == stored
        assert await content.manifests.get(REPO, reference) == stored
    with pytest.raises(ManifestBlobUnknown):
        await content.manifests.put(OTHER, parsed)
    assert await content.blobs.mount(OTHER, config.digest, REPO) == config
    await content.manifests.put(OTHER, parsed, tags=[Tag("x")])
    assert (await content.tags.list(REPO, limit=2, last=None)).names == ["B", "_"]
    assert (await content.tags.list(REPO, limit=2, last="B")).names == ["_", "a"]
    assert (await content.tags.catalog(limit=None, last="team/app")).names == ["team/other"]
    found, total = await content.tags.search("APP", limit=5, offset=0)
    assert ([(str(f.name), f.tags) for f in found], total) == ([("team/app", 3)], 1)
    assert len(await content.tags.by_digest(stored.digest)) == 4
    referrer = await content.manifests.put(REPO, image(config, subject=parsed))
    second_config = await content.manifests.put(REPO, image(layer, annotations={"made": "here"}))
    listing = await content.manifests.put(REPO, index(stored, second_config), tags=[referrers_tag(stored.digest)])
    for limit in (1, 5):
        page = await content.referrers.page(REPO, Wanted(stored.digest), limit=limit, room=1 << 20)
        assert page.more is (limit == 1)
        assert [item.digest for item in page.found] == sorted({referrer.digest, second_config.digest}, key=str)[:limit]
    assert {item.annotations for item in page.found} == {b"", b'{"made":"here"}'}
    await content.manifests.delete(REPO, listing.digest)
    await content.manifests.delete(REPO, second_config.digest)

    second = await content.manifests.put(REPO, image(config), tags=[Tag("a")])
    assert await content.manifests.resolve(REPO, Tag("a")) == second.digest
    assert await content.tags.delete(REPO, Tag("a")) == second.digest
    await content.manifests.delete(REPO, stored.digest)
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(REPO, Tag("B"))
    await content.blobs.delete(REPO, layer.digest)
    with pytest.raises(BlobUnknown):
        await content.blobs.stat(REPO, layer.digest)

    async with Leases(database).hold("test", ttl=timedelta(minutes=1)) as lease:
        await lease.add(second.digest, second.digest)
        dry = await Collector(database, blobs).run(grace=timedelta(0), dry_run=True)
        report = await Collector(database, blobs).run(grace=timedelta(0))
    assert [(i.kind, i.digest) for i in report.removed] == [(i.kind, i.digest) for i in dry.removed]
    assert {i.digest for i in report.removed} == {referrer.digest}
    assert (await content.blobs.stat(OTHER, layer.digest)).size == 5
    await content.manifests.delete(OTHER, stored.digest)
    await Collector(database, blobs).run(grace=timedelta(0))
    assert [item async for item in blobs.list()] == []


async def test_two_programs_at_once(url, database, content, blobs):
    """Pushes of the same content, tags and sessions through two stores: no error of the database comes through."""
    async with open_database(url) as second:
        elsewhere = ContentStore(second, blobs)

        async def one(store, number):
            config, layer = await push(store, b"{}"), await push(store, b"layer %d" % (number % 2))
            stored = await store.manifests.put(REPO, image(config, layer), tags=[Tag("t"), Tag(f"t{number % 3}")])
            assert await store.manifests.get(REPO, stored.digest) == stored

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(one((content, elsewhere)[number // 2 % 2], number))
        tagged = await elsewhere.manifests.get(REPO, Tag("t"))
        assert await content.manifests.get(REPO, Tag("t")) == tagged
        await elsewhere.tags.delete(REPO, Tag("t"))
        with pytest.raises(ManifestUnknown):
            await content.manifests.get(REPO, Tag("t"))
        assert len([item async for item in blobs.list()]) == 3


async def test_a_session_is_committed_once(url, content, blobs):
    async with open_database(url) as second:
        upload = await content.uploads.start(REPO)
        await upload.append(body(b"once"))
        other = await ContentStore(second, blobs).uploads.get(REPO, upload.id)
        results = await asyncio.gather(upload.commit(Digest.of(b"once")), other.commit(Digest.of(b"once")),
                                       return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert sum(isinstance(result, UploadBusy | UploadUnknown) for result in results) == 1


async def test_a_collector_beside_pushes(url, content, blobs):
    """The collector's grace is real time here; what is pushed meanwhile and tagged must stay whole."""
    async with open_database(url) as second:
        collector = Collector(second, blobs)
        done = asyncio.Event()

        async def collect():
            while not done.is_set():
                await collector.run(grace=timedelta(seconds=30))
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(collect())
            with contextlib.ExitStack() as stack:
                stack.callback(done.set)
                for number in range(10):
                    config, layer = await push(content, b"{}"), await push(content, b"%d" % number)
                    await content.manifests.put(REPO, image(config, layer), tags=[Tag("latest")])


async def test_what_is_damaged_is_found_kept_back_and_healed(content, database, blobs):
    config, layer = await push(content, b"{}"), await push(content, b"layer")
    await push(content, b"layer", OTHER)
    stored = await content.manifests.put(REPO, image(config, layer), tags=[Tag("a"), Tag("b")])
    await blobs.delete(layer.key)
    found = []
    scrubber = Scrubber(database, blobs)
    await scrubber.run(ScrubOptions(quarantine=True), found.append)
    (damage,) = found
    assert (damage.digest, damage.repositories, damage.quarantined) == (layer.digest, (REPO, OTHER), True)
    assert [(item.manifest, item.tags) for item in damage.affected] == [(stored.digest, (Tag("a"), Tag("b")))]
    with pytest.raises(BlobUnknown):
        await content.blobs.stat(OTHER, layer.digest)
    again = await push(content, b"layer")
    assert again.key != layer.key
    assert await content.blobs.stat(OTHER, layer.digest) == again
    report = await scrubber.run(ScrubOptions(since=timedelta(hours=1)), found.append)
    assert (len(found), report.blobs, report.manifests, report.continued) == (1, 1, 1, False)
    assert (await scrubber.run(ScrubOptions(since=timedelta(hours=1)), found.append)).blobs == 0


async def test_cancelled_within_any_statement_nobody_else_is_locked_out(database):
    """Also while somebody holds the traceback, and with it the statement that was running."""
    async def write(number: int) -> None:
        async with database.write() as tx, tx.begin_nested():
            await repositories.ensure(tx, RepositoryName(f"r{number}"), database.now())

    held = []
    for number in range(60):
        task = asyncio.create_task(write(number))
        await asyncio.sleep(number * 0.0001)
        task.cancel()
        held += await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(10):
            await write(1000 + number)
