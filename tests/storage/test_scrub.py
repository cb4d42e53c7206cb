"""Reading all stored bytes back: what is found, what is not mistaken for damage, and that damage heals."""

import asyncio
import os
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ocispec import manifest as manifests
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.store import StoreUnavailable
from storage.errors import BlobUnknown
from storage.gc.sweep import Collector
from storage.metadata import tables
from storage.repository.manifests import ManifestBlobUnknown
from storage.repository.store import ContentStore
from storage.scrub import Fault, Scrubber, ScrubOptions

OTHER = RepositoryName.parse("team/other")


@pytest.fixture
def scrub(database, blobs):
    """`await scrub(...)`: the report and the damages, by digest."""

    async def run(**options):
        found = []
        report = await Scrubber(database, blobs).run(ScrubOptions(**options), found.append)
        return report, {damage.digest: damage for damage in found}

    return run


def overwrite(blobs, info, data: bytes) -> None:
    path = blobs.path(info.key)
    path.chmod(0o640)
    path.write_bytes(data)


async def read(content, repo, digest) -> bytes:
    info = await content.blobs.stat(repo, digest)
    return b"".join([chunk async for chunk in content.blobs.read(info)])


async def test_a_sound_store_is_sound(scrub, fill):
    await fill.image(b"layer", tags=("latest",))
    await fill.blob(b"by sha512", algorithm="sha512")
    await fill.blob(b"")
    report, found = await scrub()
    assert found == {}
    assert (report.blobs, report.bytes, report.manifests, report.damaged) == (4, 16, 1, 0)


@pytest.mark.parametrize(("change", "fault"), [
    (lambda blobs, info: overwrite(blobs, info, b"lAyer"), Fault.CHANGED),
    (lambda blobs, info: overwrite(blobs, info, b"lay"), Fault.CUT),
    (lambda blobs, info: overwrite(blobs, info, b""), Fault.CUT),
    (lambda blobs, info: overwrite(blobs, info, b"layers"), Fault.CUT),
    (lambda blobs, info: blobs.path(info.key).unlink(), Fault.MISSING),
])
async def test_damage_is_named_with_all_that_it_hits(scrub, fill, blobs, change, fault):
    image = await fill.image(b"layer", tags=("latest", "v1"))
    above = await fill.index(image, tags=("multi",))
    layer = await fill.blob(b"layer", repo=OTHER)
    await fill.image(b"sound", tags=("sound",))
    change(blobs, layer)
    report, found = await scrub()
    (damage,) = found.values()
    assert report.damaged == 1
    assert (damage.fault, damage.digest, damage.where) == (fault, layer.digest, layer.key)
    assert damage.repositories == (fill.repo, OTHER)
    assert {(item.manifest, item.tags) for item in damage.affected} == {
        (image.digest, (Tag("latest"), Tag("v1"))), (above.digest, (Tag("multi"),))}
    assert not damage.quarantined


async def test_quarantined_it_is_not_served_and_uploaded_again_it_heals_everywhere(scrub, fill, content, blobs,
                                                                                   database):
    image = await fill.image(b"layer", tags=("latest",))
    layer = await fill.blob(b"layer", repo=OTHER)
    await content.blobs.stat(fill.repo, layer.digest)  # remembered
    overwrite(blobs, layer, b"lAyer")
    _, found = await scrub(quarantine=True)
    assert found[layer.digest].quarantined
    for repo in (fill.repo, OTHER):
        with pytest.raises(BlobUnknown):
            await content.blobs.stat(repo, layer.digest)
    assert await content.blobs.mount(RepositoryName.parse("third"), layer.digest, fill.repo) is None
    with pytest.raises(ManifestBlobUnknown):
        await content.manifests.put(fill.repo, manifests.parse(image.raw))
    await fill.blob(b"layer")
    for repo in (fill.repo, OTHER):
        assert await read(content, repo, layer.digest) == b"layer"
    assert (await scrub())[1] == {}
    await Collector(database, blobs).run(grace=timedelta(hours=1))
    assert not blobs.path(layer.key).exists()
    assert await read(content, fill.repo, layer.digest) == b"layer"


async def test_other_processes_stop_serving_what_is_quarantined(scrub, fill, database, blobs):
    second = ContentStore(database, blobs)
    layer = await fill.blob(b"layer")
    await second.blobs.stat(fill.repo, layer.digest)
    overwrite(blobs, layer, b"lAyer")
    await scrub(quarantine=True)
    with pytest.raises(BlobUnknown):
        await second.blobs.stat(fill.repo, layer.digest)


async def test_what_is_uploaded_again_heals_lost_bytes_before_anybody_scrubs(fill, content, blobs):
    layer = await fill.blob(b"layer")
    blobs.path(layer.key).unlink()
    assert (await fill.blob(b"layer", repo=OTHER)).key != layer.key
    assert await read(content, fill.repo, layer.digest) == b"layer"
    again = await fill.blob(b"layer")
    assert again.key == (await content.blobs.stat(OTHER, layer.digest)).key


