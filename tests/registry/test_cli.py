"""The command: what it refuses and what it prints."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from registry import app
from registry.cli import main
from registry.settings import InvalidSettings, Settings, TlsSettings
from registry.tls import make_context

COMMAND = str(Path(sys.executable).with_name("seawall-registry"))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False,
                          env={**os.environ, **environment})


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:5000"])
def test_no_stranger_reaches_a_registry_without_accounts(tmp_path, address) -> None:
    result = run("serve", "--data", str(tmp_path), "--listen", address)
    assert result.returncode == 1
    assert "--insecure-no-auth" in result.stderr
    assert "Traceback" not in result.stderr
    app.check_exposure(Settings.load(None, {}, listen=address, insecure_no_auth=True, insecure_no_tls=True))


@pytest.mark.parametrize("asked", [{"auth": {"mode": "accounts"}}, {"insecure_no_auth": True}])
def test_no_password_travels_in_the_clear(asked) -> None:
    settings = Settings.load(None, {}, listen="0.0.0.0:0", **asked)
    with pytest.raises(InvalidSettings, match="--insecure-no-tls"):
        app.check_exposure(settings)
    app.check_exposure(replace(settings, insecure_no_tls=True))
    app.check_exposure(replace(settings, tls=TlsSettings("cert.pem", "key.pem")))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "localhost:0"])
def test_loopback_needs_no_flag(address) -> None:
    app.check_exposure(Settings.load(None, {}, listen=address))


def test_the_environment_counts(tmp_path) -> None:
    result = run("serve", "--data", str(tmp_path), SEAWALL_REGISTRY_LISTEN="nonsense")
    assert (result.returncode, result.stderr.strip()) == (1, "Error: listen is not HOST:PORT: 'nonsense'")


def test_migrate_twice(tmp_path) -> None:
    for _ in range(2):
        result = CliRunner().invoke(main, ["migrate", "--data", str(tmp_path / "data")])
        assert (result.exit_code, result.output) == (0, "the database is up to date\n")


@pytest.mark.parametrize("url", ["mysql://x", "nonsense", "sqlite+aiosqlite:///:memory:",
                                 "sqlite+aiosqlite:////proc/registry.db"])
def test_databases_that_are_none(tmp_path, url) -> None:
    result = run("serve", "--data", str(tmp_path), "--listen", "127.0.0.1:0", "--database", url)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "database" in result.stderr


def test_a_database_of_a_later_version(tmp_path, migrated) -> None:
    import shutil
    import sqlite3
    shutil.copy(migrated, tmp_path / "registry.db")
    with sqlite3.connect(tmp_path / "registry.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    result = run("serve", "--data", str(tmp_path), "--listen", "127.0.0.1:0")
    assert result.returncode == 1
    assert "later Seawall" in result.stderr


def test_a_data_folder_that_cannot_be(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    result = run("serve", "--data", str(tmp_path / "file" / "data"), "--listen", "127.0.0.1:0")
    assert result.returncode == 1
    assert "data folder" in result.stderr


def test_a_certificate_that_is_none(tmp_path) -> None:
    config = tmp_path / "registry.toml"
    config.write_text(f'[tls]\ncertificate = "{config}"\nkey = "{config}"\n')
    result = run("serve", "--config", str(config), "--data", str(tmp_path), "--listen", "127.0.0.1:0")
    assert result.returncode == 1
    assert "TLS certificate" in result.stderr
    with pytest.raises(InvalidSettings):
        make_context(Settings.load(config, {}).tls)


async def test_gc(serve, settings) -> None:
    async with serve(settings) as api:
        digest = await api.image("v1", repo="kept")
        orphan = await api.blob(b"nobody names it", repo="kept")
    dry = run("gc", "--data", str(settings.data), "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert f"keep    manifest   kept {digest}" in dry.stdout
    assert "0 would go" in dry.stdout  # within the grace
    assert run("gc", "--data", str(settings.data), "--grace", "5").returncode == 1
    import sqlite3
    with sqlite3.connect(settings.data / "registry.db") as database:  # two days later
        for table, column in (("blobs", "touched"), ("repository_blobs", "linked")):
            database.execute(f"UPDATE {table} SET {column} = {column} - 2 * 86400 * 1000000")
    database.close()
    dry = run("gc", "--data", str(settings.data), "--dry-run")
    assert f"would remove blob       {orphan}" in dry.stdout
    gone = run("gc", "--data", str(settings.data))
    assert f"removed blob       {orphan}" in gone.stdout
    assert f"{len(b'nobody names it')} bytes freed" in gone.stdout
    async with serve(settings) as api:
        async with api.get(f"/v2/kept/blobs/{orphan}") as answer:
            assert answer.status == 404
        async with api.get("/v2/kept/manifests/v1") as answer:
            for item in (manifest := json.loads(await answer.read()))["layers"] + [manifest["config"]]:
                async with api.get(f"/v2/kept/blobs/{item['digest']}") as blob:
                    assert blob.status == 200
