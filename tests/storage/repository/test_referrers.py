"""Who refers to a manifest: pages, filters, and what was listed by the old scheme."""

import json

import pytest

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.digest import ALGORITHMS, Digest
from ocispec.reference import RepositoryName, Tag, referrers_tag
from storage.metadata.referrers import Wanted
from storage.repository import referrers

OTHER = RepositoryName.parse("team/other")
LARGE = 1 << 30


async def every(content, repo, wanted: Wanted, *, limit: int = 100, room: int = LARGE):
    page = await content.referrers.page(repo, wanted, limit=limit, room=room)
    assert not page.more
    return page.found


async def pages(content, repo, subject: Digest, *, limit: int = 100, room: int = LARGE, kind=None) -> list[list[Digest]]:
    """The digests, page by page."""
    found, after = [], None
    while True:
        page = await content.referrers.page(repo, Wanted(subject, kind, after), limit=limit, room=room)
        found.append([item.digest for item in page.found])
        if not page.more:
            return found
        after = page.found[-1].digest


async def test_an_absent_subject_is_accepted_and_its_referrers_are_listed(content, fill, make_image):
    subject = make_image(await fill.blob(b"{}"), await fill.blob(b"later"))
    descriptor = subject.descriptor(subject.digest())
    sbom = await fill.image(b"sbom", subject=descriptor, artifact_type="application/sbom")
    signature = await fill.image(b"signature", subject=descriptor)
    found = await every(content, fill.repo, Wanted(subject.digest()))
    assert [item.digest for item in found] == sorted([sbom.digest, signature.digest], key=str)
    (only,) = await every(content, fill.repo, Wanted(subject.digest(), "application/sbom"))
    assert (only.digest, only.media_type, only.size) == (sbom.digest, sbom.media_type, len(sbom.raw))
    assert json.loads(only.annotations) == {"made": "here"}
    (only,) = await every(content, fill.repo, Wanted(subject.digest(), mediatype.OCI_CONFIG))
    assert only.digest == signature.digest  # the type of an image without one is its config's
    assert await every(content, fill.repo, Wanted(Digest.of(b"nobody"))) == []
    assert await every(content, OTHER, Wanted(subject.digest())) == []
    await content.manifests.delete(fill.repo, sbom.digest)
    assert len(await every(content, fill.repo, Wanted(subject.digest()))) == 1


async def _refer(content, fill, subject: Digest, count: int, **fields) -> list[Digest]:
    """So many manifests about `subject`, in the order of their digests."""
    config = await fill.blob(b"{}")
    made = []
    for number in range(count):
        document = {
            "schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "layers": [],
            "config": {"mediaType": mediatype.OCI_EMPTY, "digest": str(config.digest), "size": 2},
            "subject": {"mediaType": mediatype.OCI_MANIFEST, "digest": str(subject), "size": 1},
            "annotations": {"number": str(number)}, **fields}
        stored = await content.manifests.put(fill.repo, manifests.parse(json.dumps(document).encode()))
        made.append(stored.digest)
    return sorted(made, key=str)


@pytest.mark.parametrize("batch", [2, 1000])
async def test_pages(content, fill, monkeypatch, batch):
    monkeypatch.setattr(referrers, "BATCH", batch)
    subject = Digest.of(b"subject")
    made = await _refer(content, fill, subject, 7)
    assert await pages(content, fill.repo, subject) == [made]
    assert await pages(content, fill.repo, subject, limit=7) == [made]
    assert await pages(content, fill.repo, subject, limit=3) == [made[:3], made[3:6], made[6:]]
    assert await pages(content, fill.repo, subject, limit=0) == [[]]
    assert await pages(content, fill.repo, subject, room=1) == [[digest] for digest in made]
    by_room = await pages(content, fill.repo, subject, room=700)
    assert [digest for page in by_room for digest in page] == made
    assert {len(page) for page in by_room} == {1, 2}
    await content.manifests.delete(fill.repo, made[2])  # the end of a page may go before the next is asked for
    page = await content.referrers.page(fill.repo, Wanted(subject, None, made[2]), limit=3, room=LARGE)
    assert [item.digest for item in page.found] == made[3:6]


async def test_large_annotations_come_when_there_is_room(content, fill):
    subject = Digest.of(b"subject")
    sizes = [10, 5000, 100_000, 20]
    for size in sizes:
        await _refer(content, fill, subject, 1, annotations={"x": "y" * size})
    found = await every(content, fill.repo, Wanted(subject))
    assert sorted(len(json.loads(item.annotations)["x"]) for item in found) == sorted(sizes)
    by_room = await pages(content, fill.repo, subject, room=6000)
    assert [digest for page in by_room for digest in page] == [item.digest for item in found]
    assert len(by_room) > 1


async def test_a_filter_counts_only_what_it_lets_through(content, fill):
    subject = Digest.of(b"subject")
    signatures = await _refer(content, fill, subject, 5, artifactType="a/signature")
    sboms = await _refer(content, fill, subject, 5, artifactType="a/sbom")
    assert await pages(content, fill.repo, subject, limit=3, kind="a/sbom") == [sboms[:3], sboms[3:]]
    assert await pages(content, fill.repo, subject, limit=5, kind="a/signature") == [signatures]
    assert await pages(content, fill.repo, subject, kind="a/other") == [[]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_referrers_listed_by_the_old_scheme_are_adopted(content, fill, make_index, algorithm):
    """Before and after: what the tagged index lists is there, once, without what refers elsewhere, also by page."""
    subject = Digest.of(b"subject", algorithm)
    named = await _refer(content, fill, subject, 3)
    elsewhere = await _refer(content, fill, Digest.of(b"another"), 1)
    silent = await fill.image(b"no subject", artifact_type="a/sbom")
    listed = [await content.manifests.get(fill.repo, digest) for digest in (*named[:2], *elsewhere, silent.digest)]
    tag = referrers_tag(subject)
    assert str(tag) == f"{algorithm}-{subject.encoded[:64]}"
    assert await pages(content, fill.repo, subject) == [named]
    await content.manifests.put(fill.repo, make_index(*listed), tags=[tag])
    expected = sorted([*named, silent.digest], key=str)
    assert await pages(content, fill.repo, subject) == [expected]
    assert await pages(content, fill.repo, subject, limit=3) == [expected[:3], expected[3:]]
    assert await pages(content, fill.repo, subject, kind="a/sbom") == [[silent.digest]]
    await content.tags.delete(fill.repo, tag)
    assert await pages(content, fill.repo, subject) == [named]


async def test_what_an_old_list_names_and_the_repository_lacks_is_not_shown(content, fill, make_index):
    subject, lost = Digest.of(b"subject"), await fill.image(b"lost")
    listing = make_index(lost)
    await content.manifests.put(fill.repo, listing, tags=[referrers_tag(subject)])
    await content.manifests.delete(fill.repo, lost.digest)
    assert await pages(content, fill.repo, subject) == [[]]


async def test_a_tag_that_is_no_list(content, fill):
    """An image under such a tag lists nobody."""
    subject = Digest.of(b"subject")
    await fill.image(b"layer", tags=(str(referrers_tag(subject)),))
    assert await pages(content, fill.repo, subject) == [[]]
    assert await content.manifests.resolve(fill.repo, Tag(f"sha256-{subject.encoded}"))
