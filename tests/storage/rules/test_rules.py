"""Immutable tags, tags that may only be added, quotas: in the transaction of the change."""

import asyncio
from datetime import timedelta

import pytest

from ocispec.digest import Digest
from ocispec.pattern import Pattern
from ocispec.reference import RepositoryName, Tag
from storage.gc.sweep import Collector
from storage.metadata import usage
from storage.metadata.rules import ImmutableRule, InvalidRule, Kind, QuotaRule, RetentionRule, UntaggedRule
from storage.repository.manifests import ManifestUnknown
from storage.rules.accounting import Accounting
from storage.rules.book import Quota, RuleBook
from storage.rules.refusals import QuotaExceeded, TagExists, TagImmutable
from storage.rules.service import Rules

ANY = Pattern.parse("**")
OTHER = RepositoryName.parse("team/other")


def immutable(repositories: str, tags: str) -> ImmutableRule:
    return ImmutableRule(Pattern.parse(repositories), Pattern.parse(tags))


@pytest.fixture
def rules(content) -> Rules:
    return content.rules


async def used(database, namespace: str) -> int:
    async with database.read() as tx:
        return await usage.used(tx, namespace)


async def test_an_immutable_tag_can_be_made_and_repeated_but_not_moved(content, fill, rules):
    await rules.put(immutable("team/*", "v*"))
    first = await fill.image(b"1", tags=("v1", "latest"))
    assert await fill.image(b"1", tags=("v1",)) == first
    with pytest.raises(TagImmutable) as caught:
        await fill.image(b"2", tags=("latest", "v1"))
    assert "v1" in caught.value.message
    assert caught.value.detail == {"tag": "v1", "rule": "team/*:v*"}
    assert await content.manifests.get(fill.repo, Tag("latest")) == first, "all or nothing"
    second = await fill.image(b"2", tags=("latest",))
    with pytest.raises(TagImmutable):
        await content.tags.put(fill.repo, Tag("v1"), second.digest)
    with pytest.raises(TagImmutable):
        await content.tags.delete(fill.repo, Tag("v1"))
    with pytest.raises(TagImmutable):
        await content.manifests.delete(fill.repo, first.digest)
    await content.manifests.delete(fill.repo, second.digest)
    await content.tags.delete(fill.repo, Tag("v1"), force=True)
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(fill.repo, Tag("v1"))


async def test_without_the_rule_it_moves_again(fill, rules):
    await rules.put(immutable("**", "v1"))
    await fill.image(b"1", tags=("v1",))
    assert await rules.remove(Kind.IMMUTABLE, "**") == 1
    assert await rules.remove(Kind.IMMUTABLE, "**") == 0
    await fill.image(b"2", tags=("v1",))


async def test_who_may_only_add_cannot_move(content, fill, make_image):
    first = await fill.image(b"1", tags=("t",))
    config, layer = await fill.blob(b"{}"), await fill.blob(b"2")
    with pytest.raises(TagExists):
        await content.manifests.put(fill.repo, make_image(config, layer), tags=[Tag("new"), Tag("t")], overwrite=False)
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(fill.repo, Tag("new"))
    stored = await content.manifests.put(fill.repo, make_image(config, layer), tags=[Tag("new")], overwrite=False)
    with pytest.raises(TagExists):
        await content.tags.put(fill.repo, Tag("t"), stored.digest, overwrite=False)
    await content.tags.put(fill.repo, Tag("t"), first.digest, overwrite=False)


async def test_two_pushes_of_a_new_tag_by_those_who_may_only_add(content, fill, make_image):
    """One of them comes first, and the other does not move it (zot's CVE-2026-31801)."""
    config = await fill.blob(b"{}")
    images = [make_image(config, await fill.blob(b"%d" % number)) for number in range(6)]
    results = await asyncio.gather(
        *(content.manifests.put(fill.repo, image, tags=[Tag("t")], overwrite=False) for image in images),
        return_exceptions=True)
    assert sum(isinstance(result, TagExists) for result in results) == 5


async def test_a_blob_counts_once_for_a_namespace(content, fill, rules, database):
    await rules.put(QuotaRule("team", 10_000))
    first = await fill.image(b"x" * 1000, tags=("t",))
    await fill.image(b"x" * 1000, tags=("t",), repo=OTHER)
    assert await used(database, "team") == 1000 + 2 + 2 * len(first.raw)
    await content.blobs.delete(OTHER, Digest.of(b"x" * 1000))
    assert await used(database, "team") == 1000 + 2 + 2 * len(first.raw), "another repository has it still"
    await content.manifests.delete(OTHER, first.digest)
    await content.blobs.delete(fill.repo, Digest.of(b"x" * 1000))
    assert await used(database, "team") == 2 + len(first.raw)
    await fill.image(b"x" * 1000, tags=("t",), repo=RepositoryName.parse("teamwork/app"))
    assert await used(database, "team") == 2 + len(first.raw), "team is not teamwork"


async def test_what_does_not_fit_is_refused_with_the_numbers(content, fill, rules, stream):
    await rules.put(QuotaRule("team", 5000))
    await rules.put(QuotaRule("team/app", 3000))
    await fill.blob(b"a" * 2500)
    upload = await content.uploads.start(fill.repo)
    await upload.append(stream(b"b" * 400))
    with pytest.raises(QuotaExceeded) as caught:
        await upload.append(stream(b"b" * 400))
    assert caught.value.detail == {"namespace": "team/app", "limit": 3000, "used": 2500, "asked": 800}
    assert upload.offset == 400
    await upload.commit(Digest.of(b"b" * 400))
    assert (await content.blobs.mount(OTHER, Digest.of(b"a" * 2500), fill.repo)) is not None, "free: once for team"
    await fill.blob(b"c" * 2000, repo=OTHER)
    with pytest.raises(QuotaExceeded) as caught:
        await fill.image(b"a" * 2500, repo=OTHER, config=b"c" * 2000, tags=("t",))
    assert caught.value.detail["namespace"] == "team"
    with pytest.raises(ManifestUnknown):
        await content.manifests.get(OTHER, Tag("t"))


