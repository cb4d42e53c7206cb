"""Login through a provider: the flow with a real HTTP server in its place, and what must not pass for a login."""

import base64
import hashlib
import json
import time
from urllib.parse import parse_qs, unquote_plus, urlsplit

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey

from ocispec.errors import InvalidArgument, Unavailable
from registry.auth.issuers import TokenRefused
from registry.auth.oidc import ATTEMPT_LASTS, Attempt, Login, LoginFailed, Provider, local
from registry.auth.outbound import Outbound
from registry.auth.principal import Kind

CALLBACK = "https://registry.test/login/callback"
SECRET = "a secret: with + signs"


class FakeProvider:
    """Behaves like a provider; `claims`, `configuration` and `answer` let a test make it misbehave."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "k"}, private=True)
        self.url = ""
        self.claims: dict[str, object] = {}
        self.configuration: dict[str, object] = {}
        self.answer: dict[str, object] | None = None
        self.codes: dict[str, dict[str, str]] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self.discover)
        app.router.add_get("/keys", self.keys)
        app.router.add_post("/token", self.token)
        app.router.add_get("/elsewhere", self.elsewhere)
        return app

    async def discover(self, _request: web.Request) -> web.Response:
        return web.json_response({
            "issuer": self.url, "authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys", **self.configuration})

    async def keys(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def elsewhere(self, _request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{self.url}/keys")

    def approve(self, address: str) -> dict[str, str]:
        """The user agreed: what the browser brings back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = f"code{len(self.codes)}"
        self.codes[code] = query
        return {"code": code, "state": query["state"]}

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if self.answer is not None:
            return web.json_response(self.answer, status=400 if "error" in self.answer else 200)
        name, _, secret = base64.b64decode(request.headers["Authorization"].split()[1]).decode().partition(":")
        asked = self.codes.pop(str(form["code"]), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        if (asked is None or (name, unquote_plus(secret)) != ("seawall", SECRET) or form["redirect_uri"] != asked["redirect_uri"]
                or challenge.rstrip(b"=").decode() != asked["code_challenge"]):
            return web.json_response({"error": "invalid_grant"}, status=400)
        claims = {"iss": self.url, "aud": "seawall", "sub": "1", "preferred_username": "ann", "nonce": asked["nonce"],
                  "groups": ["dev", "root"], "exp": int(time.time()) + 60} | self.claims
        return web.json_response({"id_token": jwt.encode({"alg": "RS256", "kid": "k"}, claims, self.key)})


@pytest.fixture
async def provider(aiohttp_server) -> FakeProvider:
    made = FakeProvider()
    server = await aiohttp_server(made.app())
    made.url = f"http://127.0.0.1:{server.port}"
    return made


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def login(provider, session) -> Login:
    return Login(Provider("sso", provider.url, "seawall", SECRET, admin_group="root"), Outbound(session))


async def test_a_person_logs_in(provider, login) -> None:
    attempt = login.begin("/images")
    address = await login.address(attempt, CALLBACK)
    assert attempt.verifier not in address
    again = Attempt.from_cookie(attempt.to_cookie(), time.time())
    assert again == attempt
    who = await login.finish(again, provider.approve(address), CALLBACK)
    assert (who.name, who.kind, who.groups, who.admin) == ("sso:ann", Kind.EXTERNAL, {"sso:dev", "sso:root"}, True)


async def test_groups_are_those_of_this_login(provider, login) -> None:
    """CVE-2025-23208: they were only ever added to."""
    for groups, admin in ((["root"], True), (["dev"], False), ([], False)):
        provider.claims = {"groups": groups}
        attempt = login.begin("/")
        who = await login.finish(attempt, provider.approve(await login.address(attempt, CALLBACK)), CALLBACK)
        assert who.groups == {f"sso:{group}" for group in groups}
        assert who.admin is admin


async def test_an_answer_to_another_browser(provider, login) -> None:
    mine, other = login.begin("/"), login.begin("/")
    answer = provider.approve(await login.address(other, CALLBACK))
    with pytest.raises(LoginFailed, match="browser"):
        await login.finish(mine, answer, CALLBACK)
    with pytest.raises(LoginFailed):  # the state was copied, but the code is for another verifier
        await login.finish(mine, answer | {"state": mine.state}, CALLBACK)
    with pytest.raises(LoginFailed):
        await login.finish(mine, {"code": answer["code"]}, CALLBACK)


async def test_a_code_is_good_once(provider, login) -> None:
    attempt = login.begin("/")
    answer = provider.approve(await login.address(attempt, CALLBACK))
    await login.finish(attempt, answer, CALLBACK)
    with pytest.raises(LoginFailed, match="invalid_grant"):
        await login.finish(attempt, answer, CALLBACK)


@pytest.mark.parametrize("claims", [
    {"nonce": "x"}, {"nonce": None}, {"aud": "other"}, {"iss": "https://other.test"}, {"azp": "other"}, {"exp": 1},
    {"preferred_username": None},
])
async def test_tokens_that_do_not_answer_this_login(provider, login, claims) -> None:
    provider.claims = claims
    attempt = login.begin("/")
    answer = provider.approve(await login.address(attempt, CALLBACK))
    with pytest.raises((LoginFailed, TokenRefused)):
        await login.finish(attempt, answer, CALLBACK)


@pytest.mark.parametrize("answer", [{}, {"id_token": 1}, {"error": "server_error"}, {"id_token": "a.b.c"}, ["x"]])
async def test_what_the_token_endpoint_may_say(provider, login, answer) -> None:
    attempt = login.begin("/")
    brought = provider.approve(await login.address(attempt, CALLBACK))
    provider.answer = answer
    with pytest.raises((LoginFailed, TokenRefused)):
        await login.finish(attempt, brought, CALLBACK)


async def test_the_user_said_no(provider, login) -> None:
    attempt = login.begin("/")
    with pytest.raises(LoginFailed, match="access_denied"):
        await login.finish(attempt, {"state": attempt.state, "error": "access_denied"}, CALLBACK)
    with pytest.raises(LoginFailed, match="another provider"):
        await login.finish(attempt, {"state": attempt.state, "code": "x", "iss": "https://evil.test"}, CALLBACK)


@pytest.mark.parametrize("wrong", [
    {"issuer": "https://other.test"}, {"jwks_uri": "http://evil.test/keys"}, {"token_endpoint": 7},
    {"token_endpoint": None}, {"authorization_endpoint": "javascript:alert(1)"},
])
async def test_a_configuration_that_is_not_the_providers(provider, login, wrong) -> None:
    provider.configuration = wrong
    with pytest.raises(Unavailable):
        await login.address(login.begin("/"), CALLBACK)


async def test_redirects_choose_no_keys(provider, session) -> None:
    with pytest.raises(Unavailable, match="302"):
        await Outbound(session).get(f"{provider.url}/elsewhere")


async def test_a_provider_that_is_down(session, unused_tcp_port) -> None:
    login = Login(Provider("sso", f"http://127.0.0.1:{unused_tcp_port}", "seawall", SECRET), Outbound(session))
    with pytest.raises(Unavailable):
        await login.address(login.begin("/"), CALLBACK)


@pytest.mark.parametrize("provider_settings", [
    {"issuer": "http://sso.example.com"}, {"issuer": "sso.example.com"}, {"client_id": ""}, {"client_secret": ""}])
async def test_a_provider_that_may_not_be_configured(session, provider_settings) -> None:
    values = {"name": "sso", "issuer": "https://sso.example.com", "client_id": "a", "client_secret": "b"}
    with pytest.raises(InvalidArgument):
        Login(Provider(**values | provider_settings), Outbound(session))


def test_the_secret_is_not_in_the_provider_s_text() -> None:
    assert SECRET not in repr(Provider("sso", "https://a", "b", SECRET))


@pytest.mark.parametrize("path", [
    "https://evil.test/", "//evil.test", "/\\evil.test", "\\\\evil.test", "javascript:alert(1)", "evil", "", "/a\nb",
    "/\tevil", "/é", " /a"])
def test_nobody_is_sent_elsewhere(path: str) -> None:
    assert local(path) == "/"
    assert Attempt.begin(path, 0).go == "/"


def test_paths_of_ours_are_kept() -> None:
    assert local("/images/team%2Fapp?tag=1#top") == "/images/team%2Fapp?tag=1#top"


@pytest.mark.parametrize("cookie", [
    "", "x", "é", base64.urlsafe_b64encode(b"[]").decode(), base64.urlsafe_b64encode(b"[" * 2000).decode(),
    base64.urlsafe_b64encode(json.dumps(["a", "b", "c", "/", "soon"]).encode()).decode(), "A" * 5000])
def test_a_cookie_that_is_none_of_ours(cookie: str) -> None:
    with pytest.raises(LoginFailed):
        Attempt.from_cookie(cookie, time.time())


def test_an_attempt_is_soon_over() -> None:
    attempt = Attempt.begin("/", 1000.0)
    Attempt.from_cookie(attempt.to_cookie(), 1000.0 + ATTEMPT_LASTS)
    with pytest.raises(LoginFailed):
        Attempt.from_cookie(attempt.to_cookie(), 1001.0 + ATTEMPT_LASTS)
    hostile = Attempt("s", "n", "v", "//evil.test", 1000.0)
    assert Attempt.from_cookie(hostile.to_cookie(), 1000.0).go == "/"
