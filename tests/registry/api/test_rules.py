"""Rules as a client meets them, and that every way of pulling is counted."""

from datetime import timedelta

from ocispec.pattern import Pattern
from ocispec.reference import RepositoryName
from storage.metadata import pulls, repositories
from storage.metadata.rules import ImmutableRule, QuotaRule


async def test_an_immutable_tag_is_denied(api, refused) -> None:
    await api.registry.content.rules.put(ImmutableRule(Pattern.parse("team/*"), Pattern.parse("v*")))
    digest = await api.image("v1")
    await api.image("v1")
    other = await api.document(layer=b"other")
    error = await refused(api.manifest("v1", other), 403, "DENIED")
    assert error["message"].startswith("tag v1 of team/app is immutable")
    assert error["detail"] == {"tag": "v1", "rule": "team/*:v*"}
    await refused(api.delete("/v2/team/app/manifests/v1"), 403, "DENIED")
    await refused(api.delete(f"/v2/team/app/manifests/{digest}"), 403, "DENIED")


async def test_a_quota_is_denied_with_its_numbers(api, refused) -> None:
    await api.registry.content.rules.put(QuotaRule("team", 100))
    await api.blob(b"x" * 80)
    location = await api.begin()
    error = await refused(api.put(f"{location}?digest=sha256:{'0' * 64}", data=b"y" * 21), 403, "DENIED")
    assert error["detail"] == {"namespace": "team", "limit": 100, "used": 80, "asked": 21}
    await api.blob(b"y" * 20)
    await refused(api.post("/v2/team/app/blobs/uploads/"), 403, "DENIED")
    await api.blob(b"y" * 21, repo="other/app")


async def test_every_pull_counts(api) -> None:
    digest = await api.image("t")
    for path in ("t", str(digest)):
        url = f"/v2/team/app/manifests/{path}"
        for method in ("GET", "HEAD"):
            for headers in ({}, {}, {"If-None-Match": f'"{digest}"'}):  # anew, from the fast lane, conditional
                async with api.request(method, url, headers=headers) as answer:
                    assert answer.status == (304 if headers else 200)
    await api.registry.content.pulls.flush()
    database = api.registry.content.pulls.database
    async with database.read() as tx:
        number = await repositories.find(tx, RepositoryName.parse("team/app"))
        found = await pulls.of(tx, number)
    assert {reference: count for reference, (_, count) in found.items()} == {"t": 6, str(digest): 3}
    assert all(database.now() - last < timedelta(minutes=1) for last, _ in found.values())
