"""The token server, and what its tokens are good for."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from registry.auth.robots import grant
from registry.settings import AuthSettings

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def claims(token: str) -> dict:
    return json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))


async def ask(api, headers=None, *scopes, **query):
    async with api.get("/token", params=[*query.items(), *(("scope", scope) for scope in scopes)], headers=headers or {}) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Cache-Control"] == "no-store"
        return await answer.json()


async def bearer(api, headers, *scopes) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await ask(api, headers, *scopes))['token']}"}


async def status(api, method: str, path: str, headers=None) -> int:
    async with api.request(method, path, headers=headers or {}) as answer:
        return answer.status


async def test_the_challenge_leads_to_a_token_that_is_good(guarded, basic) -> None:
    async with guarded.get("/v2/team/app/tags/list") as answer:
        assert answer.status == 401
        told = answer.headers["WWW-Authenticate"]
    assert told == (f'Bearer realm="{guarded.session._base_url.origin()}/token",service="seawall",'
                    'scope="repository:team/app:pull"')
    token = await bearer(guarded, basic("ann"), "repository:team/app:pull,push")
    assert await status(guarded, "POST", "/v2/team/app/blobs/uploads/", token) == 202
    assert await status(guarded, "POST", "/v2/team/other/blobs/uploads/", token) == 401
    async with guarded.post("/v2/team/other/blobs/uploads/", headers=token) as answer:
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    # Another token would not help here, so none is offered.
    assert await status(guarded, "POST", "/v2/elsewhere/blobs/uploads/", token) == 403


async def test_what_a_token_says(guarded, basic) -> None:
    answer = await ask(guarded, basic("ann"), "repository:team/app:pull,push,delete repository:public/x:*", "registry:catalog:*",
                       "repository:nobody/s:pull", "nonsense:a:b", "repository:UPPER:pull", service="seawall")
    said = claims(answer["token"])
    assert answer["access_token"] == answer["token"]
    assert answer["expires_in"] == said["exp"] - said["iat"] == 300
    assert (said["iss"], said["aud"], said["sub"], said["nbf"]) == ("seawall", "seawall", "user:ann", said["iat"])
    assert said["access"] == [
        {"type": "repository", "name": "team/app", "actions": ["delete", "pull", "push"]},
        {"type": "repository", "name": "public/x", "actions": ["pull", "push"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
    ]
    assert "refresh_token" not in answer


async def test_nobody_in_particular_gets_a_token_for_what_is_public(guarded) -> None:
    token = await bearer(guarded, None, "repository:public/app:pull,push", "repository:team/app:pull")
    assert claims(token["Authorization"].split()[1])["access"] == [
        {"type": "repository", "name": "public/app", "actions": ["pull"]}]
    assert await status(guarded, "GET", "/v2/", token) == 200
    assert await status(guarded, "GET", "/v2/public/app/tags/list", token) == 404
    assert await status(guarded, "GET", "/v2/team/app/tags/list", token) == 401
    assert await status(guarded, "GET", "/v2/public/app/tags/list") == 404
    assert await status(guarded, "GET", "/v2/") == 401


@pytest.mark.parametrize("header", [
    "Basic !!!", "Basic YW5u", "Basic /////w==", "Digest x", "Bearer", "Bearer x", "Bearer a.b.c", "Basic " + "A" * 8000,
    "Bearer e30.e30.", "Bearer " + "W1td" * 500, "Bearer swr_" + "a" * 58,
])
async def test_credentials_that_are_none(guarded, refused, header) -> None:
    for path in ("/v2/", "/v2/public/app/tags/list", "/token"):
        error = await refused(guarded.get(path, headers={"Authorization": header}), 401, "UNAUTHORIZED")
        assert header not in json.dumps(error)


async def test_refresh_tokens(guarded, basic) -> None:
    login = await ask(guarded, basic("ann"), offline_token="true", client_id="docker")
    assert login["refresh_token"].startswith("swf_")
    form = {"grant_type": "refresh_token", "service": "seawall", "client_id": "docker", "refresh_token": login["refresh_token"],
            "scope": "repository:team/app:pull,push"}

    async def redeem(**changes):
        async with guarded.post("/token", data={**form, **changes}) as answer:
            return answer.status, await answer.json()

    code, got = await redeem()
    assert (code, got["scope"], got["token_type"]) == (200, "repository:team/app:pull,push", "Bearer")
    assert await status(guarded, "POST", "/v2/team/app/blobs/uploads/", {"Authorization": f"Bearer {got['access_token']}"}) == 202
    for changes, error in (({"refresh_token": "x"}, "invalid_grant"), ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
                           ({"service": "elsewhere"}, "invalid_scope"), ({"scope": "x"}, "invalid_scope")):
        code, got = await redeem(**changes)
        assert (code in (400, 401), got["error"], bool(got["errors"])) == (True, error, True)
    # A refresh token is good for nothing else.
    assert await status(guarded, "GET", "/v2/", {"Authorization": f"Bearer {login['refresh_token']}"}) == 401
    assert await status(guarded, "GET", "/v2/", basic("ann", login["refresh_token"])) == 401
    await guarded.registry.identity.accounts.set_password("ann", "another horse")
    assert (await redeem())[0] == 401


async def test_the_password_grant(guarded) -> None:
    form = {"grant_type": "password", "username": "ann", "password": "correct horse", "scope": "repository:team/app:pull",
            "access_type": "offline"}
    async with guarded.post("/token", data=form) as answer:
        assert answer.status == 200
        assert (await answer.json())["refresh_token"]
    async with guarded.post("/token", data={**form, "password": "wrong horse"}) as answer:
        assert (answer.status, (await answer.json())["error"]) == (401, "invalid_grant")
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    async with guarded.post("/token", data=b"\xff\xfe", headers=FORM) as answer:
        assert answer.status == 400
    async with guarded.post("/token", json=form) as answer:
        assert answer.status == 400
    async with guarded.post("/token", data=b"a=b&" * 20_000, headers=FORM) as answer:
        assert answer.status == 413


async def test_robots(guarded, basic) -> None:
    robots = guarded.registry.identity.robots
    _, text = await robots.create("ci", scope=[grant("build/*", ["pull", "push"])], lifetime=timedelta(days=1))
    shown = [basic("whatever", text), {"Authorization": f"Bearer {text}"}, await bearer(guarded, basic("ci", text), "repository:build/a:pull,push")]
    for headers in shown:
        assert await status(guarded, "GET", "/v2/", headers) == 200
        assert await status(guarded, "POST", "/v2/build/a/blobs/uploads/", headers) == 202
        assert await status(guarded, "GET", "/v2/team/a/tags/list", headers) == 403
    await robots.revoke("ci")
    for headers in shown:
        assert await status(guarded, "GET", "/v2/", headers) == 401
    # Its name given again is another robot.
    await robots.create("ci", scope=[grant("build/*", ["pull", "push"])])
    for headers in shown:
        assert await status(guarded, "GET", "/v2/", headers) == 401


async def test_a_robot_is_no_more_than_its_owner(guarded, basic) -> None:
    identity = guarded.registry.identity
    _, text = await identity.robots.create("ann-ci", owner="user:ann")
    token = basic("ann-ci", text)
    assert await status(guarded, "POST", "/v2/team/a/blobs/uploads/", token) == 202
    assert await status(guarded, "POST", "/v2/drop/a/blobs/uploads/", token) == 403
    await identity.accounts.set_flags("ann", enabled=False)
    assert await status(guarded, "GET", "/v2/", token) == 401
    await identity.accounts.set_flags("ann", enabled=True)
    assert await status(guarded, "GET", "/v2/", token) == 200
    await identity.accounts.remove("ann")
    assert await status(guarded, "GET", "/v2/", token) == 401


async def test_expiry(guarded, basic, monkeypatch) -> None:
    database = guarded.registry.database
    _, text = await guarded.registry.identity.robots.create("ci", scope=[grant("**", ["pull"])], lifetime=timedelta(seconds=60))
    opaque, signed = basic("ci", text), await bearer(guarded, basic("ci", text), "repository:a:pull")
    long = await bearer(guarded, basic("ann"), "repository:team/a:pull")
    assert await status(guarded, "GET", "/v2/", opaque) == await status(guarded, "GET", "/v2/", signed) == 200
    now = database.now
    authenticator = guarded.registry.access._authenticator._accounts
    monkeypatch.setattr(authenticator._tokens, "_now", lambda: now() + timedelta(seconds=61))
    monkeypatch.setattr(database, "now", lambda: now() + timedelta(seconds=61))
    assert await status(guarded, "GET", "/v2/", opaque) == await status(guarded, "GET", "/v2/", signed) == 401
    assert await status(guarded, "GET", "/v2/", long) == 200


async def forged(api, key, header=None, **changes) -> dict[str, str]:
    kid, _ = api.registry.identity.keyring.signing()
    said = {"iss": "seawall", "aud": "seawall", "sub": "user:root", "iat": 1, "nbf": 1, "exp": 9999999999, "jti": "x", "stamp": "",
            "access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}], **changes}
    algorithm = (header or {}).get("alg", "Ed25519")
    text = jwt.encode({"typ": "JWT", "alg": algorithm, "kid": kid, **(header or {})}, said, key, algorithms=[algorithm])
    return {"Authorization": f"Bearer {text}"}


async def test_times_and_service_are_checked(guarded) -> None:
    _, key = guarded.registry.identity.keyring.signing()
    user = await guarded.registry.access._authenticator._accounts._users.find("ann")
    good = {"sub": "user:ann", "stamp": user.stamp}
    assert await status(guarded, "GET", "/v2/", await forged(guarded, key, **good)) == 200
    for bad in ({"aud": "other"}, {"aud": ["seawall"]}, {"iss": "other"}, {"exp": 1}, {"nbf": 9999999998}, {"iat": 9999999998}, {"exp": None},
                {"exp": "9999999999"}, {"exp": float("inf")}, {"stamp": "old"}, {"sub": "user:eve"}, {"sub": "robot:ann"}, {"sub": "x"},
                {"access": [1]}, {"access": None}, {"sub": None}, {"sub": ["user:ann"]}):
        assert await status(guarded, "GET", "/v2/", await forged(guarded, key, **{**good, **bad})) == 401, bad


async def test_rotation(guarded, basic) -> None:
    keyring = guarded.registry.identity.keyring
    before = await bearer(guarded, basic("ann"), "repository:team/a:pull")
    kid = await keyring.rotate()
    after = await bearer(guarded, basic("ann"), "repository:team/a:pull")
    assert kid in json.loads(urlsafe_b64decode(after["Authorization"].split()[1].split(".")[0] + "==")).values()
    assert await status(guarded, "GET", "/v2/", before) == await status(guarded, "GET", "/v2/", after) == 200
    await keyring.rotate(revoke=True)
    assert await status(guarded, "GET", "/v2/", before) == await status(guarded, "GET", "/v2/", after) == 401


async def test_without_a_token_server(serve, settings, basic, refused) -> None:
    async with serve(replace(settings, auth=AuthSettings(mode="accounts", token_server=False))) as api:
        await api.registry.identity.accounts.add("ann", "correct horse")
        async with api.get("/v2/") as answer:
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="seawall",charset="UTF-8"')
        assert await status(api, "GET", "/v2/", basic("ann")) == 200
        await refused(api.get("/token"), 404, "UNSUPPORTED")
        assert await status(api, "GET", "/v2/", {"Authorization": "Bearer a.b.c"}) == 401


async def test_htpasswd(serve, settings, basic, tmp_path) -> None:
    import bcrypt
    file = tmp_path / "users"
    file.write_text(f"ann:{bcrypt.hashpw(b'correct horse', bcrypt.gensalt(4)).decode()}\n")
    async with serve(replace(settings, auth=AuthSettings(mode="htpasswd", htpasswd=str(file), admins="ann"))) as api:
        assert await status(api, "GET", "/v2/", basic("ann")) == 200
        assert await status(api, "GET", "/v2/", basic("ann", "wrong horse")) == 401
        token = await bearer(api, basic("ann"), "repository:any/a:push")
        assert await status(api, "POST", "/v2/any/a/blobs/uploads/", token) == 202


async def test_failed_logins_are_slowed(guarded, basic) -> None:
    codes = [await status(guarded, "GET", "/v2/", basic("bob", f"wrong{number}")) for number in range(7)]
    assert codes == [401] * 5 + [429] * 2
    async with guarded.get("/v2/", headers=basic("bob", "wrong")) as answer:
        assert 1 <= int(answer.headers["Retry-After"]) <= 2
        assert (await answer.json())["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert await status(guarded, "GET", "/v2/", basic("ann")) == 200  # somebody else from the same address


async def test_a_password_is_hashed_once(guarded, basic, monkeypatch) -> None:
    passwords = guarded.registry.access._authenticator._accounts._passwords
    checks = []
    check = passwords.check

    async def counted(*arguments):
        checks.append(arguments)
        return await check(*arguments)

    monkeypatch.setattr(passwords, "check", counted)
    async with aiohttp.ClientSession(guarded.session._base_url, headers=basic("ann")) as session:
        async def once() -> int:
            async with session.get("/v2/") as answer:
                return answer.status

        import asyncio
        assert set(await asyncio.gather(*(once() for _ in range(20)))) == {200}
        assert len(checks) == 1
        await guarded.registry.identity.accounts.add("eve", "correct horse")  # accounts change: asked anew, not hashed
        assert await once() == 200
        assert len(checks) == 1
        await guarded.registry.identity.accounts.set_password("ann", "another horse")
        assert await once() == 401
        assert len(checks) == 2


async def test_the_lane_serves_who_is_known(guarded, basic, monkeypatch) -> None:
    await guarded.registry.identity.policies.set("team/**", "user:ann", ["pull", "push"])
    guarded.session.headers.update(basic("ann"))
    await guarded.image("v1", repo="team/app")
    path = "/v2/team/app/manifests/v1"
    for headers in (basic("ann"), await bearer(guarded, basic("ann"), "repository:team/app:pull"), basic("bob")):
        for _ in range(2):
            assert await status(guarded, "GET", path, headers) == 200
        monkeypatch.setattr(guarded.registry.access, "identify", None)  # only memory may answer now
        assert await status(guarded, "HEAD", path, headers) == 200
        monkeypatch.undo()
    await guarded.registry.identity.policies.set("team/**", "group:dev", [])
    assert await status(guarded, "GET", path, basic("bob")) == 403
    await guarded.registry.identity.accounts.set_flags("ann", enabled=False)
    assert await status(guarded, "GET", path, basic("ann")) == 401


async def test_keys_that_are_not_ours(guarded) -> None:
    mine = OKPKey.generate_key("Ed25519")
    public = mine.as_dict(private=False)
    for header in (None, {"jwk": public}, {"kid": "x"}, {"jku": "http://evil/keys"}, {"kid": ["a"]}):
        try:
            headers = await forged(guarded, mine, header)
        except Exception as error:  # the library itself may refuse to make one
            assert "kid" in str(error) or "jwk" in str(error) or "jku" in str(error), error
            continue
        assert await status(guarded, "GET", "/v2/", headers) == 401
    _, key = guarded.registry.identity.keyring.signing()
    as_secret = OctKey.import_key(key.as_dict(private=False)["x"] * 2)
    assert await status(guarded, "GET", "/v2/", await forged(guarded, as_secret, {"alg": "HS256"})) == 401
    head = urlsafe_b64encode(json.dumps({"alg": "none", "kid": guarded.registry.identity.keyring.signing()[0]}).encode())
    assert await status(guarded, "GET", "/v2/", {"Authorization": f"Bearer {head.decode().rstrip('=')}.e30."}) == 401
