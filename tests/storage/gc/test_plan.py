"""The order of deletion: whenever one of the dead turns out to live, all that lives with it is still there."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.gc.mark import Rules, mark
from storage.gc.plan import Plan
from storage.metadata.garbage import HeldBlob, HeldManifest, RepositoryContent

CUTOFF = datetime(2030, 1, 1, tzinfo=UTC)
OLD = CUTOFF - timedelta(days=1)
MANIFESTS = [Digest.of(b"m%d" % number) for number in range(9)]
BLOBS = [Digest.of(b"b%d" % number) for number in range(6)]


@st.composite
def contents(draw) -> RepositoryContent:
    """What digests allow: a manifest names only earlier ones."""
    held = []
    for number in sorted(draw(st.sets(st.integers(0, len(MANIFESTS) - 1)))):
        earlier = st.sampled_from(MANIFESTS[:number] or [Digest.of(b"not here")])
        held.append(HeldManifest(
            MANIFESTS[number], 1, OLD, tags=draw(st.sampled_from([(), (), (), (Tag("t"),)])),
            subject=draw(st.none() | earlier), children=tuple(draw(st.lists(earlier, max_size=3, unique=True))),
            blobs=tuple(draw(st.lists(st.sampled_from(BLOBS), max_size=3, unique=True)))))
    return RepositoryContent(RepositoryName("r"), tuple(draw(st.permutations(held))),
                             tuple(HeldBlob(digest, 1, OLD) for digest in BLOBS))


def tagged(content: RepositoryContent, digests: set[Digest]) -> RepositoryContent:
    return RepositoryContent(content.name, tuple(
        HeldManifest(m.digest, m.size, m.touched, m.pinned, (Tag("new"),) if m.digest in digests else m.tags, m.subject,
                     m.children, m.blobs) for m in content.manifests), content.blobs)


@settings(max_examples=400, deadline=None)
@given(contents(), st.integers(1, 4), st.data())
def test_what_is_saved_meanwhile_is_saved_whole(content, size, data):
    """Before each batch somebody may tag manifests that are still there. In the end exactly what a mark with those
    tags calls dead is gone, except for manifests that were gone before the tag could hold them: there are none."""
    marked = mark(content, Rules(CUTOFF))
    plan, gone, saved = Plan(marked), [], set()
    for batch in plan.manifests(size):
        left = [digest for digest in marked.dead_manifests if digest not in gone]
        saved |= set(data.draw(st.lists(st.sampled_from(left), max_size=1))) if left else set()
        plan.save(item.digest for item in batch if item.digest in saved)
        gone += [item.digest for item in batch if item.digest not in plan.saved]
    unlinked = {blob for batch in plan.blobs(size) for blob in batch}
    truth = mark(tagged(content, saved), Rules(CUTOFF))
    assert len(gone) == len(set(gone))
    assert set(gone) == set(truth.dead_manifests)
    assert unlinked == set(truth.dead_blobs)


@settings(max_examples=200, deadline=None)
@given(contents())
def test_an_index_goes_before_its_children_and_a_subject_before_its_referrers(content):
    """Or with them, where they live with each other."""
    marked = mark(content, Rules(CUTOFF))
    batches = [[item.digest for item in batch] for batch in Plan(marked).manifests(1)]
    assert sorted(digest for batch in batches for digest in batch) == sorted(marked.dead_manifests)
    held = {item.digest: item for item in content.manifests}
    for place, batch in enumerate(batches):
        before, after = set().union(*batches[:place]), set().union(*batches[place + 1:])
        for digest in batch:
            assert before.isdisjoint(held[digest].children)
            assert held[digest].subject not in after


def test_what_lives_with_each_other_goes_together():
    """An index whose subject is one of its children."""
    held = (HeldManifest(MANIFESTS[0], 1, OLD),
            HeldManifest(MANIFESTS[1], 1, OLD, subject=MANIFESTS[0], children=(MANIFESTS[0],)),
            HeldManifest(MANIFESTS[2], 1, OLD, children=(MANIFESTS[1],)))
    plan = Plan(mark(RepositoryContent(RepositoryName("r"), held, ()), Rules(CUTOFF)))
    assert [len(batch) for batch in plan.manifests(1)] == [1, 2]
    plan.save([MANIFESTS[1]])
    assert plan.saved == set(MANIFESTS[:2])


def test_a_long_chain_takes_no_stack():
    chain = [Digest.of(b"%d" % number) for number in range(20_000)]
    held = tuple(HeldManifest(digest, 1, OLD, children=tuple(chain[number - 1 : number]))
                 for number, digest in enumerate(chain))
    plan = Plan(mark(RepositoryContent(RepositoryName("r"), held, ()), Rules(CUTOFF)))
    assert [item.digest for batch in plan.manifests(100) for item in batch] == chain[::-1]


times = st.sampled_from([OLD, CUTOFF + timedelta(hours=3), CUTOFF + timedelta(hours=1)])


@settings(max_examples=300, deadline=None)
@given(contents(), st.data())
def test_without_a_change_nothing_dies_before_it_is_looked_at_again(content, data):
    """`look`: as long as the cutoff has not passed it, the verdicts stay what they are."""
    aged = RepositoryContent(content.name, tuple(
        HeldManifest(m.digest, m.size, data.draw(times), m.pinned, m.tags, m.subject, m.children, m.blobs)
        for m in content.manifests), tuple(HeldBlob(b.digest, b.size, data.draw(times)) for b in content.blobs))
    before = mark(aged, Rules(CUTOFF))
    later = CUTOFF + timedelta(hours=data.draw(st.integers(0, 5)))
    after = mark(aged, Rules(later))
    if before.look is None or later <= before.look:
        assert after.dead_manifests == before.dead_manifests
        assert after.dead_blobs == before.dead_blobs
