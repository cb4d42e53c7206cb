"""Where a password may go, and what is understood of a challenge."""

import pytest

from storage.remote.auth import Credentials, parse_challenges, tied


@pytest.mark.parametrize(("realm", "registry"), [
    ("registry.example.com", "registry.example.com"),
    ("auth.example.com", "registry.example.com"),
    ("gitlab.com", "registry.gitlab.com"),
    ("auth.docker.io", "registry-1.docker.io"),
    ("auth.a.co.uk", "registry.a.co.uk"),
    ("127.0.0.1", "127.0.0.1"),
])
def test_realms_tied_to_the_registry(realm: str, registry: str) -> None:
    assert tied(realm, registry)


@pytest.mark.parametrize(("realm", "registry"), [
    ("evil.example", "registry.example.com"),
    ("example.com.evil.example", "registry.example.com"),
    ("evil.io", "ghcr.io"),
    ("evil.co.uk", "a.co.uk"),
    ("10.0.0.2", "10.0.0.1"),
    ("0.0.1", "127.0.0.1"),
    ("evil", "registry"),
])
def test_realms_of_somebody_else(realm: str, registry: str) -> None:
    assert not tied(realm, registry)


def test_challenges_with_quotes_commas_and_several_schemes() -> None:
    header = 'Bearer realm="https://a.example/?x=1,2",service="s \\"q\\"",scope="repository:a:pull,push", Basic realm=b'
    bearer, basic = parse_challenges(header)
    assert (bearer.scheme, basic.scheme) == ("bearer", "basic")
    assert bearer.parameters["realm"] == "https://a.example/?x=1,2"
    assert bearer.parameters["service"] == 's "q"'
    assert bearer.parameters["scope"] == "repository:a:pull,push"
    assert basic.parameters["realm"] == "b"


@pytest.mark.parametrize("header", ["", ",", "=", "Bearer realm", 'Bearer realm="', "\x00" * 100, "a=" * 20_000])
def test_broken_challenges_are_survived(header: str) -> None:
    assert all(challenge.parameters.get("realm") is None for challenge in parse_challenges(header))


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(Credentials("user", "hidden", "hidden", "hidden"))
