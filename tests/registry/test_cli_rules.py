"""The verbs that set rules, beside a registry that runs or not."""

import asyncio
from datetime import timedelta

import click
import pytest
from click.testing import CliRunner

from registry.cli import main
from registry.cli.amounts import duration, shown, size


@pytest.fixture
async def run(api, settings):
    """`await run("quota", "list")`: output and exit status, on the data of a registry that serves."""

    async def invoke(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--data", str(settings.data)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return invoke


async def test_immutable(api, run, refused) -> None:
    assert await run("immutable", "set", "team/*", "v*") == (0, "set\n")
    assert await run("immutable", "list") == (0, "team/*:v*\n")
    assert await run("immutable", "check", "team/app:v1", "team/app:x") == (
        0, "team/app:v1  immutable by team/*:v*\nteam/app:x  may be moved\n")
    await api.image("v1")
    await refused(api.manifest("v1", await api.document(layer=b"2")), 403, "DENIED")
    assert await run("immutable", "remove", "team/*", "v*") == (0, "removed\n")
    assert (await run("immutable", "remove", "team/*", "v*"))[0] == 1
    await api.image("v1", layer=b"2")
    status, output = await run("immutable", "set", "a b")
    assert (status, "not a pattern" in output) == (1, True)


async def test_quota(api, run, refused) -> None:
    await api.blob(b"x" * 600)
    assert (await run("quota", "set", "team", "500", "--dry-run")) == (0, "team  600 B of 500 B, charged 0: refused\n")
    assert await run("quota", "set", "team", "1KB") == (0, "set\n")
    assert await run("quota", "check") == (0, "team  600 B of 1 kB: 400 B left\n")
    assert await run("quota", "list") == (0, "team  1000\n")
    location = await api.begin()
    await refused(api.put(f"{location}?digest=sha256:{'0' * 64}", data=b"y" * 500), 403, "DENIED")
    assert await run("quota", "remove", "team") == (0, "removed\n")
    assert (await run("quota", "set", "team/*", "1"))[0] == 1


async def test_retention(api, run) -> None:
    await api.image("a", "b")
    await api.image("c", layer=b"2")
    status, output = await run("retention", "set", "team/**", "--last", "1")
    assert (status, "2 tags would go" in output) == (1, True)
    status, output = await run("retention", "set", "team/**", "--last", "1", "--dry-run")
    assert [line.split("  ")[0] for line in output.splitlines()] == [
        "remove team/app:a", "remove team/app:b", "2 would go, 1 stay"]
    assert await run("retention", "list") == (0, "")
    assert (await run("retention", "set", "team/**", "--last", "1", "--yes"))[0] == 0
    assert (await run("retention", "set", "team/**", "--tags", "a", "--pulled-within", "2h"))[0] == 0
    assert (await run("retention", "untagged", "team/**", "30d"))[0] == 0
    assert await run("retention", "list") == (
        0, "tags      team/**:**  last 1\ntags      team/**:a  pulled within 2 h\nuntagged  team/**  30 d\n")
    status, output = await run("retention", "check", "--all")
    assert "remove team/app:b  no clause of team/** keeps it" in output
    assert output.endswith("1 would go, 2 stay\n")
    report = await api.registry.housekeeping.retention.run()
    assert report.removed == {"team/app": 1}
    assert await run("retention", "remove", "team/**", "--untagged") == (0, "removed\n")
    assert await run("retention", "remove", "team/**") == (0, "removed\n")
    assert (await run("retention", "remove", "team/**"))[0] == 1


def test_amounts() -> None:
    assert duration("90m") == timedelta(minutes=90)
    assert (size("2GiB"), size("5 MB"), size("7")) == (2 << 30, 5_000_000, 7)
    assert (shown(999), shown(123_456_789)) == ("999 B", "123 MB")
    for broken in ("", "5", "-1d", "1y", "d"):
        with pytest.raises(click.BadParameter):
            duration(broken)
    for broken in ("", "x", "-5", "1EB", "9999999TB", "9" * 40):
        with pytest.raises(click.BadParameter):
            size(broken)
