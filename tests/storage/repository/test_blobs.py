"""Blobs of repositories: reached only through a repository that holds them."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.blobs.memory import MemoryBlobs
from storage.errors import BlobUnknown, StoreFull
from storage.metadata.tables import blobs as blob_table
from storage.repository.store import ContentStore

HERE, THERE = RepositoryName.parse("team/here"), RepositoryName.parse("team/there")


async def read(content, info, *ranged) -> bytes:
    return b"".join([chunk async for chunk in content.blobs.read(info, *ranged)])


async def test_read_whole_and_in_part(content, fill, blobs):
    info = await fill.blob(b"0123456789")
    assert await read(content, info) == b"0123456789"
    assert await read(content, info, 3, 4) == b"3456"
    assert content.blobs.local_path(info).read_bytes() == b"0123456789"


async def test_a_store_without_files_has_no_local_path(database):
    content = ContentStore(database, MemoryBlobs())
    upload = await content.uploads.start(HERE)
    assert content.blobs.local_path(await upload.commit(Digest.of(b""))) is None


async def test_other_repositories_do_not_see_it(content, fill):
    info = await fill.blob(b"secret", repo=THERE)
    for repo in (HERE, RepositoryName.parse("nobody/knows")):
        with pytest.raises(BlobUnknown):
            await content.blobs.stat(repo, info.digest)
    assert await content.blobs.has_any(info.digest) == info
    assert await content.blobs.has_any(Digest.of(b"other")) is None


async def test_mount_needs_a_source_that_holds_it(content, fill):
    info = await fill.blob(b"layer", repo=THERE)
    assert await content.blobs.mount(HERE, info.digest, HERE) is None
    assert await content.blobs.mount(HERE, info.digest, RepositoryName.parse("no/such")) is None
    with pytest.raises(BlobUnknown):
        await content.blobs.stat(HERE, info.digest)
    assert await content.blobs.mount(HERE, info.digest, THERE) == info
    assert await content.blobs.stat(HERE, info.digest) == info


async def test_who_holds_a_blob(content, fill):
    info = await fill.blob(b"layer", repo=THERE)
    await content.blobs.mount(HERE, info.digest, THERE)
    assert await content.blobs.holders(info.digest, 10) == [THERE, HERE]
    assert await content.blobs.holders(info.digest, 1) == [THERE]
    assert await content.blobs.holders(Digest.of(b"nothing"), 10) == []


async def test_link_makes_held_content_part_of_a_repository(content, fill):
    info = await fill.blob(b"layer", repo=THERE)
    assert await content.blobs.link(HERE, info.digest) == info
    assert await content.blobs.link(HERE, info.digest) == info
    with pytest.raises(BlobUnknown):
        await content.blobs.link(HERE, Digest.of(b"nothing"))


async def test_delete_unlinks_here_and_leaves_the_others(content, fill):
    info = await fill.blob(b"layer", repo=HERE)
    await content.blobs.mount(THERE, info.digest, HERE)
    await content.blobs.stat(HERE, info.digest)
    await content.blobs.delete(HERE, info.digest)
    with pytest.raises(BlobUnknown):
        await content.blobs.stat(HERE, info.digest)
    with pytest.raises(BlobUnknown):
        await content.blobs.delete(HERE, info.digest)
    assert await read(content, await content.blobs.stat(THERE, info.digest)) == b"layer"


async def test_deleted_and_pushed_again(content, fill):
    info = await fill.blob(b"layer")
    await content.blobs.delete(fill.repo, info.digest)
    assert await fill.blob(b"layer") == info
    assert await content.blobs.stat(fill.repo, info.digest) == info


async def touched(database, digest):
    async with database.read() as tx:
        return await tx.scalar(sa.select(blob_table.c.touched).where(blob_table.c.digest == digest))


async def test_an_answer_is_a_promise_that_is_written_down_at_most_every_half_hour(content, fill, database, clock):
    info = await fill.blob(b"layer")
    first = await touched(database, info.digest)
    clock.turn(minutes=20)
    await content.blobs.stat(fill.repo, info.digest)
    assert await touched(database, info.digest) == first
    clock.turn(minutes=20)
    await asyncio.gather(*(content.blobs.stat(fill.repo, info.digest) for _ in range(20)))
    assert await touched(database, info.digest) - first >= timedelta(minutes=40)


async def test_reading_goes_on_when_the_promise_cannot_be_written(content, fill, database, clock, monkeypatch, caplog):
    info = await fill.blob(b"layer")
    clock.turn(hours=1)

    @asynccontextmanager
    async def full(*, beside):
        raise StoreFull("the metadata database took no more rows")
        yield

    monkeypatch.setattr(database, "write", full)
    assert await asyncio.gather(*(content.blobs.stat(fill.repo, info.digest) for _ in range(3))) == [info] * 3
    assert "took no more rows" in caplog.text
    monkeypatch.undo()
    first = await touched(database, info.digest)
    clock.turn(hours=1)
    await content.blobs.stat(fill.repo, info.digest)
    assert await touched(database, info.digest) > first


async def test_names_are_bound_not_pasted(content):
    """A RepositoryName that was never parsed still cannot become SQL."""
    evil = RepositoryName("x' OR '1'='1")
    with pytest.raises(BlobUnknown):
        await content.blobs.stat(evil, Digest.of(b"x"))
