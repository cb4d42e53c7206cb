"""Tokens that strangers made: whatever they are, they are refused as invalid tokens, and nothing else happens."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from registry.auth.keyring import ALGORITHM
from registry.auth.principal import Grant, Principal
from registry.auth.tokens import MAX_BYTES, InvalidToken, Tokens

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = OKPKey.generate_key("Ed25519")


class OneKey:
    async def refresh(self) -> None:
        pass

    def signing(self) -> tuple[str, OKPKey]:
        return "k1", KEY

    def checking(self, kid: str) -> OKPKey | None:
        return KEY if kid == "k1" else None


TOKENS = Tokens(OneKey(), "seawall", "seawall", timedelta(minutes=5), lambda: NOW)  # type: ignore[arg-type]
GRANTS = [Grant("repository", "team/app", frozenset({"pull"}))]


def sign() -> str:
    return asyncio.run(TOKENS.sign(Principal("ann"), GRANTS)).text


def refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        asyncio.run(TOKENS.verify(text))


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner:
                    st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "exp", "aud"]),
                        inner, max_size=4), max_leaves=8)


def test_what_we_sign_is_good() -> None:
    claims = asyncio.run(TOKENS.verify(sign()))
    assert claims.subject == "user:ann"
    assert list(claims.grants) == GRANTS


@given(st.text(max_size=200) | st.text(alphabet="eyJ0.-_=", max_size=200))
@example("." * 10_000)
@example("a" * (MAX_BYTES + 1) + ".b.c")
@example(encoded(b"[" * 6000) + ".e30.e30")
def test_any_text(text: str) -> None:
    refused(text)


@given(header=JSON, payload=JSON, signature=st.binary(max_size=70))
@hypothesis(suppress_health_check=[HealthCheck.too_slow])
def test_any_header_and_payload(header: Any, payload: Any, signature: bytes) -> None:
    refused(f"{encoded(header)}.{encoded(payload)}.{encoded(signature)}")


@given(header=st.dictionaries(st.sampled_from(["crit", "b64", "jwk", "jku", "x5c", "zip", "typ"]), JSON, max_size=3),
       payload=JSON)
def test_a_header_that_looks_like_ours(header: Any, payload: Any) -> None:
    refused(f"{encoded({**header, 'alg': ALGORITHM, 'kid': 'k1'})}.{encoded(payload)}.{encoded(b'x' * 64)}")


@given(st.data())
def test_a_changed_token(data: st.DataObject) -> None:
    text = sign()
    place = data.draw(st.integers(0, len(text) - 1))
    sign_there = data.draw(st.sampled_from("ABCabc012-_.="))
    changed = text[:place] + sign_there + text[place + 1 :]
    if _meaning(changed) != _meaning(text):
        refused(changed)


def _meaning(text: str) -> Any:
    """What the parts decode to: the last character of one may say nothing, and then it is no change."""
    try:
        return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split(".")]
    except ValueError:
        return text


def test_other_algorithms_with_our_key() -> None:
    """The confusions of JWT libraries: none at all, and our public key as a secret."""
    claims = json.loads(base64.urlsafe_b64decode(sign().split(".")[1] + "=="))
    for name in ("none", "None", "HS256", "EdDSA ", "RS256"):
        refused(f"{encoded({'alg': name, 'kid': 'k1', 'typ': 'JWT'})}.{encoded(claims)}.")
    public = OctKey.import_key(json.dumps(KEY.as_dict(private=False)))
    forged = jwt.encode({"alg": "HS256", "kid": "k1"}, claims, public, algorithms=["HS256"])
    refused(forged)
