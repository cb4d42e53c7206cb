"""Manifests and tags: exact bytes, all or nothing, and never from a stale memory."""

import asyncio
import json

import pytest

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.digest import ALGORITHMS, Digest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.disk import DiskBlobs
from storage.blobs.store import StorageKey
from storage.errors import DigestMismatch, RepositoryUnknown
from storage.metadata.blobs import BlobInfo
from storage.metadata.engine import open_database
from storage.metadata.manifests import StoredManifest
from storage.repository.manifests import ManifestBlobUnknown, ManifestSizeMismatch, ManifestUnknown
from storage.repository.store import ContentStore
from storage.settings import ContentSettings

OTHER = RepositoryName.parse("team/other")
LATEST = Tag("latest")


def absent(data: bytes) -> BlobInfo:
    return BlobInfo(Digest.of(data), len(data), StorageKey("0" * 32))


async def test_exactly_the_bytes_that_were_pushed(content, fill):
    config = await fill.blob(b"{}")
    raw = json.dumps({
        "layers": [], "config": {"size": 2, "digest": str(config.digest), "mediaType": mediatype.OCI_CONFIG},
        "schemaVersion": 2, "x-unknown": {"ü": [1, 2.50]}}, indent=3).encode()
    stored = await content.manifests.put(fill.repo, manifests.parse(raw, mediatype.OCI_MANIFEST), tags=[LATEST])
    for reference in (LATEST, stored.digest, Digest.of(raw)):
        assert await content.manifests.get(fill.repo, reference) == StoredManifest(
            Digest.of(raw), mediatype.OCI_MANIFEST, raw)
    assert await content.manifests.resolve(fill.repo, LATEST) == stored.digest


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_digest_that_was_asked_for_names_it(content, fill, make_image, algorithm):
    manifest = make_image(await fill.blob(b"{}"))
    digest = Digest.of(manifest.raw, algorithm)
    assert (await content.manifests.put(fill.repo, manifest, digest=digest)).digest == digest
    assert (await content.manifests.get(fill.repo, digest)).raw == manifest.raw
    with pytest.raises(DigestMismatch):
        await content.manifests.put(fill.repo, manifest, digest=Digest.of(b"other", algorithm))


async def test_missing_content_is_named_and_nothing_is_stored(content, fill, make_image):
    config = await fill.blob(b"{}")
    layers = [absent(b"one"), absent(b"two"), absent(b"one")]
    with pytest.raises(ManifestBlobUnknown) as caught:
        await content.manifests.put(fill.repo, make_image(config, *layers), tags=[LATEST])
    assert caught.value.missing == [layers[0].digest, layers[1].digest]
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(fill.repo, LATEST)
    assert (await content.tags.catalog(limit=None, last=None)).names == []


async def test_content_of_another_repository_is_missing_here(content, fill, make_image):
    config = await fill.blob(b"{}", repo=OTHER)
    with pytest.raises(ManifestBlobUnknown):
        await content.manifests.put(fill.repo, make_image(config))


async def test_layers_that_may_not_be_distributed_may_be_absent(content, fill, make_image):
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    await content.manifests.put(fill.repo, make_image(await fill.blob(b"{}"), absent(b"win"), layer_type=foreign))


async def test_a_wrong_size_is_refused(content, fill, make_image):
    config = await fill.blob(b"{}")
    with pytest.raises(ManifestSizeMismatch):
        await content.manifests.put(fill.repo, make_image(BlobInfo(config.digest, 3, config.key)))


async def test_an_index_needs_its_manifests_unless_told_otherwise(content, fill, make_index):
    child = await fill.image(b"layer")
    lost = StoredManifest(Digest.of(b"lost"), mediatype.OCI_MANIFEST, b"lost")
    with pytest.raises(ManifestBlobUnknown) as caught:
        await content.manifests.put(fill.repo, make_index(child, lost))
    assert caught.value.missing == [lost.digest]
    await content.manifests.put(fill.repo, make_index(child, lost), require_children=False)


async def test_more_layers_than_one_statement_binds(content, fill, make_image):
    config = await fill.blob(b"{}")
    layer = await fill.blob(b"layer")
    with pytest.raises(ManifestBlobUnknown) as caught:
        await content.manifests.put(fill.repo, make_image(config, layer, *(absent(b"%d" % n) for n in range(1200))))
    assert len(caught.value.missing) == 1200


