"""From a request to the audit log and to a webhook, and the commands about both."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from registry.cli import main
from registry.notifications.audit import AuditLog
from storage.events import Action
from storage.metadata.events import Wanted

COMMAND = str(Path(sys.executable).with_name("seawall-registry"))


@pytest.fixture
async def hook():
    """URL and what came there."""
    got: list[dict] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        got.append(json.loads(await request.read()))
        return web.Response(status=204)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/", got
    await runner.cleanup()


def ask(*arguments: str, data: Path) -> Result:
    """In this process: starting Python takes longer than what is tested."""
    return CliRunner().invoke(main, [*arguments, "--data", str(data)])


async def run(*arguments: str, data: Path) -> str:
    done = await asyncio.to_thread(ask, *arguments, data=data)  # the command has an event loop of its own
    assert done.exit_code == 0, done.output
    return done.output


async def test_a_push_is_told_to_a_webhook_by_one_of_several_workers(hook, tmp_path, until) -> None:
    url, got = hook
    config = tmp_path / "registry.toml"
    config.write_text(f'[[webhooks]]\nname = "ci"\nurl = "{url}"\nformat = "distribution"\nallow_private = true\n'
                      'actions = ["manifest.*", "tag.*"]\n')
    process = await asyncio.create_subprocess_exec(
        COMMAND, "serve", "--config", str(config), "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0",
        "--workers", "2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        port = 0
        while not port:
            line = (await process.stdout.readline()).decode()
            found = re.search(r"listens on http://127.0.0.1:(\d+) ", line)
            port = int(found[1]) if found else 0
        base = f"http://127.0.0.1:{port}"
        raw = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
        await asyncio.sleep(0)

        async def listed() -> bool:
            return "delivered=" in await run("webhooks", "list", "--config", str(config), data=tmp_path / "data")

        await until(listed, within=20)
        async with aiohttp.ClientSession() as session:
            for tag in ("v1", "v2", "v3"):
                async with session.put(f"{base}/v2/team/app/manifests/{tag}", data=raw, headers={
                        "Content-Type": "application/vnd.oci.image.index.v1+json"}) as answer:
                    assert answer.status == 201, await answer.text()
            async with session.delete(f"{base}/v2/team/app/manifests/v3") as answer:
                assert answer.status == 202
        await until(lambda: len(got) == 4, within=20)
        events = [document["events"][0] for document in got]
        assert [(event["action"], event["target"]["tag"]) for event in events] == [
            ("push", "v1"), ("push", "v2"), ("push", "v3"), ("delete", "v3")]
        assert events[0]["target"]["url"].startswith(f"{base}/v2/team/app/manifests/sha256:")
        shown = (await run("audit", "--json", "--repository", "team/app", data=tmp_path / "data")).splitlines()
        assert [json.loads(line)["action"] for line in shown] == ["tag.delete", *["manifest.push"] * 3]
        assert "manifest.push" in await run("audit", "--action", "manifest.push", "--limit", "1", "--since", "1h",
                                      data=tmp_path / "data")
        assert await run("audit", "--until", "1h", data=tmp_path / "data") == ""
        assert await run("webhooks", "dead", "ci", "--config", str(config), data=tmp_path / "data") == ""
        assert "0 will be" in await run("webhooks", "redeliver", "ci", "--config", str(config), data=tmp_path / "data")
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("arguments", [
    ["audit", "--since", "yesterday"], ["audit", "--repository", "Not/Valid"], ["audit", "--action", "no.such"],
    ["webhooks", "redeliver", "unknown"]])
def test_what_the_commands_refuse(tmp_path, migrated, arguments) -> None:
    shutil.copy(migrated, tmp_path / "registry.db")
    done = ask(*arguments, data=tmp_path)
    assert done.exit_code
    assert isinstance(done.exception, SystemExit)
    assert "Error: " in done.output


def test_a_database_that_is_not_there_is_not_made(tmp_path) -> None:
    done = ask("audit", data=tmp_path)
    assert done.exit_code == 1
    assert "there is no database" in done.output
    assert list(tmp_path.iterdir()) == []


async def test_who_is_refused_is_written_down(api, monkeypatch) -> None:
    from ocispec.errors import PermissionDenied, Unauthenticated
    from registry.auth.principal import Presented

    access = api.registry.identity.access

    async def identify(presented: Presented):
        raise Unauthenticated("wrong password") if presented.authorization else PermissionDenied("not for you")

    monkeypatch.setattr(type(access), "identify", lambda self, presented: identify(presented))
    path = "/v2/team/app/manifests/v1%0aforged?token=secret"
    async with api.get(path, headers={"Authorization": "Basic bWlhOmh1bnRlcjI="}) as answer:
        assert answer.status == 401
    async with api.get(path) as answer:
        assert answer.status == 403
    async with api.get(path, headers={"Authorization": "Basic ///"}) as answer:
        assert answer.status == 401
    monkeypatch.undo()
    await api.registry.refusals.flush()
    entries = (await AuditLog(api.registry.database).page(Wanted())).entries
    text = str(entries)
    assert "hunter2" not in text
    assert "bWlh" not in text
    assert "token=secret" not in text
    assert [entry.event.action for entry in reversed(entries)] == [
        Action.LOGIN_FAILED, Action.ACCESS_DENIED, Action.LOGIN_FAILED]
    assert entries[-1].event.detail["claimed"] == "mia"
    assert {str(entry.event.repository) for entry in entries} == {"team/app"}


async def test_a_client_that_has_not_logged_in_yet_is_not_a_failure(api, monkeypatch) -> None:
    from ocispec.errors import Unauthenticated

    async def identify(_self, _presented):
        raise Unauthenticated("log in")

    monkeypatch.setattr(type(api.registry.identity.access), "identify", identify)
    async with api.get("/v2/team/app/manifests/v1") as answer:
        assert answer.status == 401
    monkeypatch.undo()
    await api.registry.refusals.flush()
    assert not (await AuditLog(api.registry.database).page(Wanted())).entries


async def test_pulls_are_told_when_asked_for(serve, settings) -> None:
    from dataclasses import replace

    from registry.settings import EventSettings

    for wanted in (False, True):
        async with serve(replace(settings, events=EventSettings(pulls=wanted))) as api:
            await api.image("v1")
            for _ in range(3):
                async with api.get(f"/v2/{api.repo}/manifests/v1"):
                    pass
            await api.registry.content.pulls.flush()
            entries = (await AuditLog(api.registry.database).page(Wanted(action=Action.MANIFEST_PULL))).entries
            assert [(str(entry.event.tag), entry.event.detail) for entry in entries] == (
                [("v1", {"count": 3})] if wanted else [])
