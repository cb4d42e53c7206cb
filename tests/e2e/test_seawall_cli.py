"""`seawall` against a real node: the ways in which it differs from docker are few, so the tests are too."""

import json
import re
import time
import urllib.request

import pexpect
import pytest

from tests.conftest import WaitFor
from tests.e2e.conftest import Docker, Platform, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture(autouse=True)
def pulled(platform: Platform) -> None:
    platform.pull()


def test_from_search_to_a_running_container(seawall: Docker, platform: Platform) -> None:
    found = [line.split()[0] for line in seawall.ok("search", "busy").splitlines()[1:]]
    assert platform.image("busybox") in found
    lines = seawall.ok("pull", platform.image("alpine:3.10")).splitlines()
    assert lines[0] == "3.10: Pulling from alpine"
    assert lines[-1] == platform.image("alpine:3.10")
    assert 'NAME="Alpine Linux"' in seawall.ok("run", "--rm", platform.image("alpine:3.10"), "cat", "/etc/os-release")


def test_exit_codes(seawall: Docker, platform: Platform) -> None:
    image = platform.image()
    assert seawall("run", "--rm", image, "sh", "-c", "exit 42").returncode == 42
    assert seawall("run", "--rm", image, "no-such-program").returncode == 127
    assert seawall("run", "--rm", image, "/etc/passwd").returncode == 126
    assert seawall("run", "--rm", image, "/etc").returncode == 126
    assert seawall("run", "--rm", platform.image("nothere:1")).returncode == 125
    assert seawall("ps", "-aq").stdout == ""


def test_streams(seawall: Docker, platform: Platform) -> None:
    data = "line\n" * 20_000
    assert seawall.ok("run", "-i", "--rm", platform.image(), "cat", stdin=data) == data
    result = seawall("run", "--rm", platform.image(), "sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_terminal(seawall: Docker, platform: Platform) -> None:
    child = seawall.terminal("run", "-it", "--name", "shell", platform.image(), "sh", size=(33, 111))
    child.expect_exact(b"# ")
    child.sendline(b"stty size")
    child.expect_exact(b"33 111")
    child.setwinsize(40, 132)
    child.sendline(b"until [ \"$(stty size)\" = '40 132' ]; do sleep 0.05; done; echo re''sized")
    child.expect_exact(b"resized")
    child.send(b"\x10\x11")
    child.expect(pexpect.EOF)
    again = seawall.terminal("attach", "shell")
    again.sendline(b"exit 4")
    again.expect(pexpect.EOF)
    again.close()
    assert again.exitstatus == 4
    started = seawall.terminal("start", "-ai", "shell")
    started.sendline(b"exit 5")
    started.expect(pexpect.EOF)
    started.close()
    assert started.exitstatus == 5


def test_exec(seawall: Docker, platform: Platform) -> None:
    seawall.ok("run", "-d", "--name", "base", platform.image(), "sleep", "100")
    assert seawall.ok("exec", "-i", "base", "cat", stdin="through") == "through"
    assert seawall("exec", "base", "sh", "-c", "exit 9").returncode == 9
    assert seawall("exec", "base", "no-such-program").returncode == 127
    child = seawall.terminal("exec", "-it", "base", "sh")
    child.expect_exact(b"# ")
    child.sendline(b"exit 6")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6


def test_life(seawall: Docker, platform: Platform) -> None:
    seawall.ok("create", "--name", "life", platform.image(), "sh", "-c", "echo up; sleep 100")
    assert seawall.ok("start", "life") == "life\n"
    assert json.loads(seawall.ok("ps", "--format", "json"))["State"] == "running"
    for verb in (["pause"], ["unpause"], ["restart", "-t", "0"], ["stop", "-t", "0"]):
        assert seawall.ok(*verb, "life") == "life\n"
    assert seawall.ok("logs", "life") == "up\nup\n"
    assert seawall.ok("wait", "life") == "137\n"
    assert seawall.ok("rename", "life", "after") == ""
    assert seawall.ok("rm", "after") == "after\n"


def test_a_published_port(seawall: Docker, platform: Platform, wait_for: WaitFor) -> None:
    port = free_port()
    seawall.ok("run", "-d", "--name", "www", "-p", f"127.0.0.1:{port}:80", platform.image(), "sh", "-c",
               "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www")

    def answer() -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
                body: bytes = response.read()
                return body
        except OSError:
            return b""

    assert wait_for(answer) == b"hello\n"
    assert seawall.ok("port", "www", "80") == f"127.0.0.1:{port}\n"


def test_out_of_memory(seawall: Docker, platform: Platform) -> None:
    assert seawall("run", "--name", "hungry", "-m", "16m", platform.image(), "tail", "/dev/zero").returncode == 137
    assert seawall.inspect("hungry", "{{.State.OOMKilled}}") == "true"


def test_push_tag_rmi_history(seawall: Docker, platform: Platform) -> None:
    name = platform.image("pushed/by-seawall:1")
    seawall.ok("tag", platform.image(), name)
    assert re.search(r"1: digest: sha256:[0-9a-f]{64} size: \d+", seawall.ok("push", name))
    assert seawall.ok("rmi", name).startswith(f"Untagged: {name}\n")
    assert len(seawall.ok("history", platform.image()).splitlines()) >= 2


def test_events_follow(seawall: Docker, platform: Platform) -> None:
    following = seawall.start("events", "--filter", "event=die", "--format", "{{.Action}} {{.Actor.Attributes.name}}",
                              "--until", str(time.time() + 3))
    time.sleep(0.5)  # the subscription has no answer but its events
    seawall.ok("run", "--rm", "--name", "short", platform.image(), "true")
    out, _ = following.communicate(timeout=20)
    assert "die short\n" in out


def test_networks_and_volumes(seawall: Docker, platform: Platform) -> None:
    assert {"bridge", "host", "none"} <= set(seawall.ok("network", "ls", "--format", "{{.Name}}").split())
    bridge = json.loads(seawall.ok("network", "inspect", "bridge"))[0]
    assert bridge["IPAM"]["Config"][0]["Gateway"]
    seawall.ok("run", "--rm", "-v", "kept:/v", platform.image(), "sh", "-c", "echo x > /v/f")
    assert seawall.ok("run", "--rm", "-v", "kept:/v", platform.image(), "cat", "/v/f") == "x\n"
    assert seawall.ok("volume", "rm", "kept") == "kept\n"