async def test_a_manifest_belongs_to_its_repository(content, fill):
    stored = await fill.image(b"layer", tags=("latest",))
    for reference in (stored.digest, LATEST):
        with pytest.raises(ManifestUnknown):
            await content.manifests.get(OTHER, reference)
        assert content.manifests.cached(OTHER, reference) is None
    with pytest.raises(ManifestUnknown):
        await content.tags.put(OTHER, LATEST, stored.digest)


async def test_delete_takes_its_tags_and_no_others(content, fill):
    first = await fill.image(b"one", tags=("a", "b"))
    second = await fill.image(b"two", tags=("c",))
    await content.manifests.delete(fill.repo, first.digest)
    assert (await content.tags.list(fill.repo, limit=None, last=None)).names == ["c"]
    for gone in (first.digest, Tag("a")):
        with pytest.raises(ManifestUnknown):
            await content.manifests.get(fill.repo, gone)
    with pytest.raises(ManifestUnknown):
        await content.manifests.delete(fill.repo, first.digest)
    assert await content.manifests.resolve(fill.repo, Tag("c")) == second.digest


async def test_deleting_a_tag_leaves_the_manifest(content, fill):
    stored = await fill.image(b"one", tags=("a", "b"))
    assert await content.tags.delete(fill.repo, Tag("a")) == stored.digest
    for repo, tag in ((fill.repo, Tag("a")), (OTHER, Tag("b"))):
        with pytest.raises(ManifestUnknown):
            await content.tags.delete(repo, tag)
    assert await content.manifests.resolve(fill.repo, Tag("b")) == stored.digest
    assert await content.manifests.get(fill.repo, stored.digest) == stored


async def test_memory_answers_until_something_changes(content, fill):
    first = await fill.image(b"one", tags=("latest",))
    assert content.manifests.cached(fill.repo, LATEST) is None
    assert await content.manifests.get(fill.repo, LATEST) == first
    assert content.manifests.cached(fill.repo, LATEST) == first
    await fill.image(b"elsewhere", tags=("latest",), repo=OTHER)
    await fill.image(b"beside", tags=("new",))
    assert content.manifests.cached(fill.repo, LATEST) == first, "what only adds outdates nothing"
    second = await fill.image(b"two", tags=("latest",))
    assert content.manifests.cached(fill.repo, LATEST) is None
    assert await content.manifests.get(fill.repo, LATEST) == second
    await content.tags.put(fill.repo, LATEST, first.digest)
    assert await content.manifests.get(fill.repo, LATEST) == first
    await content.tags.delete(fill.repo, LATEST)
    assert content.manifests.cached(fill.repo, LATEST) is None
    assert await content.manifests.get(fill.repo, first.digest) == first
    await content.manifests.delete(fill.repo, first.digest)
    assert content.manifests.cached(fill.repo, first.digest) is None


async def test_what_another_process_did_is_seen_by_the_next_read(content, fill, database_url, tmp_path):
    async with open_database(database_url) as second:
        elsewhere = ContentStore(second, DiskBlobs(tmp_path / "content"))
        images = [await fill.image(b"%d" % number, tags=(f"v{number}",)) for number in range(2)]
        for turn in range(50):
            wanted = images[turn % 2]
            await elsewhere.tags.put(fill.repo, LATEST, wanted.digest)
            assert content.manifests.cached(fill.repo, LATEST) in (None, wanted)
            assert await content.manifests.get(fill.repo, LATEST) == wanted
            assert content.manifests.cached(fill.repo, LATEST) == wanted
        await elsewhere.manifests.delete(fill.repo, images[1].digest)
        for reference in (LATEST, images[1].digest):
            assert content.manifests.cached(fill.repo, reference) is None
            with pytest.raises(ManifestUnknown):
                await content.manifests.get(fill.repo, reference)


async def test_a_read_that_began_before_a_change_is_not_remembered(content, fill, database, monkeypatch):
    """The race that fills caches with what was just deleted."""
    first = await fill.image(b"one", tags=("latest",))
    second = await fill.image(b"two")
    real = content.manifests._find

    async def slow(repo, reference):
        row = await real(repo, reference)
        await content.tags.put(repo, LATEST, second.digest)
        return row

    monkeypatch.setattr(content.manifests, "_find", slow)
    assert await content.manifests.get(fill.repo, LATEST) == first
    monkeypatch.setattr(content.manifests, "_find", real)
    assert await content.manifests.get(fill.repo, LATEST) == second


