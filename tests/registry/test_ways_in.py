"""The ways to be known besides a password: a provider's login, another issuer's tokens, a client certificate."""

import asyncio
import json
import ssl
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import trustme
from joserfc import jwt
from joserfc.jwk import ECKey

from registry import app
from registry.settings import AuthSettings, InvalidSettings, IssuerSettings, OidcSettings, Settings, TlsSettings
from tests.registry.auth.test_oidc import SECRET, FakeProvider


@pytest.fixture
async def accounts(settings: Settings) -> tuple[Settings, str]:
    """A registry with accounts, and its administrator's token."""
    made = replace(settings, auth=AuthSettings(mode="accounts"))
    token = await asyncio.to_thread(app.prepare, made)
    assert token
    return made, token


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def caller(api, **options) -> dict:
    async with api.get("/api/v1/about", **options) as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["caller"]


@pytest.fixture
async def provider(aiohttp_server) -> FakeProvider:
    made = FakeProvider()
    made.url = f"http://127.0.0.1:{(await aiohttp_server(made.app())).port}"
    return made


@pytest.fixture
async def with_provider(serve, accounts, provider):
    settings, _ = accounts
    oidc = OidcSettings(issuer=provider.url, client_id="seawall", client_secret=SECRET, admin_group="root")
    async with serve(replace(settings, oidc=oidc)) as api:
        yield api


async def log_in(api, provider, go: str = "/images", **claims) -> tuple[str, dict[str, str]]:
    """As a browser does it; gives where it ends up and its cookies."""
    provider.claims = claims
    async with api.get("/login", params={"next": go}, allow_redirects=False) as answer:
        assert answer.status == 303
        attempt = answer.cookies["seawall_login"]
        assert attempt["httponly"]
        assert attempt["samesite"] == "Lax"
        there = answer.headers["Location"]
    assert urlsplit(there).path == "/authorize"
    cookies = {"seawall_login": attempt.value}
    async with api.get("/login/callback", params=provider.approve(there), cookies=cookies,
                       allow_redirects=False) as answer:
        assert answer.status == 303, await answer.text()
        assert answer.cookies["seawall_session"]["httponly"]
        return answer.headers["Location"], {"seawall_session": answer.cookies["seawall_session"].value}


async def test_a_browser_logs_in_and_out(with_provider, provider, refused) -> None:
    api = with_provider
    where, cookies = await log_in(api, provider)
    assert where == "/images"
    assert await caller(api, cookies=cookies) == {
        "name": "sso:ann", "kind": "external", "groups": ["sso:dev", "sso:root"], "administers": True}
    async with api.get("/api/v1/users", cookies=cookies) as answer:
        assert answer.status == 200
    async with api.post("/logout", cookies=cookies, allow_redirects=False) as answer:
        assert answer.status == 303
    api.session.cookie_jar.clear()
    await refused(api.get("/api/v1/users", cookies=cookies), 401, "UNAUTHORIZED")


async def test_who_lost_the_group_administers_no_more(with_provider, provider, refused) -> None:
    _, cookies = await log_in(with_provider, provider, groups=["dev"])
    await refused(with_provider.get("/api/v1/users", cookies=cookies), 403, "DENIED")


async def test_a_session_is_for_browsers_alone(with_provider, provider) -> None:
    """Content is reached with a header, which no page of another site can make a browser send."""
    _, cookies = await log_in(with_provider, provider)
    async with with_provider.get("/v2/", cookies=cookies) as answer:
        assert answer.status == 401


async def test_another_site_s_page_changes_nothing(with_provider, provider, refused) -> None:
    _, cookies = await log_in(with_provider, provider)
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 201)):
        async with with_provider.post("/api/v1/users", json={"name": f"eve-{site}"}, cookies=cookies,
                                      headers={"Sec-Fetch-Site": site}) as answer:
            assert answer.status == status, await answer.text()
    await refused(with_provider.post("/api/v1/users", data={"name": "eve"}, cookies=cookies), 400, "UNSUPPORTED")


async def test_nobody_is_sent_to_another_site(with_provider, provider) -> None:
    for go in ("https://evil.test", "//evil.test", "/\\evil.test"):
        where, _ = await log_in(with_provider, provider, go)
        assert where == "/"


async def test_a_callback_without_an_attempt(with_provider, refused) -> None:
    await refused(with_provider.get("/login/callback?code=x&state=y"), 401, "UNAUTHORIZED")
    await refused(with_provider.get("/login/callback?code=x&state=y", cookies={"seawall_login": "W10="}), 401,
                  "UNAUTHORIZED")


