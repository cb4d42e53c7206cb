"""Settings become upstreams; names become places."""

from dataclasses import replace
from pathlib import Path

import pytest

from ocispec.descriptor import Platform
from ocispec.reference import InvalidName, RepositoryName
from registry.proxy.errors import UpstreamDenied
from registry.proxy.upstreams import Upstreams
from registry.settings import InvalidSettings, ProxySettings, Settings, UpstreamSettings

HUB = UpstreamSettings(name="docker.io")


def made(*settings: UpstreamSettings, own: tuple[str, ...] = ()) -> Upstreams:
    return Upstreams.of(settings, ProxySettings(own_names=own))


def path(upstreams: Upstreams, name: str, namespace: str | None = None) -> tuple[str, str]:
    place = upstreams.place(RepositoryName.parse(upstreams.named(name, namespace)))
    assert place is not None
    return place.repo.value, place.path.value


def test_docker_hub_is_known() -> None:
    (hub,) = made(HUB).all
    (reach,) = hub.reaches
    assert (str(reach.base), reach.allow_private, reach.realms) == (
        "https://registry-1.docker.io", False, {"auth.docker.io"})


@pytest.mark.parametrize(("name", "namespace", "expected"), [
    ("docker.io/library/alpine", None, ("docker.io/library/alpine", "library/alpine")),
    ("docker.io/alpine", None, ("docker.io/library/alpine", "library/alpine")),
    ("alpine", "docker.io", ("docker.io/library/alpine", "library/alpine")),
    ("team/app", "DOCKER.IO", ("docker.io/team/app", "team/app")),
    ("a/b/c", "docker.io", ("docker.io/a/b/c", "a/b/c")),
])
def test_names_of_docker_hub(name, namespace, expected) -> None:
    assert path(made(HUB), name, namespace) == expected


def test_a_hub_that_is_reached_elsewhere_has_its_names_and_not_its_realm() -> None:
    upstreams = made(replace(HUB, url="https://hub.corp.example"))
    assert path(upstreams, "docker.io/alpine") == ("docker.io/library/alpine", "library/alpine")
    assert upstreams.all[0].reaches[0].realms == frozenset()


def test_what_is_ours_stays_ours() -> None:
    upstreams = made(HUB, own=("registry.corp.example",))
    assert upstreams.place(RepositoryName.parse(upstreams.named("team/app", None))) is None
    assert upstreams.named("team/app", "registry.corp.example") == "team/app"
    for namespace in ("quay.io", "docker.io.evil.example", "../docker.io", "x" * 5000):
        with pytest.raises(InvalidName):
            upstreams.named("team/app", namespace)
    assert made().named("team/app", "quay.io") == "team/app"


@pytest.mark.parametrize(("pattern", "inside", "outside"), [
    ("library/*", ["library/a"], ["library/a/b", "librarya", "x/library/a"]),
    ("acme/**", ["acme/a", "acme/a/b"], ["acme", "acmex/a"]),
    ("a.b", ["a.b"], ["axb"]), ("**", ["a", "a/b"], []),
])
def test_patterns(pattern, inside, outside) -> None:
    upstreams = made(UpstreamSettings(name="up", repositories=(pattern,)))
    for name in inside:
        assert path(upstreams, f"up/{name}") == (f"up/{name}", name)
    for name in outside:
        with pytest.raises(UpstreamDenied):
            upstreams.place(RepositoryName.parse(f"up/{name}"))


def test_platforms() -> None:
    (upstream,) = made(UpstreamSettings(name="up", platforms=("linux/amd64", "linux/arm/v7"))).all
    assert upstream.wants(Platform("linux", "amd64"))
    assert upstream.wants(Platform("unknown", "unknown"))
    assert upstream.wants(None)
    assert not upstream.wants(Platform("linux", "arm64"))


@pytest.mark.parametrize("wrong", [
    {"name": ""}, {"name": "Up"}, {"name": "a/b"}, {"name": "a:5"}, {"url": "ftp://x"}, {"url": "https://"},
    {"url": "https://user:secret@x"}, {"url": "https://x?y"}, {"mirrors": ("nonsense",)}, {"prefix": "A"},
    {"platforms": ("what is it",)}, {"ca": "/nonexistent"}, {"password_file": "/nonexistent"},
    {"password": "a", "password_file": "/dev/null"},
])
def test_settings_that_cannot_be_right(wrong) -> None:
    with pytest.raises(InvalidSettings) as refused:
        made(replace(UpstreamSettings(name="up.test"), **wrong))
    assert "secret" not in str(refused.value)


def test_two_claims_to_one_name() -> None:
    for others in ((HUB,), (UpstreamSettings(name="other", namespaces=("docker.io",)),)):
        with pytest.raises(InvalidSettings):
            made(HUB, *others)
    with pytest.raises(InvalidSettings):
        made(HUB, own=("docker.io",))


def test_from_file_and_environment(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\nmore\n")
    file = tmp_path / "registry.toml"
    file.write_text(f'[[upstreams]]\nname = "a"\npassword_file = "{secret}"\nplatforms = ["linux/amd64"]\n'
                    '[[upstreams]]\nname = "b"\ntag_ttl = 5\n')
    settings = Settings.load(file, {})
    assert [one.name for one in settings.upstreams] == ["a", "b"]
    assert Upstreams.of(settings.upstreams, settings.proxy).all[0].credentials.password == "hush"
    settings = Settings.load(None, {
        "SEAWALL_REGISTRY_UPSTREAMS": '[{name = "c", password = "hush"}]', "SEAWALL_REGISTRY_PROXY_OWN_NAMES": "x, y:5000"})
    assert settings.upstreams[0].password == "hush"
    assert "hush" not in repr(settings)
    assert settings.proxy.own_names == ("x", "y:5000")


@pytest.mark.parametrize("text", [
    "upstreams = 5", "[upstreams]", "[[upstreams]]\nname = 5", "[[upstreams]]\nsurprise = 1",
    '[[upstreams]]\nname = "a"\nplatforms = 5', '[[upstreams]]\nname = "a"\ntag_ttl = -1', "[proxy]\ndownloads = 0",
    "[proxy]\nunused_after = 1",
])
def test_files_that_cannot_be_right(tmp_path: Path, text: str) -> None:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    with pytest.raises(InvalidSettings):
        Settings.load(file, {})
