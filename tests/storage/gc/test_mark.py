"""What lives is what a slow, plain reading of the rules says, for any graph."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.gc.mark import Rules, mark
from storage.metadata.garbage import HeldBlob, HeldManifest, RepositoryContent

CUTOFF = datetime(2030, 1, 1, tzinfo=UTC)
OLD, NEW = CUTOFF - timedelta(microseconds=1), CUTOFF
MANIFESTS = [Digest.of(b"m%d" % number) for number in range(8)]
BLOBS = [Digest.of(b"b%d" % number) for number in range(6)]

some_manifests = st.lists(st.sampled_from(MANIFESTS), max_size=3).map(tuple)
some_blobs = st.lists(st.sampled_from(BLOBS), max_size=3).map(tuple)
times = st.sampled_from([OLD, NEW, OLD, OLD])


@st.composite
def contents(draw) -> RepositoryContent:
    held = draw(st.lists(st.sampled_from(MANIFESTS), unique=True))
    return RepositoryContent(
        RepositoryName("r"),
        tuple(HeldManifest(
            digest, 1, draw(times), pinned=draw(st.booleans()),
            tags=draw(st.sampled_from([(), (), (Tag("t"),)])), subject=draw(st.none() | st.sampled_from(MANIFESTS)),
            children=draw(some_manifests), blobs=draw(some_blobs)) for digest in held),
        tuple(HeldBlob(digest, 1, draw(times)) for digest in draw(st.lists(st.sampled_from(BLOBS), unique=True))),
    )


rules = st.builds(Rules, st.just(CUTOFF), st.frozensets(st.sampled_from(MANIFESTS + BLOBS), max_size=2), st.booleans())


def plain(content: RepositoryContent, rules: Rules) -> tuple[set[Digest], set[Digest]]:
    alive = {m.digest for m in content.manifests
             if m.tags or m.touched >= rules.cutoff or m.digest in rules.leased or (rules.keep_untagged and m.pinned)}
    while True:
        more = {m.digest for m in content.manifests
                if m.subject in alive or any(p.digest in alive and m.digest in p.children for p in content.manifests)}
        if more <= alive:
            break
        alive |= more
    named = {blob for m in content.manifests if m.digest in alive for blob in m.blobs}
    return alive, {b.digest for b in content.blobs
                   if b.digest in named or b.touched >= rules.cutoff or b.digest in rules.leased}


@settings(max_examples=400, deadline=None)
@given(contents(), rules)
def test_the_verdicts_are_those_of_the_plain_reading(content, rules):
    marked = mark(content, rules)
    manifests, blobs = plain(content, rules)
    assert {digest for digest, verdict in marked.manifests.items() if verdict.lives} == manifests
    assert {digest for digest, verdict in marked.blobs.items() if verdict.lives} == blobs
    assert set(marked.manifests) == {m.digest for m in content.manifests}
    assert set(marked.blobs) == {b.digest for b in content.blobs}
    assert all(verdict.why for verdict in (*marked.manifests.values(), *marked.blobs.values()))


@settings(max_examples=200, deadline=None)
@given(contents(), rules, st.data())
def test_a_lease_only_ever_saves(content, rules, data):
    more = Rules(rules.cutoff, rules.leased | {data.draw(st.sampled_from(MANIFESTS + BLOBS))}, rules.keep_untagged)
    before, after = mark(content, rules), mark(content, more)
    assert set(after.dead_manifests) <= set(before.dead_manifests)
    assert set(after.dead_blobs) <= set(before.dead_blobs)


@settings(max_examples=200, deadline=None)
@given(contents(), rules)
def test_nothing_that_lives_loses_a_part(content, rules):
    marked = mark(content, rules)
    dead = {*marked.dead_manifests, *marked.dead_blobs}
    for manifest in content.manifests:
        if marked.manifests[manifest.digest].lives:
            assert dead.isdisjoint((*manifest.children, *manifest.blobs))


def test_deep_chains_and_loops_end():
    deep = [Digest.of(b"%d" % number) for number in range(20_000)]
    chain = tuple(HeldManifest(digest, 1, OLD, tags=(Tag("t"),) if number == 0 else (),
                               children=(deep[(number + 1) % len(deep)],), subject=deep[number - 1])
                  for number, digest in enumerate(deep))
    assert mark(RepositoryContent(RepositoryName("r"), chain, ()), Rules(CUTOFF)).dead_manifests == []


def test_the_reasons_are_told():
    tagged = HeldManifest(MANIFESTS[0], 1, OLD, tags=(Tag("v1"),), children=(MANIFESTS[1],), blobs=(BLOBS[0],))
    content = RepositoryContent(RepositoryName("r"), (
        tagged, HeldManifest(MANIFESTS[1], 1, OLD), HeldManifest(MANIFESTS[2], 1, OLD, subject=MANIFESTS[1]),
        HeldManifest(MANIFESTS[3], 1, OLD, subject=MANIFESTS[4]), HeldManifest(MANIFESTS[5], 1, OLD),
        HeldManifest(MANIFESTS[6], 1, NEW)), (HeldBlob(BLOBS[0], 1, OLD), HeldBlob(BLOBS[1], 1, OLD)))
    marked = mark(content, Rules(CUTOFF))
    assert [verdict.why for verdict in marked.manifests.values()] == [
        "tagged v1", f"child of {MANIFESTS[0]}", f"refers to {MANIFESTS[1]}",
        f"untagged, and its subject {MANIFESTS[4]} does not live here", "untagged, and no living index names it",
        "used within the grace"]
    assert [verdict.why for verdict in marked.blobs.values()] == [
        f"part of {MANIFESTS[0]}", "no manifest here names it"]