async def test_bytes_that_came_back_are_served_again(scrub, fill, content, blobs):
    layer = await fill.blob(b"layer")
    overwrite(blobs, layer, b"lAyer")
    await scrub(quarantine=True)
    overwrite(blobs, layer, b"layer")
    assert (await scrub())[1] == {}
    assert await read(content, fill.repo, layer.digest) == b"layer"


async def test_a_damaged_manifest_is_found_and_pushed_again_it_heals(scrub, fill, content, database):
    image = await fill.image(b"layer", tags=("latest",))
    above = await fill.index(image, tags=("multi",))
    async with database.write() as tx:
        await tx.execute(sa.update(tables.manifests).where(tables.manifests.c.digest == image.digest)
                         .values(raw=image.raw.replace(b"made", b"mAde")))
    report, found = await scrub()
    damage = found[image.digest]
    assert (damage.fault, damage.repositories, report.damaged) == (Fault.MANIFEST, (fill.repo,), 1)
    assert {(item.manifest, item.tags) for item in damage.affected} == {
        (image.digest, (Tag("latest"),)), (above.digest, (Tag("multi"),))}
    assert (await content.manifests.get(fill.repo, Tag("latest"))).raw != image.raw  # and now it is remembered
    await fill.image(b"layer", tags=("latest",))
    assert (await content.manifests.get(fill.repo, Tag("latest"))).raw == image.raw
    assert (await scrub())[1] == {}


async def test_a_blob_that_goes_meanwhile_is_no_damage(scrub, fill, content, blobs, database):
    layer = await fill.blob(b"layer")

    class Vanishing:
        async def size(self, key):
            if blobs.path(key).exists():
                await content.blobs.delete(fill.repo, layer.digest)
            await Collector(database, blobs).run(grace=timedelta(0))
            return await blobs.size(key)

        def read(self, key, start=0, length=None):
            return blobs.read(key, start, length)

    found = []
    report = await Scrubber(database, Vanishing()).run(ScrubOptions(), found.append)
    assert (found, report.gone, report.damaged) == ([], 1, 0)


async def test_an_interrupted_pass_goes_on_where_it_was(fill, database, blobs, scrub, monkeypatch):
    monkeypatch.setattr("storage.scrub.STAMP_BLOBS", 2)
    held = [await fill.blob(b"%d" % number) for number in range(9)]
    overwrite(blobs, held[1], b"x")
    reads, enough = [], asyncio.Event()

    class Counting:
        async def size(self, key):
            reads.append(key)
            if len(reads) == 7:
                enough.set()
                await asyncio.Event().wait()
            return await blobs.size(key)

        def read(self, key, start=0, length=None):
            return blobs.read(key, start, length)

    task = asyncio.create_task(Scrubber(database, Counting()).run(ScrubOptions(jobs=1), lambda damage: None))
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    report, found = await scrub()
    assert report.continued
    assert set(found) == {held[1].digest}, "damage is told again by the pass that ends"
    assert report.blobs == 5, "the four that were whole are not read again"
    report, found = await scrub()
    assert not report.continued
    assert report.blobs == 9


async def test_since_spares_what_was_read_lately(scrub, fill, clock):
    await fill.blob(b"old")
    await scrub()
    clock.turn(days=3)
    await fill.blob(b"new")
    report, _ = await scrub(since=timedelta(days=7))
    assert report.blobs == 1
    report, _ = await scrub(since=timedelta(days=2))
    assert report.blobs == 1, "the old one: three days ago; the new one was read just now"
    assert (await scrub())[0].blobs == 2


async def test_a_store_that_is_down_is_not_damage(fill, database, monkeypatch):
    monkeypatch.setattr("storage.scrub.PAUSE", 0.0)
    for number in range(30):
        await fill.blob(b"%d" % number)

    class Down:
        async def size(self, key):
            raise StoreUnavailable("no bucket")

        def read(self, key, start=0, length=None):
            raise AssertionError

    found = []
    with pytest.raises(StoreUnavailable):
        await Scrubber(database, Down()).run(ScrubOptions(quarantine=True), found.append)
    assert all(damage.fault is Fault.UNREADABLE and not damage.quarantined for damage in found)


async def test_the_rate_is_kept(scrub, fill):
    for _ in range(4):
        await fill.blob(os.urandom(100_000))
    begun = time.monotonic()
    await scrub(rate=1_000_000, jobs=4)
    assert time.monotonic() - begun >= 0.3


async def test_a_digest_is_found_by_its_own_algorithm(scrub, fill, blobs):
    held = await fill.blob(b"by sha512", algorithm="sha512")
    overwrite(blobs, held, b"bY sha512")
    assert set((await scrub())[1]) == {Digest.of(b"by sha512", "sha512")}
