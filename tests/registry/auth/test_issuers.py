"""Tokens of issuers outside: what is believed, and every forgery that we know of."""

import base64
import hmac
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from ocispec.errors import InvalidArgument, Unavailable
from registry.auth.issuers import KEYS_AGAIN, Issuer, Issuers, TokenRefused
from registry.auth.principal import Grant, Kind

ISSUER, AUDIENCE = "https://ci.test", "registry.test"
NOW = 1_900_000_000


class Outside:
    """An issuer: keys, the document it publishes, and how often it was asked for it."""

    def __init__(self) -> None:
        self.rsa = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}, private=True)
        self.ec = ECKey.generate_key("P-256", {"kid": "ec"}, private=True)
        self.ed = OKPKey.generate_key("Ed25519", {"kid": "ed"}, private=True)
        self.published = [self.rsa, self.ec, self.ed]
        self.asked = 0
        self.down = False

    async def fetch(self, where: str) -> bytes:
        assert where == f"{ISSUER}/keys"
        self.asked += 1
        if self.down:
            raise Unavailable("no route")
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.published]}).encode()

    def token(self, key: Any = None, algorithm: str = "RS256", header: dict[str, Any] | None = None,
              **claims: Any) -> str:
        key = key or self.rsa
        values = {"iss": ISSUER, "aud": AUDIENCE, "sub": "job/7", "exp": NOW + 300} | claims
        wanted = {"alg": algorithm, "kid": key.kid} | (header or {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # EdDSA's old name
            return jwt.encode({k: v for k, v in wanted.items() if v is not None},
                              {k: v for k, v in values.items() if v is not None}, key, algorithms=[algorithm])


@pytest.fixture(scope="module")
def keys() -> Outside:
    return Outside()


@pytest.fixture
def outside(keys: Outside) -> Outside:
    keys.published, keys.asked, keys.down = [keys.rsa, keys.ec, keys.ed], 0, False
    return keys


@pytest.fixture
def now() -> list[float]:
    return [float(NOW)]


@pytest.fixture
def make(outside: Outside, now: list[float]) -> Callable[..., Issuers]:
    def made(**options: Any) -> Issuers:
        return Issuers([Issuer("ci", ISSUER, AUDIENCE, f"{ISSUER}/keys", **options)], outside.fetch, lambda: now[0])
    return made


@pytest.mark.parametrize(("key", "algorithm"), [("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")])
async def test_an_identity_is_named_after_its_issuer(make, outside, key, algorithm) -> None:
    issuers = make()
    token = outside.token(getattr(outside, key), algorithm, groups=["team"])
    assert issuers.knows(token)
    who = await issuers.identify(token)
    assert (who.name, who.kind, who.groups) == ("ci:job/7", Kind.EXTERNAL, {"ci:team"})
    assert who.grants is None
    assert not who.administers


async def test_an_access_claim_counts_only_where_the_issuer_may_grant(make, outside) -> None:
    access = [{"type": "repository", "name": "team/app", "actions": ["pull", "push"]}]
    token = outside.token(access=access)
    assert (await make().identify(token)).grants is None
    assert (await make(grants=True).identify(token)).grants == (
        Grant("repository", "team/app", frozenset({"pull", "push"})),)


@pytest.mark.parametrize("access", [None, "x", [1], [{"type": "repository"}], [{}] * 300,
                                    [{"type": "repository", "name": "a", "actions": [1]}]])
async def test_a_malformed_access_claim_grants_nothing(make, outside, access) -> None:
    token = outside.token(access=access if access is not None else {"a": 1})
    with pytest.raises(TokenRefused):
        await make(grants=True).identify(token)


@pytest.mark.parametrize("claims", [
    {"iss": "https://other.test"}, {"aud": "another"}, {"aud": None}, {"exp": None}, {"exp": NOW - 61},
    {"nbf": NOW + 120}, {"exp": "soon"}, {"sub": None}, {"sub": 7}, {"sub": ""}, {"sub": "a\nb"},
])
async def test_claims_that_are_not_for_us(make, outside, claims) -> None:
    with pytest.raises(TokenRefused):
        await make().identify(outside.token(**claims))


async def test_clocks_may_differ_a_little(make, outside) -> None:
    await make().identify(outside.token(exp=NOW - 30, nbf=NOW + 30))


async def test_a_key_in_the_header_is_not_looked_at(make, outside) -> None:
    """CVE-2025-24976: the token brings its own key, under the id of one that is trusted."""
    mine = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
    for header in ({"jwk": mine.as_dict(private=False)}, {"jku": "https://evil.test/keys"}, {}):
        with pytest.raises(TokenRefused):
            await make().identify(forge(outside, mine, header))


def encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forge(outside: Outside, key: RSAKey, header: dict[str, Any]) -> str:
    """joserfc refuses to write some of these headers, so the token is put together by hand."""
    honest = outside.token(key).split(".")
    body = f"{encoded({'alg': 'RS256', 'kid': 'rsa', **header})}.{honest[1]}"
    signature = key.private_key.sign(body.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_no_signature_and_a_public_key_as_a_secret(make, outside) -> None:
    """`alg: none`, and HS256 with the published key: the two classics."""
    head, body, _ = outside.token().split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    signed = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{body}"
    mac = hmac.digest(outside.rsa.as_pem(private=False), signed.encode(), "sha256")
    confused = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    for token in (f"{unsigned}.{body}.", f"{head}.{body}.", confused):
        with pytest.raises(TokenRefused):
            await make().identify(token)
    with pytest.raises(InvalidArgument, match="HS256"):
        make(algorithms=("HS256",))


async def test_an_algorithm_off_the_list(make, outside) -> None:
    with pytest.raises(TokenRefused, match="algorithm"):
        await make(algorithms=("ES256",)).identify(outside.token())


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "..", "é.é.é", "x" * 20_000, "e30.e30.e30", "\x00"])
async def test_what_is_no_token(make, token) -> None:
    issuers = make()
    assert not issuers.knows(token)
    with pytest.raises(TokenRefused):
        await issuers.identify(token)


async def test_keys_are_fetched_once_and_anew_for_a_new_key(make, outside, monkeypatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("registry.auth.issuers.time.monotonic", lambda: clock[0])
    issuers = make()
    for number in range(5):
        await issuers.identify(outside.token(jti=str(number)))
    assert outside.asked == 1
    fresh = RSAKey.generate_key(2048, {"kid": "next"}, private=True)
    with pytest.raises(TokenRefused):
        await issuers.identify(outside.token(fresh))
    assert outside.asked == 1  # not so soon: made-up key ids must not become requests
    outside.published = [fresh]
    clock[0] += KEYS_AGAIN
    await issuers.identify(outside.token(fresh))
    assert outside.asked == 2


async def test_an_issuer_that_is_down(make, outside, monkeypatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("registry.auth.issuers.time.monotonic", lambda: clock[0])
    issuers = make()
    outside.down = True
    with pytest.raises(Unavailable):
        await issuers.identify(outside.token())
    outside.down = False
    clock[0] += KEYS_AGAIN
    with pytest.raises(Unavailable):  # it was asked a moment ago
        await make_failing(issuers, outside)
    clock[0] += 1000
    await issuers.identify(outside.token())
    outside.down = True
    clock[0] += 1000
    await issuers.identify(outside.token(jti="another"))  # with the keys of before


async def make_failing(issuers: Issuers, outside: Outside) -> None:
    outside.down = True
    try:
        await issuers.identify(outside.token(jti="x"))
    finally:
        outside.down = False


async def test_a_token_is_remembered_until_it_expires(make, outside, now) -> None:
    issuers = make()
    token = outside.token()
    assert issuers.known(token) is None
    who = await issuers.identify(token)
    assert issuers.known(token) == who
    now[0] += 301
    assert issuers.known(token) is None
    now[0] += 60
    with pytest.raises(TokenRefused):
        await issuers.identify(token)


async def test_a_set_with_private_keys_is_refused(make, outside) -> None:
    async def leak(_where: str) -> bytes:
        return json.dumps({"keys": [outside.rsa.as_dict(private=True)]}).encode()
    issuers = Issuers([Issuer("ci", ISSUER, AUDIENCE, "file")], leak, lambda: float(NOW))
    with pytest.raises(Unavailable, match="private"):
        await issuers.identify(outside.token())
