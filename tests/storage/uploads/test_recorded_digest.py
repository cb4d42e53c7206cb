"""A commit where the hash is not in memory: by another process, or after a restart."""

import pytest

from ocispec.digest import Digest
from storage.errors import DigestMismatch
from storage.repository.store import ContentStore

DATA = b"0123456789" * 1000


async def in_another_process(database, blobs, repo, upload):
    """The session as a process sees it that has hashed none of it."""
    return await ContentStore(database, blobs).uploads.get(repo, upload.id)


async def test_nothing_is_read_back(content, database, blobs, fill, stream, monkeypatch) -> None:
    upload = await content.uploads.start(fill.repo)
    await upload.append(stream(DATA[:5000]))
    await upload.append(stream(DATA[5000:]))
    other = await in_another_process(database, blobs, fill.repo, upload)
    monkeypatch.setattr(blobs, "read", lambda *_: pytest.fail("read back"))
    with pytest.raises(DigestMismatch):
        await other.commit(Digest.of(b"something else"))
    assert (await other.commit(Digest.of(DATA))).size == len(DATA)


async def test_what_came_after_a_restart_counts(content, database, blobs, fill, stream) -> None:
    upload = await content.uploads.start(fill.repo)
    await upload.append(stream(DATA[:5000]))
    other = await in_another_process(database, blobs, fill.repo, upload)
    await other.append(stream(DATA[5000:]))
    with pytest.raises(DigestMismatch):
        await upload.commit(Digest.of(DATA[:5000]))
    assert (await upload.commit(Digest.of(DATA))).size == len(DATA)


async def test_another_algorithm_than_it_was_hashed_with(content, database, blobs, fill, stream) -> None:
    upload = await content.uploads.start(fill.repo, "sha256")
    await upload.append(stream(DATA))
    other = await in_another_process(database, blobs, fill.repo, upload)
    assert (await other.commit(Digest.of(DATA, "sha512"))).digest.algorithm == "sha512"
