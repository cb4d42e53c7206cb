"""Other people's engines drive `seawall-runtime`: podman by conmon, Docker and ctr by containerd's shim."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.node.runtime.conftest import make_root
from tests.node.runtime.oci.conftest import installed

pytestmark = [pytest.mark.root, pytest.mark.e2e]

LOOP = "trap 'exit 4' TERM; echo started; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    root = make_root(folder / "rootfs")
    with tarfile.open(folder / "image.tar", "w") as archive:
        archive.add(root, ".")
    return folder


class Engine:
    def __init__(self, *command: str) -> None:
        self.command = command

    def __call__(self, *words: str) -> tuple[int, str]:
        done = subprocess.run([*self.command, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
        return done.returncode, done.stdout.strip()

    def ok(self, *words: str) -> str:
        status, output = self(*words)
        assert status == 0, output
        return output


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        lacking(f"{name} is not installed")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def podman(program: Path, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("podman")
    engine = Engine(tool("podman"), "--root", str(home / "root"), "--runroot", str(home / "run"), "--tmpdir",
                    str(home / "tmp"), "--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs",
                    "--runtime", str(program))
    engine.ok("import", str(image / "image.tar"), "box")
    yield engine
    engine("rm", "--all", "--force", "--time", "0")


@pytest.fixture(scope="module")
def docker(program: Path, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("docker")
    socket = f"unix://{home}/d.sock"
    with (home / "log").open("w") as log:
        daemon = subprocess.Popen([tool("dockerd"), "--data-root", home / "data", "--exec-root", home / "exec", "-H", socket,
                                   "--pidfile", home / "pid", "--bridge=none", "--iptables=false", "--storage-driver=vfs",
                                   "--add-runtime", f"seawall={program}"], stdout=log, stderr=log)
    engine = Engine(tool("docker"), "-H", socket)
    end = time.monotonic() + 60
    while engine("version")[0]:
        assert time.monotonic() < end and daemon.poll() is None, (home / "log").read_text()[-2000:]
        time.sleep(0.1)
    engine.ok("import", str(image / "image.tar"), "box")
    yield engine
    daemon.terminate()
    daemon.wait(30)
    subprocess.run(["umount", "-l", *(str(place) for place in home.glob("exec/netns/*"))], check=False,
                   stderr=subprocess.DEVNULL)


def life(engine: Engine, *run: str) -> None:
    """What both engines do alike. `run`: flags of a run."""
    assert engine("run", "--rm", *run, "box", "sh", "-c", "id -u; exit 3") == (3, "0")
    assert engine("run", "--rm", *run, "--read-only", "--memory", "64m", "--cap-drop", "all", "box", "sh", "-c",
                  "touch /x 2>/dev/null || grep CapEff /proc/self/status")[1].endswith("0000000000000000")
    assert re.fullmatch(r"/dev/pts/\d+", engine.ok("run", "--rm", "-t", *run, "box", "tty"))
    status, output = engine("run", "--rm", *run, "box", "nowhere")
    assert status == 127 and "executable file not found in $PATH" in output
    engine.ok("run", "-d", "--name", "one", *run, "box", "sh", "-c", LOOP)
    assert engine("exec", "-u", "33:44", "one", "sh", "-c", "id -u; id -g; exit 9") == (9, "33\n44")
    assert re.fullmatch(r"/dev/pts/\d+", engine.ok("exec", "-t", "one", "tty"))
    assert "sleep" in engine.ok("top", "one")
    engine.ok("pause", "one")
    assert engine.ok("inspect", "--format", "{{.State.Status}}", "one") == "paused"
    engine.ok("unpause", "one")
    assert engine.ok("logs", "one") == "started"
    engine.ok("stop", "-t", "5", "one")
    assert engine.ok("inspect", "--format", "{{.State.ExitCode}}", "one") == "4"
    engine.ok("start", "one")
    engine.ok("kill", "one")
    engine("wait", "one")
    assert engine.ok("inspect", "--format", "{{.State.ExitCode}}", "one") == "137"
    engine.ok("rm", "-f", "one")


def test_podman(podman: Engine) -> None:
    """Its raised limits, which this kind of host may refuse, are no failure."""
    life(podman, "--network", "none")
    assert podman.ok("run", "--rm", "--network", "none", "--uidmap", "0:100000:65536", "box", "cat",
                     "/proc/self/uid_map").split() == ["0", "100000", "65536"]
    assert podman.ok("run", "--rm", "--network", "host", "--pid", "host", "--uts", "host", "--ipc", "host", "box",
                     "hostname") == os.uname().nodename


def test_docker(docker: Engine) -> None:
    life(docker, "--network", "none", "--runtime", "seawall")
    docker.ok("run", "-d", "--name", "two", "--network", "none", "--runtime", "seawall", "box", "sh", "-c", LOOP)
    docker.ok("update", "--memory", "100m", "--memory-swap", "200m", "--pids-limit", "50", "two")
    assert "100MiB" in docker.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", "two")
    docker.ok("rm", "-f", "two")


def test_ctr(docker: Engine, program: Path, image: Path) -> None:
    """By the containerd that dockerd has started."""
    home = docker.command[2].removeprefix("unix://").removesuffix("/d.sock")
    ctr = Engine(tool("ctr"), "-a", f"{home}/exec/containerd/containerd.sock", "-n", "seawall")
    flags = ("--runc-binary", str(program), "--rootfs", str(image / "rootfs"))
    assert ctr("run", "--rm", *flags, "one", "sh", "-c", "id -u; exit 4") == (4, "0")
    ctr.ok("run", "-d", *flags, "two", "sleep", "100")
    assert ctr.ok("task", "exec", "--exec-id", "e", "two", "id", "-u") == "0"
    ctr.ok("task", "pause", "two")
    assert "PAUSED" in ctr.ok("task", "ls")
    ctr.ok("task", "resume", "two")
    ctr.ok("task", "kill", "-s", "SIGKILL", "two")
    end = time.monotonic() + 10
    while "STOPPED" not in ctr.ok("task", "ls"):
        assert time.monotonic() < end
        time.sleep(0.05)
    ctr("task", "rm", "two")
    ctr.ok("c", "rm", "two")
