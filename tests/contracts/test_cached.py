"""What is kept of other registries, on SQLite and Postgres alike."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.memory import MemoryBlobs
from storage.blobs.store import StorageKey
from storage.gc.sweep import Collector
from storage.metadata.engine import Database, open_database
from storage.repository.cached import CachedContent, FillClaims
from storage.repository.manifests import ManifestUnknown
from storage.repository.store import ContentStore

REPO, V1, BLOB = RepositoryName("up.test/app"), Tag("v1"), Digest.of(b"blob")


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url) as opened:
        yield opened


def image(*layers: bytes) -> manifests.Manifest:
    def part(kind: str, data: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}

    return manifests.parse(json.dumps({
        "schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": part(mediatype.OCI_CONFIG, b"{}"),
        "layers": [part(mediatype.OCI_LAYER, layer) for layer in layers]}).encode())


async def test_a_manifest_comes_before_what_it_names(database) -> None:
    content = ContentStore(database, MemoryBlobs())
    cached = CachedContent(database, content.rules)
    first, second = image(b"one"), image(b"two")
    await cached.keep(REPO, first, first.digest(), V1)
    assert (await content.manifests.get(REPO, V1)).digest == first.digest()
    await cached.keep(REPO, second, second.digest(), V1)
    assert (await content.manifests.get(REPO, V1)).digest == second.digest()
    assert await cached.confirm(REPO, V1, first.digest())
    assert (await content.manifests.get(REPO, V1)).digest == first.digest()
    assert not await cached.confirm(REPO, V1, BLOB)
    (tag,) = await cached.tags(REPO, limit=10)
    assert (tag.tag, tag.digest) == (V1, first.digest())
    assert await cached.tags(REPO, limit=10, after="v1") == []
    found = await cached.find(REPO, V1)
    assert found == tag
    await cached.used(REPO, V1)
    assert (await cached.find(REPO, V1)).used >= tag.used
    await cached.forget(REPO, V1)
    await cached.forget(REPO, V1)
    assert await cached.find(REPO, V1) is None
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(REPO, V1)
    assert (await content.manifests.get(REPO, first.digest())).raw == first.raw


async def test_an_index_tells_platforms(database) -> None:
    content = ContentStore(database, MemoryBlobs())
    cached = CachedContent(database, content.rules)
    child = image(b"arm")
    index = manifests.parse(json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [
        {"mediaType": child.media_type, "digest": str(child.digest()), "size": len(child.raw),
         "platform": {"os": "linux", "architecture": "arm64"}}]}).encode())
    assert await cached.platform(REPO, child.digest()) is None
    await cached.keep(REPO, index, index.digest())
    assert await cached.platform(REPO, child.digest()) == Platform("linux", "arm64")
    assert await cached.platform(RepositoryName("up.test/other"), child.digest()) is None


async def test_unused_tags_go_and_others_stay(database) -> None:
    content = ContentStore(database, MemoryBlobs())
    cached = CachedContent(database, content.rules)
    kept, own = image(b"one"), RepositoryName("team/own")
    await cached.keep(REPO, kept, kept.digest(), V1)
    upload = await content.uploads.start(own)
    await upload.commit(Digest.of(b""))
    pushed = manifests.parse(json.dumps({
        "schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "layers": [],
        "config": {"mediaType": mediatype.OCI_CONFIG, "digest": str(Digest.of(b"")), "size": 0}}).encode())
    await content.manifests.put(own, pushed, tags=[V1])
    assert await cached.drop_unused(timedelta(hours=1)) == 0
    assert await cached.drop_unused(timedelta(0)) == 1
    await Collector(database, MemoryBlobs()).run(grace=timedelta(0))
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(REPO, kept.digest())
    assert (await content.manifests.get(own, V1)).digest == pushed.digest()


async def test_one_process_brings_a_blob_and_the_next_goes_on(database) -> None:
    one, two = (FillClaims(database, timedelta(minutes=1)) for _ in range(2))
    assert (await one.claim(REPO, BLOB)).owner == one.owner
    assert (await two.claim(REPO, BLOB)).owner == one.owner
    await one.publish(REPO, BLOB, upload_id="u", key=StorageKey("k"), size=7)
    await two.publish(REPO, BLOB, upload_id="x", key=None, size=None)  # not theirs: changes nothing
    await one.renew()
    row = await two.find(REPO, BLOB)
    assert row is not None
    assert (row.owner, row.upload_id, row.key, row.size) == (one.owner, "u", "k", 7)
    await one.release(REPO, BLOB, resumable=True)
    assert await two.find(REPO, BLOB) is None
    taken = await two.claim(REPO, BLOB)
    assert (taken.owner, taken.upload_id, taken.size) == (two.owner, "u", 7)
    await one.release(REPO, BLOB, resumable=False)  # no longer theirs
    assert await one.find(REPO, BLOB) is not None
    await two.release(REPO, BLOB, resumable=False)
    assert (await one.claim(REPO, BLOB)).upload_id is None


async def test_a_claim_that_is_not_renewed_is_anybodys(database) -> None:
    one, two = FillClaims(database, timedelta(0)), FillClaims(database, timedelta(minutes=1))
    await one.claim(REPO, BLOB)
    assert (await two.claim(REPO, BLOB)).owner == two.owner