async def test_there_is_no_login_without_a_provider(api, refused) -> None:
    await refused(api.get("/login"), 501, "UNSUPPORTED")


@pytest.fixture
async def with_issuer(serve, accounts, tmp_path):
    settings, admin = accounts
    key = ECKey.generate_key("P-256", {"kid": "1"}, private=True)
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    issuer = IssuerSettings(name="ci", issuer="https://ci.test", audience="seawall", keys=str(tmp_path / "keys.json"))
    async with serve(replace(settings, issuers=(issuer,))) as api:
        yield api, key, admin


def issue(key: ECKey, **claims) -> str:
    values = {"iss": "https://ci.test", "aud": "seawall", "sub": "job/7", "groups": ["main"],
              "exp": int(time.time()) + 60} | claims
    return jwt.encode({"alg": "ES256", "kid": "1"}, values, key, algorithms=["ES256"])


async def test_a_job_pulls_with_its_own_identity(with_issuer, refused) -> None:
    api, key, admin = with_issuer
    async with api.post("/api/v1/policies", headers=bearer(admin), json={
            "pattern": "team/**", "subject": "group:ci:main", "actions": ["pull", "push"]}) as answer:
        assert answer.status == 200, await answer.text()
    job, other = bearer(issue(key)), bearer(issue(key, groups=["other"]))
    assert (await caller(api, headers=job))["name"] == "ci:job/7"
    async with api.post("/v2/team/app/blobs/uploads/", headers=job) as answer:
        assert answer.status == 202
    await refused(api.post("/v2/team/app/blobs/uploads/", headers=other), 403, "DENIED")
    await refused(api.post("/v2/else/app/blobs/uploads/", headers=job), 403, "DENIED")
    await refused(api.get("/api/v1/users", headers=job), 403, "DENIED")
    await refused(api.get("/token", headers=job), 401, "UNAUTHORIZED")
    await refused(api.get("/v2/", headers=bearer(issue(key, aud="other"))), 401, "UNAUTHORIZED")
    for _ in range(2):  # the second from memory
        async with api.get("/v2/team/app/tags/list", headers=job) as answer:
            assert answer.status == 200


@pytest.fixture
async def with_certificates(serve, accounts, tmp_path):
    settings, admin = accounts
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = authority.issue_cert("127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    tls = TlsSettings(certificate=str(tmp_path / "server.pem"), key=str(tmp_path / "server.pem"),
                      client_ca=str(tmp_path / "ca.pem"), client_name="email")
    async with serve(replace(settings, tls=tls)) as api:
        yield api, authority, admin, tmp_path


def shows(authority: trustme.CA, folder: Path, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.check_hostname = False
    if names:
        made = authority.issue_cert(*names)
        made.private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
        context.load_cert_chain(str(folder / "client.pem"))
    return context


async def test_a_client_is_known_by_its_certificate(with_certificates, refused) -> None:
    api, authority, admin, folder = with_certificates
    node = shows(authority, folder, "node-7@seawall.test")
    async with api.post("/api/v1/policies", headers=bearer(admin), json={
            "pattern": "**", "subject": "certificate:node-7@seawall.test", "actions": ["pull", "push"]}) as answer:
        assert answer.status == 200, await answer.text()
    found = await caller(api, ssl=node)
    assert (found["name"], found["kind"]) == ("node-7@seawall.test", "certificate")
    async with api.get("/v2/", ssl=node) as answer:
        assert answer.status == 200
    async with api.post("/v2/team/app/blobs/uploads/", ssl=node) as answer:
        assert answer.status == 202
    # A header says more than the machine's certificate.
    assert (await caller(api, ssl=node, headers=bearer(admin)))["administers"]
    async with api.get("/v2/", ssl=shows(authority, folder)) as answer:
        assert answer.status == 401


async def test_a_certificate_that_names_nobody(with_certificates, refused) -> None:
    api, authority, _, folder = with_certificates
    await refused(api.get("/v2/", ssl=shows(authority, folder, "only-dns.test")), 401, "UNAUTHORIZED")


async def test_a_stranger_s_authority(with_certificates) -> None:
    api, _, _, folder = with_certificates
    stranger = shows(trustme.CA(), folder, "node-7@seawall.test")
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        async with api.get("/v2/", ssl=stranger):
            pass


@pytest.mark.parametrize("wrong", [
    {"issuers": (IssuerSettings(),)}, {"oidc": OidcSettings(issuer="https://a.test")},
    {"tls": TlsSettings(client_ca="x")},
])
def test_ways_in_need_somebody_who_asks(wrong) -> None:
    with pytest.raises(InvalidSettings, match="nobody is asked"):
        replace(Settings(), **wrong).check()
