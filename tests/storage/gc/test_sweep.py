"""Collections beside everything else: what goes, what stays, and that no promise is broken."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from ocispec import manifest as manifests
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.errors import BlobUnknown, StoreFull
from storage.gc.leases import Leases
from storage.gc.sweep import Collector
from storage.metadata import tombstones
from storage.repository.manifests import ManifestUnknown

DAY = timedelta(days=1)
NOW = timedelta(0)
OTHER = RepositoryName.parse("team/other")


@pytest.fixture
def collector(database, blobs) -> Collector:
    return Collector(database, blobs)


async def keys(blobs) -> set[str]:
    return {item.key async for item in blobs.list()}


async def test_a_tagged_image_stays_and_an_untagged_one_goes_after_the_grace(content, fill, blobs, collector, clock):
    kept = await fill.image(b"kept", tags=("latest",))
    dropped = await fill.image(b"dropped")
    assert (await collector.run(grace=DAY)).removed == []
    clock.turn(days=2)
    report = await collector.run(grace=DAY)
    assert {(item.kind, item.digest) for item in report.removed} == {
        ("manifest", dropped.digest), ("membership", Digest.of(b"dropped")), ("blob", Digest.of(b"dropped"))}
    assert report.freed == len(dropped.raw) + len(b"dropped")
    assert report.kept == 3
    assert await content.manifests.get(fill.repo, Tag("latest")) == kept
    assert (await content.blobs.stat(fill.repo, Digest.of(b"kept"))).size == 4
    for gone, error in ((content.manifests.get(fill.repo, dropped.digest), ManifestUnknown),
                        (content.blobs.stat(fill.repo, Digest.of(b"dropped")), BlobUnknown)):
        with pytest.raises(error):
            await gone
    assert len(await keys(blobs)) == 2
    assert (await collector.run(grace=DAY)).removed == []


async def test_a_dry_run_says_the_same_and_does_nothing(content, fill, blobs, collector, clock):
    await fill.image(b"kept", tags=("latest",))
    await fill.image(b"dropped")
    await fill.image(b"dropped", repo=OTHER)
    await fill.image(b"shared")
    await fill.image(b"shared", repo=OTHER, tags=("t",))
    clock.turn(days=2)
    before = await keys(blobs)
    dry = await collector.run(grace=DAY, dry_run=True)
    assert await keys(blobs) == before
    assert {item.why for item in dry.lives} >= {"tagged latest", "tagged t"}
    real = await collector.run(grace=DAY)
    assert sorted(map(repr, dry.removed)) == sorted(map(repr, real.removed))
    assert (dry.freed, dry.freed_in, dry.counts) == (real.freed, real.freed_in, real.counts)
    assert dry.freed_in.keys() == {"team/app", "team/other"}
    assert dry.kept == real.kept == len(dry.lives)
    assert len(await keys(blobs)) == len(before) - 1


async def test_children_live_with_their_index_and_die_with_it(content, fill, collector, clock):
    child = await fill.image(b"child")
    parent = await fill.index(child, tags=("multi",))
    clock.turn(days=2)
    assert (await collector.run(grace=DAY)).removed == []
    await content.manifests.delete(fill.repo, parent.digest)
    removed = {item.digest for item in (await collector.run(grace=DAY)).removed}
    assert removed >= {child.digest, Digest.of(b"child")}


async def test_referrers_live_with_their_subject(content, fill, collector, clock):
    subject = await fill.image(b"app", tags=("latest",))
    signature = await fill.image(b"sig", subject=manifests.parse(subject.raw).descriptor(subject.digest))
    clock.turn(days=2)
    assert (await collector.run(grace=DAY)).removed == []
    await content.tags.delete(fill.repo, Tag("latest"))
    assert (await collector.run(grace=DAY)).removed == [], "who resolved the tag just before is still pulling"
    clock.turn(days=2)
    assert {item.digest for item in (await collector.run(grace=DAY)).removed} >= {subject.digest, signature.digest}


async def test_the_same_blob_in_two_repositories_goes_with_the_last(content, fill, collector, clock):
    await fill.image(b"shared", tags=("t",))
    other = await fill.image(b"shared", tags=("t",), repo=OTHER)
    clock.turn(days=2)
    await content.manifests.delete(OTHER, other.digest)
    await collector.run(grace=DAY)
    assert (await content.blobs.stat(fill.repo, Digest.of(b"shared"))).size == 6
    with pytest.raises(BlobUnknown):
        await content.blobs.stat(OTHER, Digest.of(b"shared"))


async def test_who_heard_that_a_blob_exists_may_use_it(content, fill, collector, clock, make_image):
    """HEAD, then a collection, then the manifest: the race that peers document and leave."""
    config, layer = await fill.blob(b"{}"), await fill.blob(b"layer")
    clock.turn(days=3)
    for info in (config, layer):
        await content.blobs.stat(fill.repo, info.digest)
    clock.turn(hours=20)
    assert (await collector.run(grace=DAY)).removed == []
    await content.manifests.put(fill.repo, make_image(config, layer), tags=[Tag("latest")])
    clock.turn(days=3)
    assert (await collector.run(grace=DAY)).removed == []


async def test_who_heard_that_a_manifest_exists_may_index_it(content, fill, collector, clock, make_index):
    child = await fill.image(b"child")
    clock.turn(hours=20)
    await content.manifests.get(fill.repo, child.digest)
    assert content.manifests.cached(fill.repo, child.digest) == child
    clock.turn(hours=20)
    assert content.manifests.cached(fill.repo, child.digest) is None, "the promise is renewed, not only repeated"
    await content.manifests.get(fill.repo, child.digest)
    clock.turn(hours=20)
    assert (await collector.run(grace=DAY)).removed == []
    await content.manifests.put(fill.repo, make_index(child), tags=[Tag("multi")])


async def between_look_and_deletion(collector, monkeypatch, happens) -> None:
    """Once, `happens` when a repository was read and nothing is deleted yet."""
    real, times = collector._reviewer._look, []

    async def look(number, grace):
        marked = await real(number, grace)
        if not times and marked.dead_manifests + marked.dead_blobs:
            times.append(marked)
            await happens(marked)
        return marked

    monkeypatch.setattr(collector._reviewer, "_look", look)


async def test_what_a_manifest_just_named_lives_though_it_was_marked_dead(content, fill, collector, clock, monkeypatch,
                                                                          make_index):
    child = await fill.image(b"child")
    clock.turn(days=2)

    async def push(marked):
        assert marked.dead_manifests == [child.digest]
        await content.manifests.put(fill.repo, make_index(child), tags=[Tag("multi")])

    await between_look_and_deletion(collector, monkeypatch, push)
    report = await collector.run(grace=DAY)
    assert report.removed == []
    assert await content.manifests.get(fill.repo, child.digest) == child
    assert (await content.blobs.stat(fill.repo, Digest.of(b"child"))).size == 5


async def test_what_was_just_tagged_lives_with_all_it_holds(content, fill, collector, clock, monkeypatch):
    child = await fill.image(b"child")
    signature = await fill.image(b"sig", subject=manifests.parse(child.raw).descriptor(child.digest))
    parent = await fill.index(child)
    gone = await fill.image(b"gone")
    clock.turn(days=2)

    async def tag(marked):
        assert len(marked.dead_manifests) == 4
        await content.tags.put(fill.repo, Tag("back"), parent.digest)

    await between_look_and_deletion(collector, monkeypatch, tag)
    report = await collector.run(grace=DAY)
    assert {item.digest for item in report.removed} == {gone.digest, Digest.of(b"gone")}
    assert (await collector.run(grace=DAY)).removed == []
    for kept in (child, signature, parent):
        assert await content.manifests.get(fill.repo, kept.digest) == kept


async def test_a_blob_that_somebody_just_heard_of_lives(content, fill, collector, clock, monkeypatch):
    loose = await fill.blob(b"loose")
    clock.turn(days=2)

    async def head(marked):
        await content.blobs.stat(fill.repo, loose.digest)

    await between_look_and_deletion(collector, monkeypatch, head)
    assert (await collector.run(grace=DAY)).removed == []
    clock.turn(days=2)
    assert {item.digest for item in (await collector.turn(grace=DAY, detailed=True)).removed} == {loose.digest}


async def test_a_manifest_that_was_deleted_meanwhile_is_no_trouble(content, fill, collector, clock, monkeypatch):
    parent = await fill.index(await fill.image(b"child"))
    clock.turn(days=2)

    async def delete(marked):
        await content.manifests.delete(fill.repo, parent.digest)

    await between_look_and_deletion(collector, monkeypatch, delete)
    await collector.run(grace=DAY)
    clock.turn(days=2)
    await collector.run(grace=DAY)
    assert await content.manifests.all() == []


async def test_a_lease_keeps_what_it_names_and_what_that_holds(content, fill, database, collector, clock):
    child = await fill.image(b"child", pinned=False)
    parent = await fill.index(child)
    loose = await fill.blob(b"loose")
    leases = Leases(database)
    clock.turn(days=2)
    async with leases.hold("pull", ttl=timedelta(minutes=10)) as lease:
        await lease.add(parent.digest, loose.digest, Digest.of(b"still to come"))
        await lease.add(parent.digest)
        report = await collector.run(grace=NOW)
        assert report.removed == []
    removed = {item.digest for item in (await collector.run(grace=NOW)).removed}
    assert removed >= {parent.digest, child.digest, loose.digest, Digest.of(b"child")}


async def test_a_lease_of_a_dead_process_expires(content, fill, database, collector, clock):
    loose = await fill.blob(b"loose")
    hold = Leases(database).hold("killed", ttl=timedelta(minutes=10))
    lease = await hold.__aenter__()
    await lease.add(loose.digest)
    clock.turn(minutes=9)
    assert (await collector.run(grace=NOW)).removed == []
    clock.turn(minutes=2)
    assert loose.digest in {item.digest for item in (await collector.run(grace=NOW)).removed}
    await hold.__aexit__(None, None, None)


async def test_a_held_lease_is_renewed(content, fill, database, collector, clock, until):
    loose = await fill.blob(b"loose")
    async with Leases(database).hold("slow", ttl=timedelta(seconds=0.3)) as lease:
        await lease.add(loose.digest)
        clock.turn(seconds=10)

        async def saved() -> bool:
            return not (await collector.run(grace=NOW, dry_run=True)).removed

        await until(saved, within=5)


async def test_a_node_keeps_what_was_pulled_by_digest(content, fill, database, blobs, clock):
    node = Collector(database, blobs, keep_untagged=True)
    pulled = await fill.image(b"pulled")
    child = await fill.image(b"child", pinned=False)
    parent = await fill.index(child)
    clock.turn(days=9)
    assert (await node.run(grace=NOW)).removed == []
    await content.manifests.delete(fill.repo, parent.digest)
    assert {item.digest for item in (await node.run(grace=NOW)).removed} >= {child.digest}
    await content.manifests.delete(fill.repo, pulled.digest)
    assert {item.digest for item in (await node.run(grace=NOW)).removed} >= {Digest.of(b"pulled")}
    assert await keys(blobs) == set()


async def test_uploads_are_left_alone(content, fill, blobs, collector, clock, stream):
    upload = await content.uploads.start(fill.repo)
    await upload.append(stream(b"half"))
    clock.turn(days=30)
    await collector.run(grace=NOW)
    await (await content.uploads.get(fill.repo, upload.id)).commit(Digest.of(b"half"))


async def test_bytes_without_a_row_go_when_they_are_old(fill, blobs, collector, clock):
    clock.time = datetime.now(UTC)  # the age of files is the file system's
    info = await fill.blob(b"held")
    writer = await blobs.create()
    await writer.write([b"a crash left this"])
    await writer.seal()
    assert (await collector.run(grace=NOW)).removed[-1].kind == "blob"
    assert await keys(blobs) == {writer.key}, f"{info.key} goes, the orphan is too young"
    clock.turn(hours=2)
    dry = await collector.run(grace=NOW, dry_run=True)
    assert await keys(blobs) == {writer.key}
    (item,) = (await collector.run(grace=NOW)).removed
    assert (item.kind, item.key, item.size) == ("bytes", writer.key, 17)
    assert dry.removed == [item]
    assert await keys(blobs) == set()


async def test_a_tombstone_that_a_crash_left_is_finished(database, blobs, collector, clock):
    writer = await blobs.create()
    await writer.seal()
    async with database.write() as tx:
        await tombstones.bury(tx, writer.key, 0, clock())
    await collector.run(grace=DAY)
    assert await keys(blobs) == set()
    async with database.read() as tx:
        assert await tombstones.buried(tx, "", 10) == []


async def test_content_that_comes_again_gets_another_key(content, fill, blobs, collector, clock):
    before = await fill.blob(b"again")
    clock.turn(days=2)
    await collector.run(grace=DAY)
    after = await fill.blob(b"again")
    assert after.key != before.key
    assert blobs.path(after.key).read_bytes() == b"again"


async def test_pushes_and_collections_at_once_break_nothing(content, fill, collector, clock, blobs):
    """Every image that was tagged is whole at the end, whatever the collector did meanwhile. The clock counts
    pushes, and the grace is longer than a push can take (the write lock is fair), but shorter than all of them: so
    superseded images are collected while others come."""
    clock.time, clock.tick = datetime.now(UTC), timedelta(0)
    pushing, removed = True, 0

    async def push(number: int) -> None:
        repo = RepositoryName.parse(f"team/{number % 2}")
        for turn in range(6):
            clock.turn(seconds=1)
            await fill.image(b"shared", b"layer %d" % turn, tags=(f"t{number}",), repo=repo, config=b"{ }")

    async def push_all() -> None:
        nonlocal pushing
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(push(number))
        pushing = False

    async with asyncio.TaskGroup() as group:
        group.create_task(push_all())
        while pushing:
            removed += len((await collector.run(grace=timedelta(seconds=12))).removed)
    assert removed > 0
    tags = await content.tags.all()
    assert len(tags) == 4
    for row in tags:
        stored = await content.manifests.get(row.repo, row.tag)
        for descriptor in manifests.parse(stored.raw).blobs:
            info = await content.blobs.stat(row.repo, descriptor.digest)
            assert blobs.path(info.key).stat().st_size == descriptor.size


async def test_a_leased_blob_without_a_place_is_looked_at_once_even_without_a_grace(content, fill, database, collector):
    loose = await fill.blob(b"loose")
    async with Leases(database).hold("pull", ttl=timedelta(minutes=10)) as lease:
        await lease.add(loose.digest)
        await content.blobs.delete(fill.repo, loose.digest)
        await asyncio.wait_for(collector.run(grace=timedelta(0)), 10)
        assert await content.blobs.has_any(loose.digest)
    await collector.run(grace=timedelta(0))
    assert not await content.blobs.has_any(loose.digest)


async def test_a_promise_that_could_not_be_written_is_tried_again(content, fill, collector, clock, monkeypatch):
    held = await fill.image(b"layer", config=b"{1}")
    blob = await fill.blob(b"loose")
    clock.turn(hours=2)

    async def fail(*_):
        raise StoreFull("no room")

    with monkeypatch.context() as broken:
        for part in (content.blobs, content.manifests):
            broken.setattr(part._touches, "_write", fail)
        await content.blobs.stat(fill.repo, blob.digest)
        await content.manifests.get(fill.repo, held.digest)
    await content.blobs.stat(fill.repo, blob.digest)
    await content.manifests.get(fill.repo, held.digest)
    await collector.run(grace=timedelta(hours=1))
    assert await content.blobs.stat(fill.repo, blob.digest) == blob
    assert await content.manifests.get(fill.repo, held.digest) == held
