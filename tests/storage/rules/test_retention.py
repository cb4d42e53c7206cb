"""Which tags stay: against a plain reading of the rules, and against pushes at the same moment."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.pattern import Pattern
from ocispec.reference import RepositoryName, Tag
from storage.gc.retire import Retention
from storage.metadata.rules import ImmutableRule, RetentionRule
from storage.metadata.tags import HeldTag
from storage.repository.manifests import ManifestUnknown
from storage.rules.retention import judge, span

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ANY = Pattern.parse("**")
NAMES = ["v1", "v2", "build-1", "build-2", "build-3", "latest"]

ages = st.integers(0, 9).map(lambda days: NOW - days * DAY)
held = st.builds(HeldTag, st.sampled_from(NAMES), st.just(1), st.just(Digest.of(b"m")), ages, st.none() | ages)
spans = st.none() | st.integers(1, 8).map(lambda days: days * DAY)
clauses = st.builds(RetentionRule, st.just(ANY), st.sampled_from(["v*", "build-*", "*", "latest"]).map(Pattern.parse),
                    st.none() | st.integers(1, 3), spans, spans)


def plain(tags: list[HeldTag], rules: list[RetentionRule], immutable: set[str]) -> set[str]:
    if not rules:
        return {tag.name for tag in tags}
    kept = {tag.name for tag in tags if tag.name in immutable}
    for tag in tags:
        for rule in rules:
            matching = [other for other in tags if rule.tags.matches(other.name)]
            if tag not in matching:
                continue
            newer = sum((other.updated, other.name) > (tag.updated, tag.name) for other in matching)
            used = max(filter(None, (tag.updated, tag.pulled)))
            if ((rule.last, rule.pushed_within, rule.pulled_within) == (None, None, None)
                    or (rule.last is not None and newer < rule.last)
                    or (rule.pushed_within is not None and NOW - tag.updated <= rule.pushed_within)
                    or (rule.pulled_within is not None and NOW - used <= rule.pulled_within)):
                kept.add(tag.name)
    return kept


@settings(max_examples=500, deadline=None)
@given(st.lists(held, unique_by=lambda tag: tag.name), st.lists(clauses, max_size=3), st.sets(st.sampled_from(NAMES)))
def test_the_verdicts_are_those_of_the_plain_reading(tags, rules, immutable):
    verdicts = judge(tags, rules, NOW, immutable.__contains__)
    assert {verdict.tag.name for verdict in verdicts if verdict.lives} == plain(tags, rules, immutable)
    assert [verdict.tag for verdict in verdicts] == tags
    assert all(verdict.why for verdict in verdicts)


@settings(max_examples=200, deadline=None)
@given(st.lists(held, unique_by=lambda tag: tag.name), st.lists(clauses, min_size=1, max_size=3), clauses)
def test_another_clause_only_ever_saves(tags, rules, more):
    def kept(rules):
        return {verdict.tag.name for verdict in judge(tags, rules, NOW) if verdict.lives}

    assert kept(rules) <= kept([*rules, more])


def test_the_reasons_are_told():
    rule = RetentionRule(Pattern.parse("team/**"), Pattern.parse("b*"), last=1, pulled_within=2 * DAY)
    tags = [HeldTag("b1", 1, Digest.of(b""), NOW - 3 * DAY), HeldTag("b2", 1, Digest.of(b""), NOW - 3 * DAY),
            HeldTag("b3", 1, Digest.of(b""), NOW - 5 * DAY, NOW - DAY), HeldTag("x", 1, Digest.of(b""), NOW, NOW)]
    assert [verdict.why for verdict in judge(tags, [rule], NOW, lambda tag: tag == "x")] == [
        "no clause of team/** keeps it: pushed 3 d ago, never pulled", "team/**:b* keeps the last 1 pushed",
        "team/**:b* keeps what was pulled within 2 d", "immutable"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (86400, "24 h"),
                                               (30 * 86400, "30 d")])
def test_spans(seconds, text):
    assert span(timedelta(seconds=seconds)) == text


@pytest.fixture
def retention(content, database) -> Retention:
    return Retention(database, content.rules)


async def tags(content, repo) -> list[str]:
    return (await content.tags.list(repo, limit=None, last=None)).names


async def test_it_removes_what_no_clause_keeps(content, fill, retention, clock):
    other = RepositoryName.parse("free/app")
    for number in range(5):
        await fill.image(b"%d" % number, tags=(f"build-{number}",))
        await fill.image(b"%d" % number, tags=(f"build-{number}",), repo=other)
        clock.turn(days=1)
    await fill.image(b"v", tags=("v1", "odd"))
    clock.turn(days=1)
    content.pulls.note(fill.repo, Tag("build-1"))
    content.pulls.note(fill.repo, await content.manifests.resolve(fill.repo, Tag("build-2")))
    await content.pulls.flush()
    team = Pattern.parse("team/**")
    for rule in (RetentionRule(team, Pattern.parse("build-*"), last=1, pulled_within=DAY),
                 RetentionRule(team, Pattern.parse("v*")), ImmutableRule(team, Pattern.parse("od?")),
                 RetentionRule(Pattern.parse("**"), Pattern.parse("nothing"))):
        if rule.repositories.text != "**":
            await content.rules.put(rule)
    explained = {name.value: [v.tag.name for v in verdicts if not v.lives]
                 async for name, verdicts in retention.explain()}
    assert explained == {"team/app": ["build-0", "build-3"]}
    report = await retention.run()
    assert (report.removed, report.kept, report.changed) == ({"team/app": 2}, 5, 0)
    assert await tags(content, fill.repo) == ["build-1", "build-2", "build-4", "odd", "v1"]
    assert len(await tags(content, other)) == 5
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(fill.repo, Tag("build-0"))


async def test_what_a_push_replaced_in_the_same_moment_stays(content, fill, retention, clock, monkeypatch):
    await content.rules.put(RetentionRule(ANY, ANY, pushed_within=DAY))
    old = await fill.image(b"old", tags=("moved", "repeated", "gone", "deleted"))
    clock.turn(days=2)
    real = retention._remove

    async def remove(number, name, doomed):
        await fill.image(b"new", tags=("moved",))
        await content.tags.put(fill.repo, Tag("repeated"), old.digest)
        await content.tags.delete(fill.repo, Tag("deleted"))
        return await real(number, name, doomed)

    monkeypatch.setattr(retention, "_remove", remove)
    report = await retention.run()
    assert (report.removed, report.changed) == ({"team/app": 1}, 3)
    assert await tags(content, fill.repo) == ["moved", "repeated"]


async def test_the_most_precise_pattern_decides(content, fill, retention, clock):
    await fill.image(b"x", tags=("a",))
    await fill.image(b"x", tags=("a",), repo=RepositoryName.parse("team/other"))
    await content.rules.put(RetentionRule(Pattern.parse("team/*"), ANY, pushed_within=DAY))
    await content.rules.put(RetentionRule(Pattern.parse("team/app"), ANY))
    clock.turn(days=3)
    assert (await retention.run()).removed == {"team/other": 1}
