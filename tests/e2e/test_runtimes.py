"""`docker run --runtime runc|crun` against a real node: the same containers, whoever makes their processes."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.e2e.conftest import Docker, Platform

pytestmark = pytest.mark.root
FOLDERS = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"
KNOWN = {name: path for name in ("runc", "crun") if (path := shutil.which(name, path=FOLDERS))}


@pytest.fixture(scope="module")
def node(platform: Platform) -> Iterator[Platform]:
    if not KNOWN:
        lacking("neither runc nor crun is installed")
    platform.kill_node()
    platform.start_node(*(word for item in KNOWN.items() for word in ("--add-runtime", "=".join(item))))
    platform.pull()
    yield platform
    platform.kill_node()
    platform.start_node()


@pytest.fixture(params=sorted(KNOWN) or ["none"])
def runtime(request: pytest.FixtureRequest, node: Platform) -> str:
    return str(request.param)


def test_info_and_inspect_name_them(node: Platform, newest: Docker) -> None:
    names = newest.ok("info", "-f", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}{{.DefaultRuntime}}").split()
    assert names == [*sorted([*KNOWN, "seawall"]), "seawall"]
    wrong = newest("run", "--runtime", "kata", node.image())
    assert "unknown or invalid runtime name: kata" in wrong.stderr


def test_a_container_through_its_whole_life(node: Platform, newest: Docker, runtime: str) -> None:
    image = node.image()
    newest.ok("volume", "create", "kept")
    newest.ok("run", "-d", "--name", "box", "--runtime", runtime, "-v", "kept:/kept", "--memory", "64m", "--cpus", "1",
              "--health-cmd", "test -e /kept", "--health-interval", "1s", "-e", "A=b", image, "sh", "-c",
              "echo started; touch /kept/here; trap 'exit 9' TERM; while :; do sleep 0.1; done")  # fmt: skip
    assert newest.inspect("box", "{{.HostConfig.Runtime}} {{.State.Status}}") == f"{runtime} running"
    assert newest.inspect("box", "{{.HostConfig.UsernsMode}}") == "host"
    assert newest.ok("exec", "box", "sh", "-c", "echo $A; ls /kept").split() == ["b", "here"]
    assert newest("exec", "box", "sh", "-c", "exit 3").returncode == 3
    assert newest("exec", "box", "absent").returncode == 127
    newest.ok("pause", "box")
    assert newest.inspect("box", "{{.State.Status}}") == "paused"
    newest.ok("unpause", "box")
    newest.ok("update", "--memory", "32m", "--memory-swap", "32m", "box")
    assert "32MiB" in newest.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", "box")
    assert "sh" in newest.ok("top", "box")
    node.kill_node()
    node.start_node(*(word for item in KNOWN.items() for word in ("--add-runtime", "=".join(item))))
    assert newest.ok("exec", "box", "cat", "/proc/1/comm").strip() == "sh"
    assert newest.ok("logs", "box") == "started\n"
    newest.ok("restart", "box")
    assert newest.ok("logs", "box") == "started\nstarted\n"
    newest.ok("stop", "box")
    assert newest.inspect("box", "{{.State.ExitCode}}") == "9"
    folder = Path(newest.inspect("box", "{{.LogPath}}")).parent
    newest.ok("rm", "box")
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists()
    newest.ok("volume", "rm", "kept")


def test_streams_and_statuses(node: Platform, newest: Docker, runtime: str) -> None:
    image = node.image()
    told = newest("run", "--rm", "--runtime", runtime, image, "true")
    assert "The container has the host's user namespace: only this node's own runtime" in told.stderr
    ran = newest("run", "--rm", "-i", "--userns", "host", "--runtime", runtime, image, "sh", "-c", "cat; echo err >&2; exit 4", stdin="in")
    assert (ran.returncode, ran.stdout, ran.stderr) == (4, "in", "err\n")
    assert newest("run", "--rm", "--runtime", runtime, image, "absent").returncode == 127
    assert newest("run", "--rm", "--runtime", runtime, image, "/etc").returncode == 126
    terminal = newest.terminal("run", "--rm", "-it", "--runtime", runtime, image, "sh", size=(31, 87))
    terminal.expect("/ # ")
    terminal.send("stty size; exit 5\n")
    terminal.expect("31 87")
    terminal.wait()
    assert terminal.exitstatus == 5


def test_it_reaches_the_network_and_is_reached(node: Platform, newest: Docker, runtime: str) -> None:
    image = node.image()
    newest.ok("network", "create", "together")
    newest.ok("run", "-d", "--name", "server", "--runtime", runtime, "--network", "together", image, "sh", "-c",
              "echo hello > /index.html; httpd -f -p 80 -h /")  # fmt: skip
    try:
        said = newest.ok("run", "--rm", "--runtime", runtime, "--network", "together", image, "sh", "-c",
                         "for i in 1 2 3 4 5 6 7 8; do wget -qO- http://server/ && exit; sleep 0.3; done")  # fmt: skip
        assert said == "hello\n"
    finally:
        newest.ok("rm", "-f", "server")
        newest.ok("network", "rm", "together")
