"""User namespaces by default, as users of docker meet them: everything goes on, and root is nobody on the host."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.userns.ranges import SIZE
from node.userns.tenants import range_of
from tests.conftest import WaitFor
from tests.e2e.conftest import Docker, Platform, free_port

pytestmark = [pytest.mark.root, pytest.mark.e2e]
HOSTS = ["0", "0", "4294967295"]


@pytest.fixture(autouse=True)
def clean(platform: Platform) -> Iterator[None]:
    platform.pull()
    yield
    platform.remove_containers()
    platform.client.json("POST", "/volumes/prune", {"filters": {"all": ["true"]}})


def first_id(newest: Docker, name: str) -> int:
    ids = range_of(int(newest.inspect(name, "{{.State.Pid}}")))
    assert ids is not None and ids.size == SIZE
    return ids.first


def map_of(newest: Docker, *flags: str, image: str) -> list[str]:
    return newest.ok("run", "--rm", *flags, image, "cat", "/proc/self/uid_map").split()


def test_root_inside_is_nobody_outside(newest: Docker, platform: Platform) -> None:
    newest.ok("run", "-d", "--name", "one", platform.image(), "sleep", "60")
    newest.ok("run", "-d", "--name", "two", "-u", "33", platform.image(), "sleep", "60")
    one, two = first_id(newest, "one"), first_id(newest, "two")
    assert abs(one - two) >= SIZE and min(one, two) > 2**16
    for name, inside in (("one", one), ("two", two + 33)):
        assert Path(f"/proc/{newest.inspect(name, '{{.State.Pid}}')}").stat().st_uid == inside
        assert newest.inspect(name, "{{.HostConfig.UsernsMode}}") == "private"
    assert "name=userns" in newest.ok("info", "-f", "{{.SecurityOptions}}")
    # Nothing that the host's root alone may do.
    tries = "mount -o remount,rw /proc/sys; mknod /tmp/d b 254 0; echo 1 > /proc/sys/kernel/panic; chown 70000 /tmp"
    assert newest("exec", "--privileged", "one", "sh", "-c", f"{tries}; echo c > /proc/sysrq-trigger").returncode != 0


def test_who_has_the_hosts_ids(newest: Docker, platform: Platform) -> None:
    image = platform.image()
    for flags in (["--userns=host"], ["--privileged"], ["--network=host"], ["--pid=host"]):
        assert map_of(newest, *flags, image=image) == HOSTS, flags
    for flags in (["--uts=host"], ["--network=none"], ["--cap-add=NET_ADMIN", "--cap-add=SYS_ADMIN"]):
        assert map_of(newest, *flags, image=image)[1] != "0", flags
    told = newest("run", "--rm", "--cap-add=SYS_TIME", image, "cat", "/proc/self/uid_map")
    assert told.stdout.split() == HOSTS and "SYS_TIME works there alone" in told.stderr


def test_volumes_are_shared_whatever_the_range(newest: Docker, platform: Platform) -> None:
    newest.ok("run", "-d", "--name", "one", "-v", "data:/data", platform.image(), "sh", "-c",
              "echo a > /data/f; chown 33:34 /data/f; chmod 600 /data/f; sleep 60")  # fmt: skip
    look = "until [ -s /data/f ]; do :; done; stat -c %u:%g /data/f /data; cat /data/f; echo b >> /data/f; touch /data/g"
    assert newest.ok("run", "--rm", "-v", "data:/data", platform.image(), "sh", "-c", look) == "33:34\n0:0\na\n"
    assert newest.ok("run", "--rm", "--volumes-from", "one", "-u", "33", platform.image(), "cat", "/data/f") == "a\nb\n"
    place = Path(json.loads(newest.ok("volume", "inspect", "data"))[0]["Mountpoint"])
    assert {file.name: file.stat().st_uid for file in place.iterdir()} == {"f": 33, "g": 0}
    # Back to the host's ids, and nothing was changed on disk.
    host = newest.ok("run", "--rm", "--userns=host", "-v", "data:/data", platform.image(), "stat", "-c", "%u", "/data/f")
    assert host == "33\n"


def test_binds_of_folders_files_and_what_cannot_be_mapped(newest: Docker, platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine\n")
    os.chown(tmp_path / "file", 1000, 1000)
    flags = ["-v", f"{tmp_path}/folder:/folder", "-v", f"{tmp_path}/file:/file:ro", "-v", "/proc:/host/proc:ro"]
    seen = newest.ok("run", "--rm", *flags, platform.image(), "sh", "-c",
                     "stat -c %u:%g /folder /file; cat /file; touch /folder/new; echo > /file 2>&1 || cat /host/proc/1/comm")
    assert seen.split()[:3] == ["0:0", "1000:1000", "mine"]
    assert (tmp_path / "folder/new").stat().st_uid == 0
    whole = newest.ok("run", "--rm", "-v", "/:/host:ro", platform.image(), "sh", "-c",
                      f"cat /proc/self/uid_map; stat -c %u /host/etc/shadow /host/proc/version /host{tmp_path}/file")
    words = whole.split()
    assert words[1] != "0" and words[3:] == ["0", "65534", "1000"]
    written = newest("run", "--rm", "-v", "/sys:/sys", platform.image(), "cat", "/proc/self/uid_map")
    assert written.stdout.split() == HOSTS and "the file system of /sys has no id-mapped mounts" in written.stderr
    swapped = newest.ok("run", "--rm", "-v", f"{tmp_path}/file:/file:idmap", "-u", "5:5", platform.image(), "sh", "-c",
                        "stat -c %u /file; echo theirs > /file")
    assert swapped == "5\n" and (tmp_path / "file").stat().st_uid == 1000


def test_files_go_in_and_out_with_the_containers_ids(newest: Docker, platform: Platform, tmp_path: Path) -> None:
    newest.ok("run", "-d", "--name", "one", platform.image(), "sh", "-c",
              "echo hello > /made; chown 5:6 /made; sleep 60")  # fmt: skip
    (tmp_path / "given").write_text("given")
    newest.ok("cp", f"{tmp_path}/given", "one:/root/given")
    assert newest.ok("exec", "one", "stat", "-c", "%u:%g", "/root/given", "/made") == "0:0\n5:6\n"
    listed = subprocess.run(["tar", "tvn"], input=newest.ok("cp", "one:/made", "-"), text=True, check=True,
                            capture_output=True).stdout  # fmt: skip
    assert "5/6" in listed
    assert "A /made" in newest.ok("diff", "one")
    newest.ok("commit", "one", "committed")
    assert newest.ok("run", "--rm", "committed", "stat", "-c", "%u", "/made") == "5\n"
    newest.ok("stop", "-t", "0", "one")
    newest.ok("cp", "one:/made", f"{tmp_path}/made")
    newest.ok("start", "one")
    assert newest.ok("exec", "one", "stat", "-c", "%u", "/made") == "5\n"
    newest.ok("rmi", "committed")


def test_daily_things_go_on(newest: Docker, platform: Platform, wait_for: WaitFor) -> None:
    port = free_port()
    newest.ok("run", "-d", "--name", "web", "-p", f"127.0.0.1:{port}:80", "--health-cmd", "wget -qO- 127.0.0.1:80",
              "--health-interval", "300ms", "-e", "A=b", platform.image(), "sh", "-c",
              "mkdir /www; echo page > /www/index.html; adduser -D me; chown -R me /www; "
              "exec httpd -f -p 80 -u me -h /www")  # fmt: skip
    wait_for(lambda: newest.inspect("web", "{{.State.Health.Status}}") == "healthy", within=20)
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200" in connection.recv(100)
    assert newest.ok("exec", "-u", "me", "web", "id", "-un") == "me\n"
    assert "httpd" in newest.ok("top", "web")
    assert newest.ok("exec", "-i", "web", "cat", stdin="through\n") == "through\n"
    told = newest.ok("run", "--rm", "--tmpfs", "/t:uid=7,mode=700", "--shm-size", "1m", "--read-only", platform.image(),
                     "sh", "-c", "stat -c %u /t; echo x > /dev/stdout; touch /dev/shm/y; echo 1 >> /etc/hosts; id -u")
    assert told.split() == ["7", "x", "0"]
    sysctls = ["--sysctl", "net.core.somaxconn=77", "--sysctl", "net.ipv4.ping_group_range=0 2", "--sysctl",
               "kernel.msgmax=9000"]  # fmt: skip
    seen = newest.ok("run", "--rm", *sysctls, platform.image(), "sh", "-c",
                     "cd /proc/sys; cat net/core/somaxconn kernel/msgmax net/ipv4/ip_unprivileged_port_start")
    assert seen.split() == ["77", "9000", "0"]
    refused = newest("run", "--rm", "--sysctl", "net.nothing=1", platform.image(), "true")
    assert refused.returncode and "sysctl net.nothing: no such file" in refused.stderr


def test_a_terminal(newest: Docker, platform: Platform) -> None:
    child = newest.terminal("run", "--rm", "-it", "-u", "33", platform.image(), "sh", "-c",
                            "stat -c '%u %t' $(tty) /dev/console; echo over > /dev/tty")  # fmt: skip
    child.expect("33 88")
    child.expect("over")


def test_who_joins_a_container_joins_its_ids(newest: Docker, platform: Platform) -> None:
    newest.ok("run", "-d", "--name", "one", "--ipc", "shareable", platform.image(), "sleep", "60")
    newest.ok("run", "-d", "--name", "two", "--ipc", "shareable", platform.image(), "sleep", "60")
    joins = ["--network=container:one", "--pid=container:one", "--ipc=container:one"]
    assert map_of(newest, *joins, image=platform.image())[1] == str(first_id(newest, "one"))
    assert "sleep 60" in newest.ok("run", "--rm", *joins, platform.image(), "ps")
    both = newest("run", "--rm", "--network=container:one", "--ipc=container:two", platform.image(), "true")
    assert "different user namespaces" in both.stderr
    assert map_of(newest, "--network=container:one", "--userns=host", image=platform.image()) == HOSTS


def test_the_api_from_within(newest: Docker, platform: Platform) -> None:
    """As tools do that manage containers from one."""
    program = shutil.which(newest.program)
    flags = ["-v", f"{platform.socket}:/var/run/docker.sock", "-v", f"{program}:/bin/docker:ro"]
    if "statically" not in subprocess.run(["file", "-L", str(program)], capture_output=True, text=True,
                                          check=False).stdout:
        pytest.skip("this client is no static program")
    inner = newest.ok("run", "--rm", *flags, platform.image(), "docker", "run", "--rm", platform.image(), "echo", "inner")
    assert inner == "inner\n"


def test_a_killed_daemon_knows_the_ranges_again(newest: Docker, platform: Platform, tmp_path: Path) -> None:
    newest.ok("run", "-d", "--name", "one", platform.image(), "sleep", "60")
    before = first_id(newest, "one")
    platform.kill_node()
    platform.start_node()
    assert first_id(newest, "one") == before
    assert newest.ok("exec", "one", "id", "-u") == "0\n"
    (tmp_path / "file").write_text("x")
    newest.ok("cp", f"{tmp_path}/file", "one:/file")
    assert newest.ok("exec", "one", "stat", "-c", "%u", "/file") == "0\n"
    newest.ok("restart", "-t", "0", "one")
    assert newest.ok("exec", "one", "cat", "/file") == "x"


def test_larger_ranges(newest: Docker, platform: Platform) -> None:
    host = {"UsernsMode": "auto:size=131072"}
    made = platform.client.json("POST", "/containers/create", None,
                                {"Image": platform.image(), "User": "100000", "HostConfig": host,
                                 "Cmd": ["sh", "-c", "id -u; cat /proc/self/uid_map"]})  # fmt: skip
    output = newest.ok("start", "-a", made["Id"]).split()
    assert output[0] == "100000" and output[3] == "131072"
    big = newest("run", "--rm", "-u", "100000", platform.image(), "cat", "/proc/self/uid_map")
    assert big.stdout.split()[2] == "131072"
