"""What a process hears of changes that another one made: repositories and topics, each by itself, on both databases."""

import asyncio
import json

import pytest

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.reference import RepositoryName, Tag
from storage.blobs.memory import MemoryBlobs
from storage.metadata import repositories, topics
from storage.metadata.engine import open_database
from storage.repository.manifests import ManifestUnknown
from storage.repository.store import ContentStore

REPO, OTHER = RepositoryName.parse("team/app"), RepositoryName.parse("team/other")
NAMES = [REPO.value, OTHER.value, "!accounts", "!policies"]


@pytest.fixture
async def database(url):
    async with open_database(url) as opened:
        yield opened


@pytest.fixture
async def second(url, database):
    async with open_database(url, migrate=False) as opened:
        yield opened


def index(number: int):
    return manifests.parse(json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [],
                                       "annotations": {"number": str(number)}}).encode())


async def outdate(database, name: str) -> None:
    async with database.write() as tx:
        if name.startswith(topics.PREFIX):
            await topics.outdate(tx, name.removeprefix(topics.PREFIX))
        else:
            await repositories.outdate(tx, await repositories.ensure(tx, RepositoryName.parse(name), database.now()))


async def marks(database, until) -> dict[str, int]:
    """Waits for the watch of a Postgres to be connected."""
    async def known():
        await database.changes.look()
        found = {name: database.changes.mark(name) for name in NAMES}
        return found if None not in found.values() else None

    return await until(known)


async def test_each_change_is_heard_once_and_under_its_own_name(database, second, until):
    for name in [*NAMES, *reversed(NAMES), "!accounts", "!accounts"]:
        before = await marks(database, until)
        await outdate(second, name)
        after = await marks(database, until)
        assert {each for each in NAMES if before[each] != after[each]} == {name}
        assert after == await marks(database, until)


async def test_a_change_is_heard_in_the_process_that_made_it(database, until):
    before = await marks(database, until)
    await outdate(database, "!accounts")
    assert database.changes.mark("!accounts") != before["!accounts"]
    assert (await marks(database, until))["!accounts"] != before["!accounts"]


async def test_what_is_rolled_back_changed_nothing(database, second, until):
    before = await marks(database, until)
    with pytest.raises(KeyError):
        async with second.write() as tx:
            await topics.outdate(tx, "accounts")
            raise KeyError
    assert await marks(database, until) == before


async def test_changes_that_commit_in_another_order_than_they_began_are_all_heard(database, second, until):
    """The first to take its number is the last to commit: a look in between must not make it forgotten."""
    async with database.write() as tx:
        for name in (REPO, OTHER):
            await repositories.ensure(tx, name, database.now())
    if database.changes.mark(REPO.value) is not None:
        return  # SQLite has one writer: nothing can overtake
    before = await marks(database, until)
    written, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        async with second.write(beside=True) as tx:
            await repositories.outdate(tx, await repositories.ensure_locked(tx, REPO, second.now()))
            written.set()
            await go_on.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(slow())
        await written.wait()
        async with second.write(beside=True) as tx:
            await repositories.outdate(tx, await repositories.ensure_locked(tx, OTHER, second.now()))
        between = await marks(database, until)
        go_on.set()
    after = await marks(database, until)
    assert (before[REPO.value], before[OTHER.value] != between[OTHER.value]) == (between[REPO.value], True)
    assert (between[OTHER.value], between[REPO.value] != after[REPO.value]) == (after[OTHER.value], True)


async def test_more_changes_than_are_counted_outdate_everything(database, second, until):
    before = await marks(database, until)
    async with second.write() as tx:
        for number in range(1100):
            await topics.outdate(tx, f"t{number}")
    after = await marks(database, until)
    assert after["!accounts"] != before["!accounts"] or database.changes.mark("!t7") != before.get("!t7", 0)


async def test_many_that_look_at_once_share_what_is_seen(database, second, until):
    await marks(database, until)
    seen = []

    async def one():
        await database.changes.look()
        seen.append(database.changes.mark("!accounts"))

    for round_ in range(5):
        seen.clear()
        await outdate(second, "!accounts")
        tasks = [asyncio.create_task(one()) for _ in range(50)]
        await asyncio.sleep(0)
        tasks[round_].cancel()
        await asyncio.wait(tasks)
        assert len(seen) in (49, 50)
        assert len(set(seen)) == 1


async def test_a_deleted_manifest_is_gone_everywhere_at_once(database, second, until):
    """The promise: a GET that begins after the delete returned, at another process, does not answer from memory."""
    here, there = ContentStore(database, MemoryBlobs()), ContentStore(second, MemoryBlobs())
    await marks(database, until)
    await marks(second, until)
    for number in range(10):
        stored = await here.manifests.put(REPO, index(number), tags=[Tag("latest")])
        for reference in (Tag("latest"), stored.digest):
            await there.look()
            assert await there.manifests.get(REPO, reference) == stored
            await there.look()
            assert there.manifests.cached(REPO, reference) == stored
        await here.manifests.delete(REPO, stored.digest)
        await there.look()
        assert there.manifests.cached(REPO, stored.digest) is None
        with pytest.raises(ManifestUnknown):
            await there.manifests.get(REPO, Tag("latest"))