async def test_memory_is_bounded_by_bytes(database, blobs, fill):
    content = ContentStore(database, blobs, ContentSettings(cache_bytes=5000))
    stored = [await fill.image(b"%d" % number, tags=(f"v{number}",)) for number in range(20)]
    for number in range(20):
        await content.manifests.get(fill.repo, Tag(f"v{number}"))
    cache = content.manifests._cache
    assert 0 < cache._cost <= 5000
    assert cache._cost == sum(entry.cost for entry in cache._entries.values())
    assert content.manifests.cached(fill.repo, Tag("v19")) == stored[19]
    assert content.manifests.cached(fill.repo, Tag("v0")) is None


async def test_concurrent_pushes_of_one_tag_leave_one_of_them(content, fill):
    images = [await fill.image(b"%d" % number) for number in range(10)]
    await asyncio.gather(*(content.tags.put(fill.repo, LATEST, stored.digest) for stored in images))
    parsed = [manifests.parse(stored.raw) for stored in images]
    await asyncio.gather(*(content.manifests.put(fill.repo, manifest, tags=[LATEST]) for manifest in parsed))
    assert await content.manifests.get(fill.repo, LATEST) in images
    assert len((await content.tags.list(fill.repo, limit=None, last=None)).names) == 1


async def test_tag_pages_are_in_code_point_order(content, fill):
    names = ["Z", "_x", "a", "a-1", "a.1", "a1", "b", "B", "0"]
    await fill.image(b"x", tags=tuple(names))
    expected = sorted(names)
    assert (await content.tags.list(fill.repo, limit=None, last=None)).names == expected
    seen, last, pages = [], None, 0
    while True:
        page = await content.tags.list(fill.repo, limit=4, last=last)
        seen += page.names
        pages += 1
        if not page.more:
            break
        last = page.names[-1]
    assert (seen, pages) == (expected, 3)
    assert (await content.tags.list(fill.repo, limit=9, last=None)).more is False
    assert (await content.tags.list(fill.repo, limit=0, last=None)).names == []
    assert (await content.tags.list(fill.repo, limit=0, last=None)).more is False
    assert (await content.tags.list(fill.repo, limit=5, last="zzz")).names == []
    with pytest.raises(RepositoryUnknown):
        await content.tags.list(OTHER, limit=None, last=None)


async def test_catalog_names_repositories_with_manifests(content, fill):
    for name in ("b", "a/z", "a", "c"):
        await fill.image(b"x", tags=("t",), repo=RepositoryName.parse(name))
    await fill.blob(b"only a blob", repo=RepositoryName.parse("empty"))
    assert (await content.tags.catalog(limit=None, last=None)).names == ["a", "a/z", "b", "c"]
    page = await content.tags.catalog(limit=2, last="a")
    assert (page.names, page.more) == (["a/z", "b"], True)


async def test_search_ranks_and_counts(content, fill):
    for name in ("lib/nginx-extra", "nginx", "mynginx", "web/nginx", "redis", "a_b", "axb"):
        await fill.image(b"x", tags=("a", "b"), repo=RepositoryName.parse(name))
    found, total = await content.tags.search("NGINX", limit=10, offset=0)
    assert [str(summary.name) for summary in found] == ["nginx", "lib/nginx-extra", "web/nginx", "mynginx"]
    assert (total, found[0].tags) == (4, 2)
    page, total = await content.tags.search("nginx", limit=1, offset=1)
    assert ([str(summary.name) for summary in page], total) == (["lib/nginx-extra"], 4)
    assert [str(s.name) for s in (await content.tags.search("a_b", limit=10, offset=0))[0]] == ["a_b"], "no wildcards"
    assert await content.tags.search("%", limit=10, offset=0) == ([], 0)


async def test_rows_over_all_repositories(content, fill):
    first = await fill.image(b"one", tags=("a", "b"))
    await fill.image(b"two", tags=("c",), repo=OTHER)
    await fill.image(b"one", tags=("d",), repo=OTHER)
    assert [(str(row.repo), str(row.tag)) for row in await content.tags.all()] == [
        ("team/app", "a"), ("team/app", "b"), ("team/other", "c"), ("team/other", "d")]
    assert [(str(row.repo), str(row.tag)) for row in await content.tags.by_digest(first.digest)] == [
        ("team/app", "a"), ("team/app", "b"), ("team/other", "d")]
