from pathlib import Path

import pytest

from registry.settings import InvalidSettings, Settings


def load(tmp_path: Path, text: str = "", environment: dict[str, str] | None = None, **flags: object) -> Settings:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    return Settings.load(file, environment or {}, **flags)


def test_defaults_are_right_for_one_machine() -> None:
    settings = Settings.load(None, {})
    assert settings.address == ("127.0.0.1", 5000)
    assert settings.database_url == f"sqlite+aiosqlite:///{Path.cwd()}/registry-data/registry.db"
    assert not settings.insecure_no_auth


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = 'listen = "127.0.0.1:1"\nworkers = 1\ndata = "/srv/a"\n[limits]\nidle_timeout = 5\npage_size = 7\n'
    environment = {"SEAWALL_REGISTRY_LISTEN": "127.0.0.1:2", "SEAWALL_REGISTRY_WORKERS": "2",
                   "SEAWALL_REGISTRY_LIMITS_PAGE_SIZE": "8", "OTHER": "x"}
    settings = load(tmp_path, text, environment, listen="[::1]:3", data=None)
    assert settings.address == ("::1", 3)
    assert (settings.workers, settings.data) == (2, Path("/srv/a"))
    assert (settings.limits.idle_timeout, settings.limits.page_size) == (5.0, 8)


@pytest.mark.parametrize(("value", "meant"), [("1", True), ("Yes", True), ("off", False), ("false", False)])
def test_switches_in_the_environment(value: str, meant: bool) -> None:
    assert Settings.load(None, {"SEAWALL_REGISTRY_LOG_ACCESS": value}).log.access is meant


@pytest.mark.parametrize("text", [
    'listen = "5000"', 'listen = ":5000"', 'listen = "a:b"', 'listen = "a:99999"', 'listen = "a:-1"', "listen = 5",
    "workers = -1", 'workers = "many"', "workers = true", "surprise = 1", "[surprise]", "[limits]\nsurprise = 1",
    "limits = 5", "workers = {}", "[limits]\nidle_timeout = 0", "[limits]\nidle_timeout = nan",
    "[gc]\ngrace = 60", "[log]\nlevel = 'LOUD'", "[log]\naccess = 'maybe'", "[log]\naccess = 1",
    '[tls]\ncertificate = "a"', '[tls]\nkey = "a"', "not toml", "[manifests]\nrequire_platforms = 'some/where/else/x'",
    "[manifests]\nrequire_platforms = ''", "[uploads]\nchunk_min_bytes = -1",
    "[rate]\naddress = -1", "[rate]\nburst = 0", 'cors_origins = "*"', 'cors_origins = "https://a/b"', "[uploads]\nexpire_after = 1", "data = 5",
])
def test_what_cannot_be_right_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSettings):
        load(tmp_path, text)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="absent"):
        Settings.load(tmp_path / "absent.toml", {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(InvalidSettings, match="bytes"):
        Settings.load(tmp_path / "bytes.toml", {})


def test_passwords_are_not_shown() -> None:
    settings = Settings.load(None, {}, database="postgresql+asyncpg://me:secret@host/db")
    assert "secret" not in repr(settings)
