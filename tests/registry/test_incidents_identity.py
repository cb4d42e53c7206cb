"""What befell other registries where identity was concerned, tried here. One test a class of incident
(docs/identity.md has the list)."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from base64 import urlsafe_b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from ocispec.digest import Digest
from registry import app
from registry.auth.accounts import LastAdministrator
from registry.settings import AuthSettings, InvalidSettings, Settings

COMMAND = str(Path(sys.executable).with_name("seawall-registry"))


async def answer_of(api, method: str, path: str, headers=None, **more) -> tuple[int, bytes]:
    async with api.request(method, path, headers=headers or {}, **more) as answer:
        return answer.status, await answer.read()


async def code(api, method: str, path: str, headers=None, **more) -> int:
    return (await answer_of(api, method, path, headers, **more))[0]


async def listed(api, path: str, key: str, headers=None) -> list[str]:
    status, body = await answer_of(api, "GET", path, headers)
    assert status == 200, body
    return json.loads(body)[key]


async def token(api, headers, *scopes: str) -> dict[str, str]:
    async with api.get("/token", params=[("scope", scope) for scope in scopes], headers=headers) as answer:
        return {"Authorization": f"Bearer {(await answer.json())['token']}"}


@pytest.fixture
async def filled(guarded, basic):
    """With an image in `team/app`, `team/secret/app` and `public/app`."""
    guarded.session.headers.update(basic("root"))
    for repo in ("team/app", "team/secret/app", "public/app"):
        await guarded.image("v1", repo=repo, layer=repo.encode())
    del guarded.session.headers["Authorization"]
    return guarded


async def test_default_credentials(tmp_path) -> None:
    """Harbor CVE-2026-4404: there is no password that everybody knows. The first start makes a token and shows it
    once; the second does not."""
    settings = Settings(data=tmp_path, auth=AuthSettings(mode="accounts"))
    first = await asyncio.to_thread(app.prepare, settings)
    second = await asyncio.to_thread(app.prepare, settings)
    assert first.startswith("swa_")
    assert second is None
    made = subprocess.run([COMMAND, "token", "admin", "--data", str(tmp_path)], capture_output=True, text=True, timeout=60,
                          check=True)
    assert made.stdout.strip().startswith("swa_")
    assert made.stdout.strip() != first
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("registry.db*"))
    assert first.encode() not in raw
    assert made.stdout.strip().encode() not in raw


async def test_secrets_at_rest(guarded, settings, basic) -> None:
    """Quay CVE-2026-18255: what is stored cannot be used, and nobody else can read the file."""
    _, text = await guarded.registry.identity.robots.create("ci")
    async with guarded.get("/token", params={"offline_token": "true"}, headers=basic("ann")) as answer:
        refresh = (await answer.json())["refresh_token"]
    folder = settings.data
    raw = b"".join(path.read_bytes() for path in folder.glob("registry.db*"))
    for secret in (b"correct horse", text.encode(), refresh.encode()):
        assert secret not in raw
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.glob("registry.db*"))


@pytest.mark.parametrize("action", ["pull", "mount", "head", "discover"])
async def test_a_blob_of_another_repository(filled, basic, action) -> None:
    """zot CVE-2024-39897, Gitea's mount: a blob is read, headed, mounted or discovered only by whoever may pull a
    repository that has it."""
    secret = Digest.of(b"team/secret/app")
    for who in (basic("bob"), await token(filled, basic("bob"), "repository:drop/x:pull,push", "repository:team/secret/app:pull")):
        if action in ("pull", "head"):
            method = {"pull": "GET", "head": "HEAD"}[action]
            for repo in ("team/secret/app", "team/app", "drop/x"):
                assert await code(filled, method, f"/v2/{repo}/blobs/{secret}", who) in (401, 403, 404)
            continue
        source = "&from=team/secret/app" if action == "mount" else ""
        assert await code(filled, "POST", f"/v2/drop/x/blobs/uploads/?mount={secret}{source}", who) == 202
        assert await code(filled, "GET", f"/v2/drop/x/blobs/{secret}", who) == 404
    # What bob may pull he may mount.
    mine = Digest.of(b"team/app")
    assert await code(filled, "POST", f"/v2/drop/x/blobs/uploads/?mount={mine}&from=team/app", basic("bob")) == 201


async def test_an_upload_of_somebody_else(guarded, basic) -> None:
    """Quay CVE-2026-32589: an upload belongs to its repository and to who began it."""
    await guarded.registry.identity.policies.set("team/**", "user:bob", ["pull", "push"])
    async with guarded.post("/v2/team/app/blobs/uploads/", headers=basic("ann")) as answer:
        place = answer.headers["Location"]
    for method in ("GET", "PATCH", "DELETE"):
        assert await code(guarded, method, place, basic("bob"), data=b"x" if method == "PATCH" else None) == 404
    assert await code(guarded, "PUT", f"{place}?digest={Digest.of(b'x')}", basic("bob"), data=b"x") == 404
    assert await code(guarded, "GET", place.replace("team/app", "team/other"), basic("ann")) == 404
    signed = await token(guarded, basic("ann"), "repository:team/app:pull,push")
    assert await code(guarded, "PATCH", place, signed, data=b"x") == 202  # the same principal by another credential
    assert await code(guarded, "PUT", f"{place}?digest={Digest.of(b'x')}", basic("ann")) == 201


async def test_create_does_not_overwrite(guarded, basic) -> None:
    """zot CVE-2026-31801: who may only add moves no tag, by no way, also not in a race."""
    guarded.session.headers.update(basic("bob"))
    first, second = [await guarded.document(repo="drop/x", layer=layer) for layer in (b"1", b"2")]
    async with guarded.manifest("v1", first, repo="drop/x") as answer:
        assert answer.status == 201
    async with guarded.manifest("v1", first, repo="drop/x") as answer:
        assert answer.status == 201  # the same again is no move
    async with guarded.manifest("v1", second, repo="drop/x") as answer:
        assert answer.status in (403, 409), await answer.text()
    async with guarded.manifest(f"{Digest.of(second)}?tag=v1", second, repo="drop/x") as answer:
        assert answer.status in (403, 409)

    async def race(raw: bytes) -> int:
        async with guarded.manifest("fresh", raw, repo="drop/x") as answer:
            return answer.status

    assert sorted(await asyncio.gather(race(first), race(second))) in ([201, 403], [201, 409])
    assert await code(guarded, "DELETE", "/v2/drop/x/manifests/v1") == 403
    async with guarded.head("/v2/drop/x/manifests/v1") as answer:
        assert answer.headers["Docker-Content-Digest"] == str(Digest.of(first))


async def test_every_delete_asks_the_same_policy(filled, basic) -> None:
    """distribution CVE-2026-41888: tags, manifests and blobs; by every credential."""
    digest = Digest.of(b"team/app")
    async with filled.head("/v2/team/app/manifests/v1", headers=basic("ann")) as answer:
        manifest = answer.headers["Docker-Content-Digest"]
    pull_only = await token(filled, basic("ann"), "repository:team/app:pull,push")
    for path in ("manifests/v1", f"manifests/{manifest}", f"blobs/{digest}"):
        assert await code(filled, "DELETE", f"/v2/team/app/{path}", basic("bob")) == 403
        assert await code(filled, "DELETE", f"/v2/team/app/{path}", pull_only) == 401
        assert await code(filled, "DELETE", f"/v2/team/app/{path}") == 401
        assert await code(filled, "DELETE", f"/v2/team/app/{path}", basic("ann")) == 202


async def test_deleted_stays_deleted(filled, basic) -> None:
    """distribution CVE-2026-35172: what was read, also by the fast way, is not read after its deletion."""
    for _ in range(3):
        assert await code(filled, "GET", "/v2/team/app/manifests/v1", basic("ann")) == 200
        assert await code(filled, "GET", f"/v2/team/app/blobs/{Digest.of(b'team/app')}", basic("ann")) == 200
    assert await code(filled, "DELETE", f"/v2/team/app/blobs/{Digest.of(b'team/app')}", basic("ann")) == 202
    assert await code(filled, "DELETE", "/v2/team/app/manifests/v1", basic("ann")) == 202
    for who in ("ann", "bob"):
        assert await code(filled, "GET", f"/v2/team/app/blobs/{Digest.of(b'team/app')}", basic(who)) == 404
        assert await code(filled, "GET", "/v2/team/app/manifests/v1", basic(who)) == 404


async def test_groups_are_replaced_not_added(guarded, basic) -> None:
    """zot CVE-2025-23208: who leaves a group loses what it gave, at once and with every credential."""
    signed = await token(guarded, basic("bob"), "repository:team/app:pull")
    for who in (signed, basic("bob")):
        assert await code(guarded, "GET", "/v2/team/app/tags/list", who) == 404
    await guarded.registry.identity.accounts.set_groups("bob", ["other"])
    assert (await guarded.registry.identity.accounts.get("bob")).groups == {"other"}
    for who in (signed, basic("bob")):
        assert await code(guarded, "GET", "/v2/team/app/tags/list", who) == 403


async def test_a_registry_token_administers_nothing(guarded, basic) -> None:
    """Quay CVE-2026-123710: tokens of the token server, an administrator's or nobody's, open no administration."""
    signed = await token(guarded, basic("root"), "registry:catalog:*", "repository:team/app:*")
    nobody = await token(guarded, {}, "registry:catalog:*")
    for path in ("/api/v1/repositories", "/api/v1/repositories/team%2Fapp"):
        assert await code(guarded, "GET", path, signed) == 403
        assert await code(guarded, "GET", path, nobody) in (401, 403)
        assert await code(guarded, "GET", path, basic("root")) in (200, 404)
    async with guarded.get("/token", headers=signed) as answer:
        assert answer.status == 401  # nor do they beget others


async def test_pages_of_administration_tell_of_no_others(filled, basic) -> None:
    """The same lesson as the catalog's: what may not be seen is not the name that a page goes on after either."""
    filled.session.headers.update(basic("root"))
    await filled.image("v1", repo="secret/other")
    del filled.session.headers["Authorization"]
    for after in ("", "public/app", "team/app"):
        for limit in (1, 2, 3):
            path = f"/api/v1/repositories?limit={limit}&after={after}"
            status, body = await answer_of(filled, "GET", path, basic("bob"))
            assert status == 200
            assert b"secret" not in body, path
            page = json.loads(body)
            assert page["next"] in ("", *[item["name"] for item in page["items"]][-1:])
    _, body = await answer_of(filled, "GET", "/api/v1/repositories?limit=2", basic("bob"))
    assert [item["name"] for item in json.loads(body)["items"]] == ["public/app", "team/app"]


