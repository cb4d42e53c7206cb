"""Listings on both databases: what is empty is not shown, pages meet without a gap, and no plan reads everything."""

import json

import pytest
import sqlalchemy as sa

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.reference import RepositoryName, Tag
from storage.blobs.memory import MemoryBlobs
from storage.metadata import tables
from storage.metadata.engine import open_database
from storage.metadata.repositories import MOST_TAGS
from storage.repository.store import ContentStore

INDEX = manifests.parse(json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}).encode())


def repo(name: str) -> RepositoryName:
    return RepositoryName.parse(name)


@pytest.fixture
async def database(url):
    async with open_database(url) as opened:
        yield opened


@pytest.fixture
def content(database) -> ContentStore:
    return ContentStore(database, MemoryBlobs())


async def pages(ask, limit: int) -> list[str]:
    found, last = [], None
    while True:
        page = await ask(limit=limit, last=last)
        assert len(page.names) == limit or not page.more
        found += page.names
        if not page.more:
            return found
        last = page.names[-1]


async def test_the_catalog_shows_what_holds_a_manifest_now(content):
    names = ["a", "a/b", "a-b", "a0", "b/c/d", "z"]
    for name in names:
        await content.manifests.put(repo(name), INDEX, tags=[Tag("t")])
        await content.uploads.start(repo(f"{name}-empty"))
    assert await pages(content.tags.catalog, 2) == sorted(names)
    await content.manifests.delete(repo("a0"), INDEX.digest())
    await content.tags.delete(repo("z"), Tag("t"))
    assert await pages(content.tags.catalog, 1) == ["a", "a-b", "a/b", "b/c/d", "z"]
    assert (await content.tags.catalog(limit=None, last="b")).names == ["b/c/d", "z"]
    await content.manifests.put(repo("a0"), INDEX)
    assert "a0" in await pages(content.tags.catalog, 5)


async def test_pages_of_tags_meet(content):
    wanted = sorted({f"{letter}{number}" for letter in "aZ_9" for number in range(30)})
    for first in range(0, len(wanted), 50):
        await content.manifests.put(repo("r"), INDEX, tags=[Tag(name) for name in wanted[first : first + 50]])

    async def ask(limit, last):
        return await content.tags.list(repo("r"), limit=limit, last=last)

    assert await pages(ask, 7) == wanted
    assert (await content.tags.list(repo("r"), limit=None, last=None)).names == wanted
    assert (await content.tags.list(repo("r"), limit=5, last="~")).names == []


async def test_search_ranks_and_counts(content):
    for name in ("x/app", "app", "app-two", "my-app", "other", "app/sub"):
        await content.manifests.put(repo(name), INDEX)
    await content.uploads.start(repo("app-empty"))
    found, total = await content.tags.search("App", limit=4, offset=0)
    assert ([str(item.name) for item in found], total) == (["app", "app-two", "app/sub", "x/app"], 5)
    found, total = await content.tags.search("app", limit=4, offset=4)
    assert ([str(item.name) for item in found], total) == (["my-app"], 5)
    assert await content.tags.search("app", limit=4, offset=8) == ([], 5)
    assert await content.tags.search("%", limit=4, offset=0) == ([], 0)
    assert (await content.tags.search("", limit=9, offset=0))[1] == 6


async def test_search_counts_tags_up_to_a_bound(content, database):
    await content.manifests.put(repo("many"), INDEX, tags=[Tag("one")])
    async with database.write() as tx:
        row = (await tx.execute(sa.select(tables.tags))).one()
        await tx.execute(sa.insert(tables.tags), [
            {"repository_id": row.repository_id, "name": f"t{number}", "manifest_id": row.manifest_id,
             "updated": row.updated} for number in range(MOST_TAGS + 50)])
    assert (await content.tags.search("many", limit=1, offset=0))[0][0].tags == MOST_TAGS


async def test_a_page_of_the_catalog_reads_its_own_part_of_an_index(content, database):
    """The plan, since times would tell more of the machine: no table is scanned and nothing sorted."""
    now = database.now()
    async with database.write() as tx:
        await tx.execute(sa.insert(tables.repositories), [
            {"name": f"r{number:05d}", "created": now, "pushed": now, "generation": 0, "filled": number % 50 == 0}
            for number in range(5000)])
        postgres = tx.dialect.name == "postgresql"
        if postgres:
            await tx.execute(sa.text("ANALYZE"))
        query = ("SELECT name FROM repositories WHERE filled AND name > 'r02' ORDER BY name LIMIT 20" if postgres else
                 "SELECT name FROM repositories WHERE filled = 1 AND name > 'r02' ORDER BY name LIMIT 20")
        explain = "EXPLAIN " if postgres else "EXPLAIN QUERY PLAN "
        plan = " ".join(str(row) for row in await tx.execute(sa.text(explain + query)))
    assert "ix_repositories_filled" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
    assert len((await content.tags.catalog(limit=20, last="r02")).names) == 20
