"""Volumes and mounts as the docker command asks for them, against a real node."""

import json
from pathlib import Path

import pytest

from node.client import DaemonError
from tests.e2e.conftest import Docker, Platform

pytestmark = [pytest.mark.root, pytest.mark.e2e]


@pytest.fixture(autouse=True)
def image(platform: Platform) -> None:
    platform.pull()


@pytest.fixture(autouse=True)
def no_volumes(platform: Platform):
    yield
    platform.remove_containers()
    for volume in platform.client.json("GET", "/volumes")["Volumes"] or ():
        platform.client.status("DELETE", f"/volumes/{volume['Name']}", {"force": True})
    assert "/volumes/" not in Path("/proc/mounts").read_text()


def test_two_containers_share_a_tmpfs_volume_and_a_killed_daemon_keeps_it(docker: Docker, platform: Platform) -> None:
    docker.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "--label", "a=b", "fast")
    docker.ok("run", "-d", "--name", "one", "-v", "fast:/f", platform.image(), "sleep", "60")
    docker.ok("run", "-d", "--name", "two", "-v", "fast:/f:ro", platform.image(), "sleep", "60")
    docker.ok("exec", "one", "sh", "-c", "echo shared > /f/file")
    assert docker("exec", "one", "dd", "if=/dev/zero", "of=/f/big", "bs=1M", "count=2").returncode != 0
    platform.kill_node()
    platform.start_node()
    assert docker.ok("exec", "two", "cat", "/f/file") == "shared\n"
    docker.ok("rm", "-f", "one")
    assert docker.ok("exec", "two", "cat", "/f/file") == "shared\n"
    assert docker("volume", "rm", "fast").stderr.count("volume is in use") == 1
    docker.ok("rm", "-f", "two")
    found = json.loads(docker.ok("volume", "inspect", "fast"))[0]
    assert (found["Options"], found["Labels"]) == ({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, {"a": "b"})
    assert found["Mountpoint"] not in Path("/proc/mounts").read_text()


def test_prune_takes_what_nobody_has(docker: Docker, platform: Platform) -> None:
    docker.ok("volume", "create", "named")
    docker.ok("create", "--name", "user", "-v", "/data", platform.image())
    loose = docker.ok("volume", "create").strip()
    text = docker.ok("volume", "prune", "-f")
    assert loose in text
    kept = docker.ok("volume", "ls", "-q").split()
    # Before API 1.42 a prune takes named ones too.
    assert ("named" in kept) == (docker.version >= 23)
    assert len([name for name in kept if name != "named"]) == 1
    platform.client.json("POST", "/volumes/prune", {"filters": {"all": ["true"]}})
    assert "named" not in docker.ok("volume", "ls", "-q")
    docker.ok("rm", "user")


def test_a_mount_that_shares_needs_one_that_is_shared(docker: Docker, platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match="invalid filter 'bad'"):
        platform.client.json("GET", "/volumes", {"filters": {"bad": ["x"]}})
    result = docker("run", "--rm", "-v", "/proc:/p:rshared", platform.image(), "true")
    shared = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == "/proc")
    if "shared:" not in shared:
        assert result.returncode == 125
        assert "path /proc is mounted on /proc but it is not a shared mount" in result.stderr
