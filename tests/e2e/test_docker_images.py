"""Images by the unmodified docker command: platforms, prune, distribution, disk usage, every tag."""

import json
import re

import pytest

from tests.e2e.conftest import Docker, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture(autouse=True)
def pulled(platform: Platform) -> None:
    platform.pull()


def test_every_tag_is_pulled(docker: Docker, platform: Platform) -> None:
    text = docker.ok("pull", "-a", platform.image("busybox"))
    tags = json.loads(docker.ok("image", "ls", "--format", "{{json .Tag}}", platform.image("busybox")).splitlines()[0])
    assert tags
    assert text.count("Pulling from busybox") >= 2
    assert docker("pull", "-a", platform.image("nothere")).returncode == 1


def test_df_and_system_prune(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "--name", "box", platform.image(), "sh", "-c", "dd if=/dev/zero of=/big bs=1k count=300 2>&1")
    rows = dict(line.split("\t") for line in docker.ok("system", "df", "--format", "{{.Type}}\t{{.Size}}").splitlines())
    assert set(rows) >= {"Images", "Containers", "Local Volumes", "Build Cache"}
    assert float(rows["Containers"].removesuffix("kB")) > 307
    verbose = docker.ok("system", "df", "-v")
    assert re.search(r"busybox +latest +[0-9a-f]{12} .* 1$", verbose, re.MULTILINE)
    text = docker.ok("system", "prune", "-f")
    assert "Deleted Containers:" in text
    reclaimed = re.search(r"Total reclaimed space: ([\d.]+)kB", text)
    assert reclaimed
    assert float(reclaimed[1]) > 307


def test_image_prune(docker: Docker, platform: Platform) -> None:
    docker.ok("pull", platform.image("dive:14-layers"))
    assert "Total reclaimed space: 0B" in docker.ok("image", "prune", "-f")
    docker.ok("run", "-d", "--name", "box", platform.image(), "sleep", "60")
    text = docker.ok("image", "prune", "-a", "-f")
    assert f"untagged: {platform.image('dive:14-layers')}" in text
    assert "deleted: sha256:" in text
    assert docker.inspect(platform.image(), "{{.Os}}") == "linux"
    assert docker("image", "inspect", platform.image("dive:14-layers")).returncode == 1


def test_image_prune_until(docker: Docker, platform: Platform) -> None:
    docker.ok("pull", platform.image("dive:14-layers"))
    docker.ok("image", "prune", "-a", "-f", "--filter", "until=2001-01-01T00:00:00Z")
    assert docker.inspect(platform.image("dive:14-layers"), "{{.Os}}") == "linux"
    wrong = docker("image", "prune", "-f", "--filter", "colour=blue")
    assert "invalid filter" in wrong.stderr


def test_manifest_inspect_asks_the_registry(docker: Docker, platform: Platform) -> None:
    answer = platform.client.json("GET", f"/distribution/{platform.image('busybox:latest')}/json")
    assert answer["Descriptor"]["digest"].startswith("sha256:")
    assert answer["Platforms"][0]["os"] == "linux"
    assert docker.inspect(platform.image(), "{{.Id}}").startswith("sha256:")


def test_info_tells_of_this_host(docker: Docker) -> None:
    info = json.loads(docker.ok("info", "--format", "{{json .}}"))
    assert dict(info["DriverStatus"])["Backing Filesystem"] not in ("", "unknown")
    assert "local" in info["Plugins"]["Log"]
    assert info["NFd"] > 5
    assert info["MemoryLimit"] is True
    assert info["RegistryConfig"]["IndexConfigs"]["docker.io"]["Official"] is True
