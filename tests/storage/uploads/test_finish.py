"""The last chunk and the commit in one."""

import asyncio

import pytest

from ocispec.digest import Digest
from storage.errors import BlobUnknown, DigestMismatch
from storage.settings import ContentSettings
from storage.uploads.errors import OffsetMismatch, UploadUnknown
from storage.uploads.session import Uploads

DATA = bytes(range(256)) * 100


async def read(content, info) -> bytes:
    return b"".join([chunk async for chunk in content.blobs.read(info)])


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("begun", [0, 1000])
async def test_it_is_append_and_commit(content, fill, stream, algorithm, begun):
    upload = await content.uploads.start(fill.repo)
    if begun:
        await upload.append(stream(DATA[:begun]))
    info = await upload.finish(stream(DATA[begun:]), Digest.of(DATA, algorithm), at=begun)
    assert await content.blobs.stat(fill.repo, Digest.of(DATA, algorithm)) == info
    assert await read(content, info) == DATA
    with pytest.raises(UploadUnknown):
        await content.uploads.get(fill.repo, upload.id)


async def test_nothing_at_all(content, fill, stream):
    upload = await content.uploads.start(fill.repo)
    assert (await upload.finish(stream(b""), Digest.of(b""))).size == 0


async def test_a_wrong_digest_leaves_what_arrived(content, fill, stream, database):
    upload = await content.uploads.start(fill.repo)
    with pytest.raises(DigestMismatch):
        await upload.finish(stream(DATA), Digest.of(b"other"))
    again = await content.uploads.get(fill.repo, upload.id)
    assert again.offset == len(DATA)
    assert await read(content, await again.finish(stream(b"more"), Digest.of(DATA + b"more"))) == DATA + b"more"


@pytest.mark.parametrize("failure", [ConnectionResetError, KeyError, asyncio.CancelledError])
async def test_a_body_that_breaks_off_leaves_what_arrived(content, fill, failure):
    async def broken():
        yield DATA
        raise failure

    upload = await content.uploads.start(fill.repo)
    with pytest.raises(failure):
        await upload.finish(broken(), Digest.of(DATA * 2))
    again = await content.uploads.get(fill.repo, upload.id)
    assert again.offset == len(DATA)
    with pytest.raises(BlobUnknown):
        await content.blobs.stat(fill.repo, Digest.of(DATA))
    await again.commit(Digest.of(DATA))


async def test_a_place_that_is_wrong(content, fill, stream):
    upload = await content.uploads.start(fill.repo)
    with pytest.raises(OffsetMismatch):
        await upload.finish(stream(DATA), Digest.of(DATA), at=5)
    assert (await content.uploads.get(fill.repo, upload.id)).offset == 0


async def test_another_was_faster(content, fill, stream):
    upload = await content.uploads.start(fill.repo)
    await (await content.uploads.get(fill.repo, upload.id)).append(stream(DATA))
    with pytest.raises(OffsetMismatch):
        await upload.finish(stream(DATA), Digest.of(DATA))
    assert (await content.uploads.get(fill.repo, upload.id)).offset == len(DATA)


async def test_checkpoints_on_the_way_and_what_is_held_already(database, blobs, fill, stream, content):
    uploads = Uploads(database, blobs, ContentSettings(upload_batch=1000, checkpoint_bytes=2000),
                      content.uploads._quotas)
    first = await (await uploads.start(fill.repo)).finish(stream(DATA), Digest.of(DATA))
    second = await (await uploads.start(fill.repo)).finish(stream(DATA), Digest.of(DATA))
    assert first == second
    assert [item.key async for item in blobs.list()] == [first.key]
