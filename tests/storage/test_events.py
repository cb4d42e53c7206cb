"""The log of events: in the transaction of what it tells, in order, bounded."""

from datetime import timedelta

import pytest

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.errors import DigestMismatch
from storage.events import LONGEST, Action, Event, Origin, Result
from storage.metadata import events as log
from storage.metadata.events import Wanted
from storage.repository.manifests import ManifestBlobUnknown, ManifestUnknown

ORIGIN = Origin.of(actor="mia", request_id="r-1", remote="192.0.2.7", agent="docker/27", method="PUT", host="r.example")
OTHER = RepositoryName.parse("team/other")


async def told(database, **wanted) -> list[log.LoggedEvent]:
    async with database.read() as tx:
        return [*reversed(await log.latest(tx, Wanted(**wanted), 100))]


async def test_every_change_is_told_with_who_and_what(fill, content, database, stream, make_image) -> None:
    upload = await content.uploads.start(fill.repo)
    await upload.append(stream(b"config"))
    blob = await upload.commit(Digest.of(b"config"), origin=ORIGIN)
    await content.blobs.mount(OTHER, blob.digest, fill.repo, origin=ORIGIN)
    stored = await content.manifests.put(fill.repo, make_image(blob), tags=[Tag("a"), Tag("b")], origin=ORIGIN)
    await content.tags.put(fill.repo, Tag("c"), stored.digest, origin=ORIGIN)
    await content.tags.delete(fill.repo, Tag("c"), origin=ORIGIN)
    await content.manifests.delete(fill.repo, stored.digest, origin=ORIGIN)
    await content.blobs.delete(OTHER, blob.digest, origin=ORIGIN)
    events = [logged.event for logged in await told(database)]
    assert [(event.action, event.repository, event.digest, event.tag, event.size) for event in events] == [
        (Action.BLOB_PUSH, fill.repo, blob.digest, None, 6),
        (Action.BLOB_MOUNT, OTHER, blob.digest, None, 6),
        (Action.MANIFEST_PUSH, fill.repo, stored.digest, Tag("a"), len(stored.raw)),
        (Action.MANIFEST_PUSH, fill.repo, stored.digest, Tag("b"), len(stored.raw)),
        (Action.TAG_PUT, fill.repo, stored.digest, Tag("c"), 0),
        (Action.TAG_DELETE, fill.repo, stored.digest, Tag("c"), 0),
        (Action.MANIFEST_DELETE, fill.repo, stored.digest, None, 0),
        (Action.BLOB_DELETE, OTHER, blob.digest, None, 0),
    ]
    assert all(event.origin == ORIGIN for event in events)
    assert events[1].detail == {"from": "team/app"}
    assert events[2].media_type == stored.media_type


async def test_what_did_not_happen_is_not_told(fill, content, database, stream, make_image) -> None:
    upload = await content.uploads.start(fill.repo)
    await upload.append(stream(b"x"))
    with pytest.raises(DigestMismatch):
        await upload.commit(Digest.of(b"y"), origin=ORIGIN)
    blob = await fill.blob(b"config")
    missing = make_image(blob, type(blob)(Digest.of(b"gone"), 4, blob.key))
    with pytest.raises(ManifestBlobUnknown):
        await content.manifests.put(fill.repo, missing, origin=ORIGIN)
    for refused in (content.tags.delete(fill.repo, Tag("no"), origin=ORIGIN),
                    content.manifests.delete(fill.repo, Digest.of(b"no"), origin=ORIGIN)):
        with pytest.raises(ManifestUnknown):
            await refused
    assert await content.blobs.mount(OTHER, Digest.of(b"no"), fill.repo, origin=ORIGIN) is None
    assert await told(database) == []


async def test_without_an_origin_nothing_is_told(fill, database) -> None:
    await fill.image(b"layer", tags=("v1",))
    assert await told(database) == []


async def record(database, *events: Event) -> None:
    async with database.write() as tx:
        await log.record_all(tx, events, database.now())


async def test_it_is_searched_and_read_in_pages(database, clock, fill) -> None:
    for number in range(6):
        actor = "mia" if number % 2 else "bob"
        await record(database, Event(Action.TAG_DELETE, Origin(actor, f"r{number}"), fill.repo if number < 3 else OTHER,
                                     result=Result.DENIED if number == 5 else Result.OK))
        clock.turn(hours=1)

    async def ids(**wanted) -> list[str]:
        return [logged.event.origin.request_id for logged in await told(database, **wanted)]

    assert await ids(actor="mia") == ["r1", "r3", "r5"]
    assert await ids(repository=OTHER) == ["r3", "r4", "r5"]
    assert await ids(result=Result.DENIED) == ["r5"]
    assert await ids(actor="bob", repository=fill.repo, action=Action.TAG_DELETE) == ["r0", "r2"]
    events = await told(database)
    assert await ids(since=events[2].at, until=events[4].at) == ["r2", "r3"]
    assert await ids(before=events[2].number) == ["r0", "r1"]


async def test_numbers_are_never_given_twice(database, clock) -> None:
    """A webhook that stands at the last event must hear of the next one, although the log was emptied between."""
    event = Event(Action.TAG_DELETE, Origin("", "r"))
    await record(database, event, event)
    async with database.write() as tx:
        last = await log.newest(tx)
        assert await log.prune(tx, clock(), None, 10) == 2
    await record(database, event)
    async with database.read() as tx:
        assert [logged.number > last.number for logged in await log.after(tx, last, 10)] == [True]


async def test_pruning_spares_what_is_new_or_not_delivered(database, clock) -> None:
    event = Event(Action.TAG_DELETE, Origin("", "r"))
    await record(database, *[event] * 5)
    old = clock()
    clock.turn(days=1)
    await record(database, event)
    positions = [logged.position for logged in await told(database)]
    async with database.write() as tx:
        assert await log.prune(tx, old, positions[3], 3) == 3
        assert await log.prune(tx, old, positions[3], 100) == 1
        assert await log.since(tx, log.START, 9) == (2, (await log.after(tx, log.START, 1))[0].at)
        assert (await log.since(tx, log.START, 1))[0] == 1
        assert await log.prune(tx, old + timedelta(days=9), None, 100) == 2


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2Jb", "a\u202eb", "a\u2028b", "a\ud800b", "\x00", "é" * 1000])
def test_what_a_client_says_of_itself_is_made_harmless(text) -> None:
    agent = Origin.of(actor="", request_id="", agent=text).agent
    assert agent.isprintable()
    assert 0 < len(agent) <= LONGEST
    assert agent.encode()
