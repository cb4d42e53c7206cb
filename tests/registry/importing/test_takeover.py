"""How an import goes: in place or copied, twice, interrupted, beside clients, and without doing anything."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition
from ocispec.pattern import Pattern
from registry import app
from registry.importing.target import Mode
from storage.metadata import tables

COMMAND = str(Path(sys.executable).with_name("seawall-registry"))
KILLING = Path(__file__).with_name("killing.py")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_in_place_there_is_no_second_copy(distribution, take, settings, unchanged):
    first = distribution.image("v1", layers=(os.urandom(100_000),))
    before = unchanged(distribution.folder)
    result = take(distribution, mode=Mode.LINK)
    assert result.entries == []
    assert result.holding() == {"team/app": {"v1": str(first)}}
    assert inodes(settings.data / "content") < inodes(distribution.folder)
    assert unchanged(distribution.folder) == before, "not even modes or times"


def test_what_the_old_registry_deletes_stays_ours(distribution, take):
    digest = distribution.image("v1")
    result = take(distribution, mode=Mode.LINK)
    for path in distribution.folder.rglob("data"):
        path.unlink()
    assert result.holding() == {"team/app": {"v1": str(digest)}}


def test_what_we_delete_stays_theirs(distribution, take, settings):
    distribution.image("v1")
    take(distribution, mode=Mode.LINK)
    for path in (settings.data / "content").rglob("*"):
        if path.is_file():
            path.unlink()
    assert distribution.data(Digest.of(b"layer")).read_bytes() == b"layer"


@pytest.fixture
def elsewhere(settings, small_disk):
    """The store lies on another file system than the source."""
    content = settings.data / "content"
    content.symlink_to(small_disk)
    return small_disk


@pytest.mark.root
def test_files_of_another_file_system_are_copied_only_when_that_was_allowed(distribution, take, elsewhere):
    digest = distribution.image("v1")
    with pytest.raises(FailedPrecondition, match="another file system.*--or-copy"):
        take(distribution, mode=Mode.LINK)
    result = take(distribution, mode=Mode.LINK, or_copy=True)
    assert result.holding() == {"team/app": {"v1": str(digest)}}


@pytest.mark.root
def test_a_full_disk_ends_the_import_and_a_larger_one_continues_it(distribution, take, elsewhere):
    from storage.errors import StoreFull
    layers = tuple(os.urandom(1 << 20) for _ in range(10))
    distribution.image("v1", layers=layers)
    with pytest.raises(StoreFull):
        take(distribution)
    subprocess.run(["mount", "-o", "remount,size=30m", elsewhere], check=True)
    result = take(distribution)
    assert result.entries == []
    assert result.counts.blobs + result.counts.blobs_known == 11
    assert result.holding().keys() == {"team/app"}


def test_a_second_import_changes_nothing_and_reads_no_blob(distribution, take):
    distribution.image("v1", "v2")
    distribution.image("v1", repo="other")
    first = take(distribution)
    held = first.holding()
    distribution.data(Digest.of(b"layer")).write_bytes(b"damaged")
    second = take(distribution)
    assert (second.entries, second.counts.blobs, second.counts.manifests, second.counts.tags) == ([], 0, 0, 0)
    assert (second.counts.blobs_known, second.counts.manifests_known) == (4, 2)
    assert second.holding() == held


def test_what_came_meanwhile_is_taken_by_the_next(distribution, take):
    first = distribution.image("v1")
    take(distribution)
    second = distribution.image("v2", layers=(b"new",))
    result = take(distribution)
    assert (result.counts.blobs, result.counts.manifests, result.counts.tags) == (1, 1, 1)
    assert result.holding() == {"team/app": {"v1": str(first), "v2": str(second)}}


def test_a_tag_that_exists_here_stays_unless_it_shall_move(distribution, take):
    ours = distribution.image("v1", layers=(b"ours",))
    take(distribution)
    theirs = distribution.image("v1", layers=(b"theirs",))
    result = take(distribution)
    assert (result.damage, result.notes) == ([], ["tag-exists"])
    assert result.holding() == {"team/app": {"v1": str(ours)}}
    result = take(distribution, overwrite_tags=True)
    assert result.entries == []
    assert result.holding() == {"team/app": {"v1": str(theirs)}}


def test_a_dry_run_tells_the_same_and_changes_nothing(distribution, take, settings, make_image, make_index):
    distribution.image("v1", layers=(b"good",))
    distribution.image("bad", layers=(b"damaged",))
    distribution.image("other", layers=(b"good",), repo="other")
    distribution.manifest(make_index(make_image((b"good",))), "multi")
    distribution.data(Digest.of(b"damaged")).write_bytes(b"x")
    dry = take(distribution, dry_run=True)
    assert dry.holding() == {}
    assert inodes(settings.data / "content") == set()
    real = take(distribution)
    assert dry.damage == real.damage == [("incomplete-manifest", "lost"), ("lost-tag", "lost"), ("wrong-digest", "lost")]
    assert dry.counts.to_json() == real.counts.to_json()
    again = take(distribution, dry_run=True)
    assert (again.counts.blobs, again.counts.manifests, again.counts.tags) == (0, 0, 0)


def test_trust_believes_digests_and_nothing_else(distribution, take):
    distribution.image("v1", layers=(b"layer",))
    distribution.image("v2", layers=(b"longer",))
    distribution.data(Digest.of(b"layer")).write_bytes(b"lAyer")
    distribution.data(Digest.of(b"longer")).write_bytes(b"short")
    result = take(distribution, verify=False)
    assert result.damage == [("lost-tag", "lost"), ("size-mismatch", "lost")]


def test_ages_survive(distribution, take, settings):
    distribution.image("v1")
    digest = Digest.of(distribution.data(Digest.parse(distribution.tag_link("v1").read_text())).read_bytes())
    os.utime(distribution.tag_link("v1"), (1_600_000_000, 1_600_000_000))
    os.utime(distribution.revision_link(digest), (1_500_000_000, 1_500_000_000))
    take(distribution)

    async def ages():
        async with app.open_registry(settings, migrate=False) as registry, registry.intake._database.read() as tx:
            return (await tx.execute(sa.select(tables.tags.c.updated, tables.manifests.c.pushed,
                                               tables.manifests.c.touched)
                                     .join_from(tables.tags, tables.manifests))).one()

    updated, pushed, touched = asyncio.run(ages())
    assert (updated.timestamp(), pushed.timestamp()) == (1_600_000_000, 1_500_000_000)
    assert time.time() - touched.timestamp() < 60, "the collector must not take it for forgotten"


STEPS = ["link:1", "linked:3", "record:1", "recorded:2", "put:1", "put:3", "tags:1", "tagged:1", "backdate:1"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_goes_on(distribution, take, settings, step, make_image, make_index):
    distribution.image("v1", layers=(b"one", b"two"))
    distribution.image("v2", layers=(b"two", b"three"))
    distribution.manifest(make_index(make_image((b"one", b"two")), make_image((b"two", b"three"))), "multi")
    distribution.image("v1", layers=(b"two", b"four"), repo="zzz")
    wanted = {"team/app", "zzz"}
    process = subprocess.Popen([sys.executable, str(KILLING), str(settings.data), str(distribution.folder), step],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline().strip() == step, "it was not there"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    result = take(distribution, mode=Mode.LINK)
    assert result.entries == []
    held = result.holding()
    assert held.keys() == wanted
    assert held["team/app"].keys() == {"v1", "v2", "multi"}
    done = take(distribution, mode=Mode.LINK)
    assert (done.counts.blobs, done.counts.manifests, done.counts.tags) == (0, 0, 0)


async def test_beside_clients_and_the_collector(distribution, api, settings):
    """A registry serves, takes pushes and collects while thousands of files come in."""
    for number in range(30):
        distribution.image("latest", f"v{number}", layers=(b"layer %d" % number, b"shared"), repo=f"old/r{number % 5}")
    distribution.image("latest", layers=(b"theirs",), repo="team/app")
    importing = asyncio.create_subprocess_exec(
        COMMAND, "import", "distribution", distribution.folder, "--data", settings.data, "--in-place",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    process = await importing
    pushed = 0
    while process.returncode is None:
        ours = await api.image("latest", layer=b"push %d" % pushed)
        pushed += 1
        await api.registry.collector.run(grace=timedelta(hours=1))
        await asyncio.sleep(0)
        if process.stdout.at_eof():
            break
        try:
            async with asyncio.timeout(0.01):
                await process.wait()
        except TimeoutError:
            continue
    output = (await process.stdout.read()).decode()
    assert await process.wait() == 0, output
    assert pushed > 1
    async with api.get("/v2/team/app/manifests/latest") as answer:
        assert answer.headers["Docker-Content-Digest"] == str(ours), "a client's push wins"
    for number in range(5):
        async with api.get(f"/v2/old/r{number}/manifests/latest") as answer:
            assert answer.status == 200
            for layer in (await answer.json(content_type=None))["layers"]:
                async with api.get(f"/v2/old/r{number}/blobs/{layer['digest']}") as blob:
                    assert str(Digest.of(await blob.read())) == layer["digest"]


def test_rules_of_ours_are_kept(distribution, take, settings):
    from storage.metadata.rules import ImmutableRule, QuotaRule

    async def rule(*wanted):
        async with app.open_registry(settings, migrate=False) as registry:
            for one in wanted:
                await registry.content.rules.put(one)

    distribution.image("v1", layers=(b"ours",), repo="a/x")
    distribution.image("v1", layers=(os.urandom(50_000),), repo="b/x")
    first = take(distribution).holding()
    distribution.image("v1", layers=(b"moved",), repo="a/x")
    distribution.image("v2", layers=(os.urandom(90_000),), repo="b/x")
    asyncio.run(rule(ImmutableRule(Pattern.parse("**"), Pattern.parse("v*")), QuotaRule("b", 80_000)))
    result = take(distribution, overwrite_tags=True)
    assert result.damage == [("incomplete-manifest", "lost"), ("lost-tag", "lost"), ("refused", "lost")]
    assert result.notes == ["tag-exists"]
    assert result.holding() == first


def test_the_command(distribution, tmp_path):
    digest = distribution.image("v1")
    bad = distribution.image("bad", layers=(b"bad",))
    distribution.data(Digest.of(b"bad")).write_bytes(b"worse")
    data, report = tmp_path / "data", tmp_path / "report.json"
    assert "seawall-registry migrate" in command("import", "distribution", distribution.folder, "--data", data).stderr
    assert command("migrate", "--data", data).returncode == 0
    result = command("import", "distribution", distribution.folder, "--data", data, "--report", report)
    assert result.returncode == 3, result.stderr
    assert re.search(r"lost +wrong-digest  docker/registry/v2/blobs/.*data: content has digest", result.stderr)
    assert "took 1 repositories, 1 tags, 1 manifests, 2 blobs" in result.stdout
    document = json.loads(report.read_text())
    assert sorted(entry["class"] for entry in document["entries"]) == [
        "incomplete-manifest", "lost-tag", "wrong-digest"]
    assert document["entries"][0]["repository"] == "team/app"
    assert document["summary"]["damaged"] == 3
    assert {entry["digest"] for entry in document["entries"]} == {str(bad), str(Digest.of(b"bad"))}
    distribution.tag_link("bad").unlink()
    distribution.revision_link(bad).unlink()
    distribution.layer_link(Digest.of(b"bad")).unlink()
    import shutil
    shutil.rmtree(distribution.tag_link("bad").parent.parent)
    assert command("import", "distribution", distribution.folder, "--data", data).returncode == 0
    verified = command("verify", "--data", data)
    assert (verified.returncode, "2 blobs" in verified.stdout) == (0, True)
    assert str(digest)


@pytest.mark.parametrize(("arguments", "message"), [
    (("import", "distribution", "/nowhere"), "cannot read /nowhere"),
    (("import", "zot", "s3://"), "no bucket"),
    (("import", "zot", "s3://bucket/x", "--in-place"), "can only be copied"),
    (("import", "harbor", "/tmp"), "'harbor' is not one of"),
    (("verify", "--rate", "fast"), "no rate"),
    (("verify", "--since", "ever"), "no time"),
])
def test_commands_that_cannot_be(settings, arguments, message):
    result = command(*arguments, "--data", settings.data)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_verify_as_a_command(distribution, settings, tmp_path):
    distribution.image("v1", "v2")
    command("import", "distribution", distribution.folder, "--data", settings.data, "--in-place")
    distribution.data(Digest.of(b"layer")).write_bytes(b"lAyer")  # what --in-place trusts nobody to do
    report = tmp_path / "report.json"
    result = command("verify", "--data", settings.data, "--quarantine", "--rate", "10M", "--report", report)
    assert result.returncode == 3
    assert f"wrong-digest  {Digest.of(b'layer')}" in result.stdout
    (damage,) = json.loads(report.read_text())["damaged"]
    assert damage["repositories"] == ["team/app"]
    assert damage["manifests"][0]["tags"] == ["v1", "v2"]
    assert damage["quarantined"]
    assert command("verify", "--data", settings.data, "--since", "7d").returncode == 3


