"""A key that was sealed and whose commit then did not happen: the session goes on where its row says."""

import pytest

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.metadata.rules import QuotaRule
from storage.repository.store import ContentStore
from storage.rules.refusals import QuotaExceeded
from storage.rules.service import Rules
from storage.settings import ContentSettings

REPO = RepositoryName.parse("team/app")
SMALL = ContentSettings(upload_batch=10_000, checkpoint_bytes=50_000)
DATA = bytes(range(256)) * 300


@pytest.fixture
async def sealed(database, blobs, stream):
    """A session whose bytes were sealed beyond its last checkpoint, when a quota refused the commit."""
    rules = Rules(database)
    content = ContentStore(database, blobs, SMALL, rules=rules)
    await rules.put(QuotaRule("team", len(DATA) - 1))
    upload = await content.uploads.start(REPO)
    with pytest.raises(QuotaExceeded):
        await upload.finish(stream(DATA), Digest.of(DATA))
    assert 0 < upload.offset < len(DATA)
    return rules, upload


async def test_what_is_committed_then_is_what_the_row_says_and_no_byte_more(sealed, blobs):
    _, upload = sealed
    expected = DATA[: upload.offset]
    info = await upload.commit(Digest.of(expected))
    assert blobs.path(info.key).read_bytes() == expected
    assert [item.key async for item in blobs.list()] == [info.key]


async def test_the_client_may_go_on(sealed, blobs, stream):
    rules, upload = sealed
    await rules.put(QuotaRule("team", len(DATA)))
    assert await upload.append(stream(DATA[upload.offset :]), at=upload.offset) == len(DATA)
    info = await upload.commit(Digest.of(DATA))
    assert blobs.path(info.key).read_bytes() == DATA
    assert [item.key async for item in blobs.list()] == [info.key]