async def test_who_may_not_administer_sends_no_body(guarded, basic) -> None:
    """Nothing is held in memory for a stranger: the refusal comes while the body is still on its way."""
    never = asyncio.Event()

    async def body():
        yield b" "
        await never.wait()

    for who, status in (({}, 401), (basic("bob"), 403)):
        headers = {"Content-Type": "application/json", **who}
        async with asyncio.timeout(5), guarded.request("PUT", "/api/v1/policies", headers=headers, data=body()) as answer:
            assert answer.status == status


async def test_the_key_itself_is_compared(guarded) -> None:
    """distribution CVE-2025-24976: a token that brings a key along, under the name of ours, is not believed."""
    kid, _ = guarded.registry.identity.keyring.signing()
    mine = OKPKey.generate_key("Ed25519")
    user = await guarded.registry.access._authenticator._accounts._users.find("root")
    said = {"iss": "seawall", "aud": "seawall", "sub": "user:root", "iat": 1, "nbf": 1, "exp": 9999999999, "jti": "x",
            "stamp": user.stamp, "access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}]}
    for header in ({}, {"jwk": mine.as_dict(private=False)}):
        text = jwt.encode({"typ": "JWT", "alg": "Ed25519", "kid": kid, **header}, said, mine, algorithms=["Ed25519"])
        assert await code(guarded, "GET", "/v2/", {"Authorization": f"Bearer {text}"}) == 401
    unsigned = [urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
                for part in ({"alg": "none", "kid": kid}, said)]
    assert await code(guarded, "GET", "/v2/", {"Authorization": f"Bearer {unsigned[0]}.{unsigned[1]}."}) == 401


async def test_enumeration(filled, basic) -> None:
    """Harbor CVE-2019-19030, CVE-2022-46463: a repository that may not be seen answers as one that does not exist, a
    user who does not exist as a wrong password."""
    digest = Digest.of(b"team/secret/app")
    for who in (basic("bob"), {}, await token(filled, basic("bob"), "repository:team/app:pull")):
        for method, path in (("GET", "tags/list"), ("GET", "manifests/v1"), ("HEAD", "manifests/v1"), ("GET", f"blobs/{digest}"),
                             ("GET", f"referrers/{digest}"), ("DELETE", "manifests/v1"), ("POST", "blobs/uploads/")):
            there = await answer_of(filled, method, f"/v2/team/secret/app/{path}", who)
            absent = await answer_of(filled, method, f"/v2/team/secret/none/{path}", who)
            assert there[0] == absent[0] in (401, 403), (method, path)
            assert there[1].replace(b"/app", b"") == absent[1].replace(b"/none", b"")
    unknown = await answer_of(filled, "GET", "/v2/", basic("nobody-here", "x"))
    wrong = await answer_of(filled, "GET", "/v2/", basic("ann", "x"))
    assert unknown == wrong


async def test_lists_show_only_what_may_be_pulled(filled, basic) -> None:
    """Harbor CVE-2022-31667 and its kin: catalog, search and their counts and links tell nothing of others."""
    for who, seen in (({}, ["public/app"]), (basic("bob"), ["public/app", "team/app"]),
                      (basic("root"), ["public/app", "team/app", "team/secret/app"]),
                      (await token(filled, basic("bob"), "registry:catalog:*"), ["public/app", "team/app"])):
        if who:
            assert await listed(filled, "/v2/_catalog", "repositories", who) == seen
        if "Bearer" not in str(who):
            found = json.loads((await answer_of(filled, "GET", "/v1/search?q=app", who))[1])
            assert (sorted(item["name"] for item in found["results"]), found["num_results"]) == (seen, len(seen))
    assert json.loads((await answer_of(filled, "GET", "/v1/search?q=secret", basic("bob")))[1])["num_results"] == 0


async def test_catalog_pages_are_full_and_tell_no_hidden_name(guarded, basic) -> None:
    """Paging stays correct when nearly everything is hidden, and the link names nothing that is."""
    guarded.session.headers.update(basic("root"))
    raw = await guarded.document(repo="team/base")
    for name in [f"hidden/r{number:03}" for number in range(40)] + [f"public/r{number}" for number in range(7)] + ["zz/last"]:
        for digest in (Digest.of(b"{}"), Digest.of(b"layer")):
            assert await code(guarded, "POST", f"/v2/{name}/blobs/uploads/?mount={digest}&from=team/base") == 201
        async with guarded.manifest("v1", raw, repo=name) as answer:
            assert answer.status == 201
    del guarded.session.headers["Authorization"]
    path, seen = "/v2/_catalog?n=3", []
    while path:
        async with guarded.get(path, headers=basic("bob")) as answer:
            page = (await answer.json())["repositories"]
            link = answer.headers.get("Link", "")
        assert "hidden" not in link
        assert "zz" not in link
        assert len(page) == 3 or not link
        seen += page
        path = link.partition("<")[2].partition(">")[0]
    assert seen == [f"public/r{number}" for number in range(7)]


async def test_guessing_is_slowed_and_locks_nobody_out(guarded, basic) -> None:
    """Quay's rate tiers, zot's failDelay: guessing a password costs time, and costs its owner nothing."""
    assert await code(guarded, "GET", "/v2/", basic("ann")) == 200
    answers = [await code(guarded, "GET", "/v2/", basic("ann", f"guess-{number}")) for number in range(8)]
    assert answers[-1] == 429
    assert answers.count(401) <= 6
    assert await code(guarded, "GET", "/v2/", basic("ann")) == 200
    _, text = await guarded.registry.identity.robots.create("ci")
    assert [await code(guarded, "GET", "/v2/", basic("x", "swr_" + "a" * 58)) for _ in range(8)][-1] == 429
    assert await code(guarded, "GET", "/v2/", basic("ci", text)) == 200  # a good token is never held up


async def test_injection(guarded, basic) -> None:
    """Harbor CVE-2019-19026, GO-2024-2916: names, passwords and searches are values, never SQL, headers or paths."""
    for name in ("ann' OR '1'='1", 'ann" --', "ann\x00", "ann%", "_nn", "*", "../ann", "a" * 3000, "ann\r\nX: y"):
        assert await code(guarded, "GET", "/v2/", basic(name)) == 401
    for text in ("%", "_", "' OR 1=1 --", "\\", "!", "%25"):
        status, body = await answer_of(guarded, "GET", "/v1/search", basic("bob"), params={"q": text})
        assert (status, json.loads(body)["results"]) == (200, [])
    async with guarded.get("/v2/", headers={"Host": 'evil",realm="http://thief/'}) as answer:
        assert "thief" not in answer.headers["WWW-Authenticate"]


async def test_forwarded_headers_of_strangers(guarded) -> None:
    """distribution CVE-2026-33540's other end: nobody but a trusted proxy moves our realm, and with it the password."""
    told = {"X-Forwarded-Host": "evil.example.com", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example.com"}
    async with guarded.get("/v2/", headers=told) as answer:
        assert "evil" not in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("asked", [{}, {"auth": {"mode": "accounts"}}, {"insecure_no_auth": True}])
def test_open_to_the_world_by_accident(asked) -> None:
    """Registries found by scanners: beyond loopback without accounts or without TLS only on purpose."""
    with pytest.raises(InvalidSettings, match="insecure-no"):
        app.check_exposure(Settings.load(None, {}, listen="0.0.0.0:5000", **asked))


async def test_accounts_that_would_not_count(tmp_path, caplog) -> None:
    """A registry that has users and asks nobody says so."""
    settings = Settings(data=tmp_path)
    async with app.open_registry(settings) as registry:
        await registry.identity.accounts.add("ann", "correct horse")
    await asyncio.to_thread(app.prepare, settings)
    assert "everybody may do everything" in caplog.text


async def test_the_last_administrator(guarded) -> None:
    """Nobody locks the registry's door from outside."""
    accounts = guarded.registry.identity.accounts
    for last in (accounts.remove("root"), accounts.set_flags("root", admin=False), accounts.set_flags("root", enabled=False)):
        with pytest.raises(LastAdministrator):
            await last
    assert (await accounts.get("root")).admin
    await guarded.registry.identity.robots.new_admin()
    await accounts.remove("root")


async def test_policies_change_without_a_restart_in_every_worker(settings, basic) -> None:
    """Two processes on one database: what one changes the other heeds with its next answer."""
    import aiohttp

    from registry.workers import listen
    both = replace(settings, auth=AuthSettings(mode="accounts"), listen="127.0.0.1:0")
    (one,), (two,) = (listen(*both.address, 1, 60.0) for _ in range(2))
    async with app.open_registry(both) as first, app.open_registry(both) as second, app.serving(both, first, one), \
            app.serving(both, second, two), aiohttp.ClientSession() as session:
        await first.identity.accounts.add("ann", "correct horse")

        async def there(sockets) -> int:
            host, port = sockets[0].getsockname()[:2]
            async with session.get(f"http://{host}:{port}/v2/team/a/tags/list", headers=basic("ann")) as answer:
                return answer.status

        for _ in range(2):
            assert await there(two) == 403
            await first.identity.policies.set("team/**", "user:ann", ["pull"])
            assert await there(two) == await there(one) == 404
            await second.identity.policies.remove("team/**")
        await second.identity.accounts.set_password("ann", "another horse")
        assert await there(one) == 401


def test_no_secret_in_logs_or_reprs(tmp_path) -> None:
    """Tokens and passwords stand in no log and no traceback of ours."""
    from registry.auth.principal import Presented, Principal
    shown = repr(Presented("Basic c2VjcmV0", session="cookie")) + repr(Principal("ann", stamp="stamp-of-ann"))
    assert not any(word in shown for word in ("c2VjcmV0", "cookie", "stamp-of-ann"))
    environment = {**os.environ, "SEAWALL_REGISTRY_AUTH_MODE": "accounts", "SEAWALL_REGISTRY_LOG_LEVEL": "DEBUG"}
    process = subprocess.Popen([COMMAND, "serve", "--data", str(tmp_path), "--listen", "127.0.0.1:0", "--workers", "1"],
                               env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(2)]
    process.terminate()
    _, log = process.communicate(timeout=30)
    secret = lines[0].rsplit(" ", 1)[1].strip()
    assert secret.startswith("swa_")
    assert secret not in log
    assert "listens on" in lines[1]
