"""What a process hears of changes that another one made: repositories and topics, each by itself."""

import pytest

from ocispec.reference import RepositoryName
from storage.metadata import repositories, topics
from storage.metadata.engine import open_database

REPO, OTHER = RepositoryName.parse("team/app"), RepositoryName.parse("team/other")


@pytest.fixture
async def second(database_url):
    async with open_database(database_url, migrate=False) as opened:
        yield opened


async def outdate(database, name: str) -> None:
    async with database.write() as tx:
        if name.startswith(topics.PREFIX):
            await topics.outdate(tx, name.removeprefix(topics.PREFIX))
        else:
            await repositories.outdate(tx, await repositories.ensure(tx, RepositoryName.parse(name), database.now()))


async def test_each_change_is_heard_once_and_under_its_own_name(database, second):
    names = [REPO.value, OTHER.value, "!accounts", "!policies"]
    for name in [*names, *reversed(names), "!accounts", "!accounts"]:
        before = {each: database.changes.mark(each) for each in names}
        await outdate(second, name)
        after = {each: database.changes.mark(each) for each in names}
        assert {each for each in names if before[each] != after[each]} == {name}
        assert None not in after.values()
        assert after == {each: database.changes.mark(each) for each in names}


async def test_a_topic_is_heard_in_the_process_that_changed_it(database):
    before = database.changes.mark("!rules")
    await outdate(database, "!rules")
    assert database.changes.mark("!rules") != before


async def test_what_is_rolled_back_changed_nothing(database, second):
    before = database.changes.mark("!rules")
    with pytest.raises(KeyError):
        async with second.write() as tx:
            await topics.outdate(tx, "rules")
            raise KeyError
    assert database.changes.mark("!rules") == before
