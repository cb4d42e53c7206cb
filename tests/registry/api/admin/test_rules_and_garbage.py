"""Rules and collections over the administration API."""

from tests.registry.api.admin.test_administration import ask, at

RULES = "/api/v1/rules"


async def test_rules_are_set_shown_and_removed(api) -> None:
    wanted = {
        "retention": {"repositories": "team/**", "tags": "v*", "last": 3, "pushed_within": 3600, "pulled_within": None},
        "untagged": {"repositories": "team/**", "keep": 60},
        "immutable": {"repositories": "team/*", "tags": "release-*"},
    }
    for kind, body in wanted.items():
        assert (await ask(api, "PUT", f"{RULES}/{kind}", json=body))[0] == 204
    assert (await ask(api, "PUT", f"{RULES}/quotas", json={"namespace": "team", "bytes": 10**9}))[0] == 204
    _, book = await ask(api, "GET", RULES)
    assert book == {**{kind: [body] for kind, body in wanted.items()},
                    "quotas": [{"namespace": "team", "bytes": 10**9}]}
    for kind in wanted:
        assert (await ask(api, "DELETE", f"{RULES}/{kind}", params={"repositories": wanted[kind]["repositories"]}))[0] == 204
    assert (await ask(api, "DELETE", f"{RULES}/quotas?namespace=team"))[0] == 204
    _, book = await ask(api, "GET", RULES)
    assert book == {"retention": [], "untagged": [], "immutable": [], "quotas": []}


async def test_a_rule_that_cannot_be(api, refused) -> None:
    for kind, body in (("retention", {"repositories": ""}), ("retention", {"repositories": "a", "last": 0}),
                       ("untagged", {"repositories": "a"}), ("quotas", {"namespace": "a*b", "bytes": 1}),
                       ("quotas", {"namespace": "a", "bytes": -1}), ("immutable", {"repositories": "a b"})):
        await refused(api.put(f"{RULES}/{kind}", json=body), 400, "UNSUPPORTED")
    await refused(api.delete(f"{RULES}/immutable?repositories=none"), 404, "UNKNOWN")


async def test_what_retention_would_do_before_it_does_it(api) -> None:
    for tag in ("v1", "v2", "v3"):
        await api.image(tag, repo="team/app", layer=tag.encode())
    clause = {"repositories": "team/**", "last": 1}
    _, found = await ask(api, "POST", f"{RULES}/retention/preview", json={"clauses": [clause]})
    assert (found["stay"], found["go"]) == (1, 2)
    assert [item["tag"] for item in found["items"]] == ["v1", "v2"]
    assert all(item["why"] for item in found["items"])
    _, now = await ask(api, "POST", f"{RULES}/retention/preview", json={})
    assert (now["stay"], now["go"]) == (0, 0)  # there are no rules
    _, tags = await ask(api, "GET", at("team/app", "tags"))
    assert len(tags["items"]) == 3


async def test_a_quota_counts_what_is_there_already(api) -> None:
    await api.image("v1", repo="team/app", layer=b"x" * 5000)
    assert (await ask(api, "PUT", f"{RULES}/quotas", json={"namespace": "team", "bytes": 6000}))[0] == 204
    for query in ("", "?count=true"):
        _, found = await ask(api, "GET", f"{RULES}/quotas/usage{query}")
        (use,) = found["items"]
        assert use["namespace"] == "team"
        assert 5000 < use["used"] < 6000
        assert use["counted"] == (use["used"] if query else None)
        assert not use["full"]


async def test_a_collection_can_be_asked_for(api) -> None:
    await api.image("v1", repo="team/app")
    for dry_run in (True, False):
        status, found = await ask(api, "POST", "/api/v1/garbage/collections", json={"dry_run": dry_run})
        assert status == 200
        assert (found["dry_run"], found["removed"], found["freed"]) == (dry_run, [], 0)
        assert found["kept"] == 3


async def test_a_repository_is_emptied(api, refused) -> None:
    await api.image("v1", "v2", repo="team/app")
    await api.image("v3", repo="team/app", layer=b"other")
    assert (await ask(api, "PUT", f"{RULES}/immutable", json={"repositories": "team/*", "tags": "v1"}))[0] == 204
    error = await refused(api.delete(at("team/app")), 403, "DENIED")
    assert "v1" in error["message"]
    _, tags = await ask(api, "GET", at("team/app", "tags"))
    assert [item["tag"] for item in tags["items"]] == ["v1", "v2", "v3"]  # nothing is half-done
    status, found = await ask(api, "DELETE", at("team/app") + "?force=true")
    assert status == 200
    assert found["manifests"] == 2
    await refused(api.get(at("team/app", "tags")), 404, "NAME_UNKNOWN")
    await refused(api.delete(at("team/app")), 404, "NAME_UNKNOWN")
