"""Turns look at what changed, when it is a grace old, and lose nothing when a collector dies over it."""

from datetime import timedelta

import pytest

from ocispec.digest import Digest
from ocispec.errors import Unavailable
from ocispec.pattern import Pattern
from ocispec.reference import RepositoryName, Tag
from storage.blobs.store import StoreUnavailable
from storage.gc.duty import Duty
from storage.gc.leases import Leases
from storage.gc.sweep import Collector
from storage.metadata.rules import UntaggedRule
from storage.repository.manifests import ManifestUnknown

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch) -> None:
    """However slow this machine is, no repository here is a large one."""
    monkeypatch.setattr("storage.gc.sweep.LONG", float("inf"))


@pytest.fixture
def collector(database, blobs) -> Collector:
    return Collector(database, blobs)


@pytest.fixture
async def looked_at(collector, monkeypatch) -> list[str]:
    """Names of the repositories that were read."""
    real, names = collector._reviewer._look, []

    async def look(number, grace):
        marked = await real(number, grace)
        names.append(marked.content.name.value)
        return marked

    monkeypatch.setattr(collector._reviewer, "_look", look)
    return names


async def keys(blobs) -> set[str]:
    return {item.key async for item in blobs.list()}


async def test_only_what_changed_is_looked_at(content, fill, collector, clock, looked_at):
    for number in range(3):
        await fill.image(b"%d" % number, tags=("t",), repo=RepositoryName.parse(f"r/{number}"))
    assert (await collector.turn(grace=DAY)).repositories == 0, "a push is younger than the grace"
    clock.turn(days=2)
    await collector.turn(grace=DAY)
    assert sorted(looked_at) == ["r/0", "r/1", "r/2"]
    clock.turn(days=2)
    assert (await collector.turn(grace=DAY)).repositories == 0
    await content.manifests.get(RepositoryName.parse("r/1"), Tag("t"))
    clock.turn(days=2)
    assert (await collector.turn(grace=DAY)).repositories == 0, "reading changes nothing"
    looked_at.clear()
    await content.manifests.delete(RepositoryName.parse("r/2"), (await content.manifests.resolve(
        RepositoryName.parse("r/2"), Tag("t"))))
    report = await collector.turn(grace=DAY)
    assert looked_at == ["r/2"]
    assert report.counts == {"membership": 2, "blob": 1}, "the config is held by the others"
    assert report.removed == [], "a turn counts, it keeps no list"
    assert report.freed_in == {"r/2": 1}


async def test_a_moved_tag_leaves_garbage_a_grace_later(content, fill, collector, clock):
    old = await fill.image(b"old", tags=("latest",))
    clock.turn(days=9)
    await collector.turn(grace=DAY)
    await fill.image(b"new", tags=("latest",))
    clock.turn(hours=23)
    await collector.turn(grace=DAY)
    assert await content.manifests.get(fill.repo, old.digest) == old
    clock.turn(hours=26)
    await collector.turn(grace=DAY)
    clock.turn(hours=26)
    await collector.turn(grace=DAY)
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(fill.repo, old.digest)


async def test_an_upload_that_no_manifest_follows_goes(content, fill, collector, clock, blobs):
    await fill.blob(b"alone")
    clock.turn(hours=23)
    await content.blobs.stat(fill.repo, Digest.of(b"alone"))
    clock.turn(hours=2)
    assert not (await collector.turn(grace=DAY)).anything, "somebody heard of it"
    clock.turn(hours=30)
    assert (await collector.turn(grace=DAY)).counts == {"membership": 1, "blob": 1}
    assert await keys(blobs) == set()
    assert collector.stats.waiting == 0


async def test_what_a_lease_kept_is_looked_at_again(fill, database, collector, clock):
    image = await fill.image(b"leased")
    async with Leases(database).hold("x", ttl=timedelta(days=9)) as lease:
        await lease.add(image.digest)
        clock.turn(days=2)
        assert not (await collector.turn(grace=DAY)).counts["manifest"]
    clock.turn(days=2)
    assert (await collector.turn(grace=DAY)).counts["manifest"] == 1


async def test_a_deleted_blob_goes_unless_another_repository_has_it(content, fill, collector, clock, blobs):
    other = RepositoryName.parse("team/other")
    await fill.blob(b"shared")
    await content.blobs.mount(other, Digest.of(b"shared"), fill.repo)
    await fill.image(b"shared", repo=other, tags=("t",))
    clock.turn(days=2)
    await content.blobs.delete(fill.repo, Digest.of(b"shared"))
    await collector.turn(grace=DAY)
    assert (await content.blobs.stat(other, Digest.of(b"shared"))).size == 6