async def test_a_full_namespace_refuses_at_once(content, fill, rules):
    await rules.put(QuotaRule("**", 10))
    await fill.blob(b"0123456789")
    with pytest.raises(QuotaExceeded) as caught:
        await content.uploads.start(OTHER)
    assert caught.value.message == "quota exceeded: the registry holds 10 of 10 bytes, 1 more do not fit"


async def test_pushes_at_once_keep_the_limit(content, fill, rules, database):
    await rules.put(QuotaRule("team", 10_500))

    async def push(number: int) -> bool:
        try:
            await fill.blob(b"%04d" % number * 250, repo=RepositoryName.parse(f"team/{number % 3}"))
        except QuotaExceeded:
            return False
        return True

    results = await asyncio.gather(*map(push, range(25)))
    assert sum(results) == 10
    assert await used(database, "team") == 10_000


def test_which_quotas_hold():
    book = RuleBook([QuotaRule("**", 1), QuotaRule("*", 2), QuotaRule("a", 3), QuotaRule("b/c", 4)])

    def of(name: str) -> list[tuple[str, int]]:
        return [(quota.namespace, quota.limit) for quota in book.quotas(RepositoryName.parse(name))]

    assert of("a/x") == [("", 1), ("a", 3)]
    assert of("b/c/d") == [("", 1), ("b", 2), ("b/c", 4)]
    assert of("b/cd") == [("", 1), ("b", 2)]
    assert list(book.quotas_over(["a", "b", "z"])) == [
        Quota("", 1), Quota("a", 3), Quota("b", 2), Quota("b/c", 4), Quota("z", 2)]


async def test_rules_come_back_as_they_were_written(rules, database):
    written = [
        immutable("team/**", "v*"), QuotaRule("team", 5), UntaggedRule(ANY, None),
        UntaggedRule(Pattern.parse("x"), timedelta(days=2)),
        RetentionRule(ANY, Pattern.parse("b-*"), 3, timedelta(days=1), timedelta(hours=1.5)),
    ]
    for rule in written:
        await rules.put(rule)
    found = (await Rules(database).current()).rules
    assert sorted(map(repr, found)) == sorted(map(repr, written))


@pytest.mark.parametrize("rule", [
    QuotaRule("team/*", 1), QuotaRule("team", -1), RetentionRule(ANY, ANY, last=0),
    RetentionRule(ANY, ANY, pushed_within=timedelta(0))])
async def test_what_cannot_be_meant_is_refused(rules, rule):
    with pytest.raises(InvalidRule):
        await rules.put(rule)


async def test_accounts_are_counted_when_a_quota_begins_and_repaired(content, fill, rules, database):
    await fill.image(b"x" * 1000, tags=("t",))
    await fill.image(b"x" * 1000, tags=("t",), repo=OTHER)
    await rules.put(QuotaRule("*", 10_000))
    await rules.put(QuotaRule("**", 20_000))
    accounting = Accounting(database, rules)
    before = await accounting.usage(count=True)
    assert [(item.quota.namespace, item.used) for item in before] == [("", 0), ("team", 0)]
    actual = before[1].actual
    assert [(item.used, item.actual) for item in await accounting.repair()] == [(0, actual), (0, actual)]
    assert await used(database, "team") == await used(database, "") == actual
    await fill.image(b"y" * 100, tags=("t2",), config=b"[]")
    after = await accounting.usage(count=True)
    assert all(item.used == item.actual > actual for item in after)
    assert await accounting.repair() == []
    await rules.remove(Kind.QUOTA, "**")
    await accounting.repair()
    assert await used(database, "") == 0
    assert await used(database, "team") == after[1].actual


async def test_many_charges_are_folded(fill, rules, database, monkeypatch):
    monkeypatch.setattr("storage.rules.accounting.FOLD_AT", 5)
    await rules.put(QuotaRule("team", 10_000))
    for number in range(10):
        await fill.blob(b"%010d" % number)
    await Accounting(database, rules).fold()
    async with database.read() as tx:
        assert await usage.rows(tx, "team") == 1
    assert await used(database, "team") == 100


async def test_what_the_collector_removes_is_given_back(content, fill, rules, database, blobs, clock):
    await rules.put(QuotaRule("team", 10_000))
    await fill.image(b"gone" * 100)
    kept = await fill.image(b"kept", tags=("t",))
    clock.turn(days=2)
    await Collector(database, blobs, rules=rules).turn(grace=timedelta(days=1))
    assert await used(database, "team") == len(kept.raw) + len(b"kept") + len(b"{}")
    assert await Accounting(database, rules).repair() == []


async def test_a_snapshot_from_before_a_change_is_not_remembered_as_what_is(rules, database):
    """A reader that began earlier sees the old rules, and must not leave them in memory as the new ones."""
    await rules.current()
    async with database.read() as tx:
        await usage.used(tx, "team")  # from here on it sees one state
        await rules.put(QuotaRule("team", 1))
        assert (await rules.book(tx)).rules == ()
    async with database.read() as tx:
        assert (await rules.book(tx)).rules == (QuotaRule("team", 1),)
    async with database.write() as tx:
        first = await rules.book(tx)
        assert await rules.book(tx) is first, "and is remembered from here on"
