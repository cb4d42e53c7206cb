"""Volumes and mounts as the docker command asks for them, against a real node."""

import json
import os
import subprocess
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


def test_an_image_is_mounted_with_a_layer_of_the_container(newest: Docker, platform: Platform) -> None:
    mount = f"type=image,source={platform.image()},target=/img"
    newest.ok("run", "-d", "--name", "box", "--mount", mount, platform.image(), "sleep", "60")
    newest.ok("exec", "box", "sh", "-c", "echo mine > /img/etc/mine && test -x /img/bin/busybox")
    newest.ok("restart", "-t", "0", "box")
    assert newest.ok("exec", "box", "cat", "/img/etc/mine") == "mine\n"
    layers = list((platform.home / "node" / "snapshots").rglob("etc/mine"))
    newest.ok("rm", "-f", "box")
    assert layers
    part = newest("run", "--rm", "--mount", f"{mount},readonly,image-subpath=etc", platform.image(), "sh", "-c",
                  "cat /img/passwd; touch /img/x")
    assert "root:" in part.stdout
    assert "Read-only file system" in part.stderr


def test_a_part_of_a_volume_and_nothing_beyond(newest: Docker, platform: Platform) -> None:
    newest.ok("run", "--rm", "-v", "data:/d", platform.image(), "sh", "-c",
              "mkdir -p /d/in; echo part > /d/in/file; ln -s / /d/out; ln -s in /d/alias")
    run = ("run", "--rm", "--mount")
    for part in ("in", "alias"):
        assert newest.ok(*run, f"type=volume,src=data,dst=/p,volume-subpath={part}", platform.image(), "cat",
                         "/p/file") == "part\n"
    beyond = newest(*run, "type=volume,src=data,dst=/p,volume-subpath=out", platform.image(), "ls", "/p")
    assert (beyond.returncode, "leads out of it" in beyond.stderr) == (125, True), beyond.stderr
    missing = newest(*run, "type=volume,src=data,dst=/p,volume-subpath=nothing", platform.image(), "ls", "/p")
    assert "no such file or directory" in missing.stderr


def test_the_owner_of_a_bind_is_the_container_s_user(docker: Docker, platform: Platform, tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    os.chown(source, 1234, 2345)
    (source / "roots").touch()
    text = docker.ok("run", "--rm", "-v", f"{source}:/work:idmap", platform.image(), "sh", "-c",
                     "touch /work/new; stat -c %u:%g /work /work/new /work/roots")
    assert text.split() == ["0:0", "0:0", "1234:2345"]
    assert ((source / "new").stat().st_uid, (source / "new").stat().st_gid) == (1234, 2345)
    text = docker.ok("run", "--rm", "-u", "77:88", "-v", f"{source}:/work:ro,idmap=uids=1234-77-1;gids=2345-88-1",
                     platform.image(), "stat", "-c", "%u:%g", "/work", "/work/roots")
    assert text.split() == ["77:88", "65534:65534"]
    wrong = docker("run", "--rm", "-v", f"{source}:/work:idmap=uids", platform.image(), "true")
    assert "invalid idmap" in wrong.stderr


def test_read_only_means_what_is_below_too(docker: Docker, platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "sub")], check=True)
    try:
        touch = (platform.image(), "touch", "/b/sub/x")
        assert docker("run", "--rm", "-v", f"{tmp_path}:/b:ro", *touch).returncode == 1
        mount = f"type=bind,src={tmp_path},dst=/b,readonly"
        # Before API 1.44 an entry of Mounts meant the upper mount alone.
        assert (docker("run", "--rm", "--mount", mount, *touch).returncode == 0) == (docker.version < 25)
        if docker.version >= 25:
            docker.ok("run", "--rm", "--mount", f"{mount},bind-recursive=writable", *touch)
            docker.ok("run", "--rm", "--mount", f"{mount},bind-recursive=disabled", platform.image(), "sh", "-c",
                      "test ! -e /b/sub/x")
    finally:
        subprocess.run(["umount", str(tmp_path / "sub")], check=True)


def test_tmpfs_with_all_options(docker: Docker, platform: Platform) -> None:
    text = docker.ok("run", "--rm", "--mount", "type=tmpfs,dst=/a,tmpfs-size=1m,tmpfs-mode=1770", "--tmpfs",
                     "/b:exec,uid=7,gid=8,nr_inodes=50,size=2m,mode=0700,noatime", platform.image(), "sh", "-c",
                     "grep -E ' /(a|b) ' /proc/mounts; stat -c %a /a; stat -c %u:%g:%a /b")
    a, b, mode_a, about_b = text.splitlines()
    assert "size=1024k" in a
    assert "noexec" in a
    assert all(word in b for word in ("size=2048k", "nr_inodes=50", "noatime", "nosuid")) and "noexec" not in b
    assert (mode_a, about_b) == ("1770", "7:8:700")
    assert "invalid tmpfs option" in docker("run", "--rm", "--tmpfs", "/b:nonsense", platform.image(), "true").stderr