async def test_a_collector_that_died_over_a_repository_is_followed(fill, database, blobs, collector, clock):
    await fill.image(b"gone")
    clock.turn(days=2)
    assert await collector._take(DAY)  # and dies
    assert (await Collector(database, blobs).turn(grace=DAY)).counts["manifest"] == 1


async def test_what_happens_during_a_review_is_not_lost(content, fill, database, blobs, collector, clock, monkeypatch):
    await fill.image(b"first", tags=("a",))
    clock.turn(days=2)
    real = collector._reviewer.review

    async def review(number, grace, report):
        look = await real(number, grace, report)
        await fill.image(b"late")
        return look

    monkeypatch.setattr(collector._reviewer, "review", review)
    await collector.turn(grace=DAY)
    clock.turn(days=2)
    assert (await Collector(database, blobs).turn(grace=DAY)).counts["manifest"] == 1


async def test_one_repository_that_fails_keeps_no_other(fill, collector, clock, monkeypatch, caplog):
    bad = RepositoryName.parse("a/bad")
    await fill.image(b"1", repo=bad)
    await fill.image(b"2")
    clock.turn(days=2)
    real = collector._reviewer._look

    async def look(number, grace):
        marked = await real(number, grace)
        if marked.content.name == bad:
            raise RuntimeError("a fault")
        return marked

    monkeypatch.setattr(collector._reviewer, "_look", look)
    assert (await collector.turn(grace=DAY)).counts["manifest"] == 1
    assert collector.stats.failures == 1
    assert "a fault" in caplog.text
    monkeypatch.setattr(collector._reviewer, "_look", real)
    assert (await collector.turn(grace=DAY)).counts["manifest"] == 1, "it is looked at again"


async def test_a_large_repository_rests_between_reviews(content, fill, collector, clock, monkeypatch):
    monkeypatch.setattr("storage.gc.sweep.LONG", -1.0)
    image = await fill.image(b"1", tags=("t",))
    clock.turn(days=2)
    assert (await collector.turn(grace=DAY)).repositories == 1
    await content.manifests.delete(fill.repo, image.digest)
    assert (await collector.turn(grace=DAY)).repositories == 0
    collector._resting.clear()
    assert (await collector.turn(grace=DAY)).repositories == 1


async def test_a_store_that_fails_leaves_tombstones_for_the_next_turn(fill, collector, clock, blobs, monkeypatch):
    await fill.image(b"1")
    kept = await fill.blob(b"2")
    clock.turn(days=2)
    real = blobs.delete

    async def delete(key):
        if key == kept.key:
            raise StoreUnavailable("slow down")
        await real(key)

    monkeypatch.setattr(blobs, "delete", delete)
    with pytest.raises(Unavailable):
        await collector.turn(grace=DAY)
    assert await keys(blobs) == {kept.key}
    monkeypatch.setattr(blobs, "delete", real)
    await collector.turn(grace=DAY)
    assert await keys(blobs) == set()


async def test_untagged_manifests_by_rule(content, fill, database, blobs, clock):
    """A setting for all, rules for some; the reasons name them."""
    collector = Collector(database, blobs, rules=content.rules)
    await content.rules.put(UntaggedRule(Pattern.parse("keep/**"), None))
    await content.rules.put(UntaggedRule(Pattern.parse("week/**"), timedelta(days=7)))
    for name in ("keep/a", "week/a", "other/a"):
        await fill.image(b"x", repo=RepositoryName.parse(name))
    clock.turn(days=2)
    dry = await collector.run(grace=DAY, dry_run=True)
    whys = {(item.repository.value, item.why) for item in (*dry.lives, *dry.removed) if item.kind == "manifest"}
    assert whys == {("keep/a", "untagged, kept by rule keep/**"), ("week/a", "untagged, kept a while by rule week/**"),
                    ("other/a", "untagged, and no living index names it")}
    assert (await collector.turn(grace=DAY)).counts["manifest"] == 1
    clock.turn(days=4)
    assert (await collector.turn(grace=DAY)).counts["manifest"] == 0
    clock.turn(days=2)
    report = await collector.turn(grace=DAY, detailed=True)
    assert [item.why for item in report.removed if item.kind == "manifest"] == [
        "untagged for longer than rule week/** keeps it, and no living index names it"]


async def test_a_duty_has_one_holder(database, clock):
    first, second = Duty(database, "collect", "a"), Duty(database, "collect", "b")
    async with first.hold() as mine:
        assert mine
        async with second.hold() as also:
            assert not also
    async with second.hold() as mine:
        assert mine
        clock.turn(hours=1)
        async with first.hold() as taken:
            assert taken, "whoever died over it is followed"
