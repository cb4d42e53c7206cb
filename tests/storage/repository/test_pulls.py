"""Pulls are counted in memory and written in groups."""

from datetime import timedelta

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.gc.sweep import Collector
from storage.metadata import pulls as rows
from storage.metadata import repositories
from storage.metadata.engine import open_database
from storage.repository import pulls as module
from storage.repository.pulls import Pulls


async def known(database, repo):
    async with database.read() as tx:
        number = await repositories.find(tx, repo)
        return {} if number is None else await rows.of(tx, number)


async def test_counts_add_up_and_the_last_pull_is_kept(content, fill, database, clock):
    image = await fill.image(b"x", tags=("t",))
    for _ in range(3):
        content.pulls.note(fill.repo, Tag("t"))
    content.pulls.note(fill.repo, image.digest)
    content.pulls.note(RepositoryName.parse("never/was"), Tag("t"))
    await content.pulls.flush()
    first = await known(database, fill.repo)
    assert {reference: count for reference, (_, count) in first.items()} == {"t": 3, str(image.digest): 1}
    clock.turn(hours=1)
    content.pulls.note(fill.repo, Tag("t"))
    await content.pulls.flush()
    second = await known(database, fill.repo)
    assert second["t"][1] == 4
    assert (second["t"][0] - first["t"][0]).total_seconds() >= 3600
    assert second[str(image.digest)] == first[str(image.digest)]


async def test_it_is_written_while_it_runs_and_at_the_end(content, fill, database, until):
    await fill.image(b"x", tags=("t",))
    async with content.pulls.flushing(0.02):
        content.pulls.note(fill.repo, Tag("t"))

        async def written() -> bool:
            return bool(await known(database, fill.repo))

        await until(written)
        content.pulls.note(fill.repo, Tag("t"))
    assert (await known(database, fill.repo))["t"][1] == 2


async def test_a_flood_of_names_is_bounded_and_wakes_the_writer(content, fill, database, until, monkeypatch):
    await fill.image(b"x", tags=("t",))
    monkeypatch.setattr(module, "MOST", 3)
    async with content.pulls.flushing(3600):
        for number in range(10):
            content.pulls.note(fill.repo, Tag(f"t{number}"))

        async def written() -> bool:
            return len(await known(database, fill.repo)) == 3

        await until(written)


async def test_what_cannot_be_written_is_kept(database_url, clock, fill):
    await fill.image(b"x", tags=("t",))
    async with open_database(database_url, clock=clock) as other:
        pulls = Pulls(other)
        for number in range(700):
            pulls.note(fill.repo, Tag(f"t{number}"))
        real = other.write
        other.write = lambda: (_ for _ in ()).throw(module.SeawallError("gone"))
        await pulls.flush()
        other.write = real
        pulls.note(fill.repo, Tag("t0"))
        await pulls.flush()
        found = await known(other, fill.repo)
    assert len(found) == 700
    assert found["t0"][1] == 2


async def test_a_digest_and_a_tag_are_two(content, fill, database):
    image = await fill.image(b"x", tags=("t",))
    assert module.key(fill.repo, Tag(image.digest.encoded)) != module.key(fill.repo, Digest.of(image.raw))


async def test_what_is_gone_is_forgotten_by_a_pass(content, fill, database, blobs):
    image = await fill.image(b"x", tags=("t", "u"))
    for reference in (Tag("t"), Tag("u"), image.digest, Tag("never")):
        content.pulls.note(fill.repo, reference)
    await content.pulls.flush()
    await content.tags.delete(fill.repo, Tag("u"))
    await Collector(database, blobs).run(grace=timedelta(days=1))
    assert set(await known(database, fill.repo)) == {"t", str(image.digest)}
