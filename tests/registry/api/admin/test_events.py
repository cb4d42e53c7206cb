"""The audit log and webhooks over the administration API."""

from tests.registry.api.admin.test_administration import ask

HOOK = {"url": "https://hooks.test/here", "secret": "a secret long enough", "actions": ["manifest.*"],
        "repositories": ["team/*"], "format": "distribution"}


async def test_what_was_done_can_be_looked_up(api, refused) -> None:
    await api.image("v1", repo="team/app")
    await api.image("v1", repo="team/other")
    status, found = await ask(api, "GET", "/api/v1/events?repository=team/app&action=manifest.push")
    assert status == 200
    (event,) = found["items"]
    assert (event["repository"], event["action"], event["result"]) == ("team/app", "manifest.push", "ok")
    _, page = await ask(api, "GET", "/api/v1/events?limit=1")
    assert len(page["items"]) == 1
    _, after = await ask(api, "GET", f"/api/v1/events?limit=1&before={page['next']}")
    assert after["items"][0]["number"] < page["items"][0]["number"]
    _, none = await ask(api, "GET", "/api/v1/events?since=2100-01-01T00:00:00Z")
    assert none == {"items": [], "next": None}
    await refused(api.get("/api/v1/events?action=fly"), 400, "UNSUPPORTED")
    await refused(api.get("/api/v1/events?since=soon"), 400, "UNSUPPORTED")


async def test_webhooks_are_made_changed_and_removed(api, refused) -> None:
    assert (await ask(api, "PUT", "/api/v1/webhooks/ci", json=HOOK))[0] == 204
    _, found = await ask(api, "GET", "/api/v1/webhooks")
    (hook,) = found["items"]
    assert (hook["name"], hook["url"], hook["signed"], hook["fixed"]) == ("ci", HOOK["url"], True, False)
    assert "secret" not in hook
    assert (await ask(api, "PUT", "/api/v1/webhooks/ci", json={**HOOK, "secret": "", "enabled": False}))[0] == 204
    _, found = await ask(api, "GET", "/api/v1/webhooks")
    assert (found["items"][0]["signed"], found["items"][0]["enabled"]) == (True, False)
    assert await ask(api, "GET", "/api/v1/webhooks/ci/dead") == (200, {"items": []})
    assert await ask(api, "POST", "/api/v1/webhooks/ci/redeliveries", json={}) == (200, {"events": 0})
    assert (await ask(api, "DELETE", "/api/v1/webhooks/ci"))[0] == 204
    await refused(api.delete("/api/v1/webhooks/ci"), 404, "UNKNOWN")
    await refused(api.put("/api/v1/webhooks/ci", json={**HOOK, "url": "ftp://a"}), 400, "UNSUPPORTED")
    await refused(api.put("/api/v1/webhooks/ci", json={**HOOK, "secret": "short"}), 400, "UNSUPPORTED")
    _, log = await ask(api, "GET", "/api/v1/events?action=webhook.change")
    assert len(log["items"]) == 3