def test_secrets_and_configs_without_a_swarm(docker: Docker, platform: Platform) -> None:
    password = docker.ok("secret", "create", "--label", "a=b", "password", "-", stdin="hunter2").strip()
    docker.ok("config", "create", "motd", "-", stdin="welcome\n")
    try:
        assert "already exists" in docker("secret", "create", "password", "-", stdin="x").stderr
        shown = docker.ok("secret", "inspect", "password")
        assert json.loads(shown)[0]["Spec"] == {"Name": "password", "Labels": {"a": "b"}}
        assert "motd" in docker.ok("config", "ls")
        docker.ok("run", "-d", "--name", "box", "--mount", "type=secret,src=password,dst=/run/secrets/password",
                  "--label", "seawall.secrets=password:/etc/key:0400:33:34", "--label", "seawall.configs=motd:/etc/motd",
                  "--read-only", platform.image(), "sleep", "60")
        text = docker.ok("exec", "box", "sh", "-c", "cat /run/secrets/password /etc/key /etc/motd; stat -c %a:%u:%g "
                         "/run/secrets/password /etc/key; grep -c /run/secrets /proc/mounts; "
                         "touch /etc/key 2>/dev/null || echo read-only")
        assert text == "hunter2hunter2welcome\n444:0:0\n400:33:34\n1\nread-only\n"
        assert "hunter2" not in docker.ok("inspect", "box")
        for part in ("config.json", "files"):
            found = platform.home / "node" / "containers" / docker.inspect("box", "{{.Id}}") / part
            assert "hunter2" not in (found.read_text() if found.is_file() else " ".join(os.listdir(found)))
        assert b"hunter2" not in b"".join(file.read_bytes() for file in (platform.home / "node").glob("state.db*"))
        assert "in use by the following container: box" in docker("secret", "rm", password).stderr
        platform.kill_node()
        platform.start_node()
        docker.ok("restart", "-t", "0", "box")
        assert docker.ok("exec", "box", "cat", "/run/secrets/password") == "hunter2"
        docker.ok("rm", "-f", "box")
    finally:
        platform.remove_containers()
        for kind in ("secret", "config"):
            for held in platform.client.json("GET", f"/{kind}s"):
                platform.client.status("DELETE", f"/{kind}s/{held['ID']}")
    assert docker.ok("secret", "ls", "-q") == ""
    gone = docker("run", "--rm", "--mount", "type=secret,src=password,dst=/x", platform.image(), "true")
    assert "secret password not found" in gone.stderr


def test_mounts_of_others_with_modes(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "first", "-v", "shared:/s", "--tmpfs", "/t", platform.image(), "sleep", "60")
    result = docker("run", "--rm", "--volumes-from", "first:ro,z", platform.image(), "touch", "/s/x")
    assert "Read-only file system" in result.stderr
    assert "invalid mode" in docker("run", "--rm", "--volumes-from", "first:what", platform.image(), "true").stderr
    mounts = json.loads(docker.inspect("first", "{{json .Mounts}}"))
    assert [mount["Destination"] for mount in mounts] == ["/s"], "--tmpfs is shown in HostConfig alone, as Docker does"
    driver = docker("run", "--rm", "--volume-driver", "nfs", "-v", "x1:/x", platform.image(), "true")
    assert 'error looking up volume plugin nfs: plugin "nfs" not found' in driver.stderr


def test_our_own_command_says_all_of_it(seawall: Docker, platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2")
    os.chown(tmp_path, 1234, 1234)
    seawall.ok("secret", "create", "-l", "a=b", "key", str(tmp_path / "key"))
    seawall.ok("config", "create", "motd", "-", stdin="welcome\n")
    try:
        text = seawall.ok(
            "run", "--rm", "--mount", "type=secret,source=key,uid=33,mode=0400", "--mount", "type=config,source=motd",
            "--mount", f"type=image,source={platform.image()},target=/img,image-subpath=etc",
            "--mount", f"type=bind,source={tmp_path},target=/work,idmap=auto", "--volume-driver", "local", "-v", "d1:/d",
            platform.image(), "sh", "-c", "cat /run/secrets/key /motd; stat -c %u:%a /run/secrets/key /work; ls /img/passwd",
        )  # fmt: skip
        assert text.split() == ["hunter2welcome", "33:400", "0:700", "/img/passwd"]
        seawall.ok("secret", "label", "-l", "c=d", "key")
        assert json.loads(seawall.ok("secret", "inspect", "key"))[0]["Spec"] == {"Name": "key", "Labels": {"c": "d"}}
        assert "welcome" in seawall.ok("config", "inspect", "--pretty", "motd")
        assert seawall.ok("secret", "ls", "--format", "{{.Name}}") == "key\n"
        assert "d1" in seawall.ok("volume", "prune", "-a", "-f")
    finally:
        seawall("secret", "rm", "key")
        seawall("config", "rm", "motd")
    assert seawall.ok("config", "ls", "-q") == ""
