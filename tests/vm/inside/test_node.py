"""A node on real cgroup v2, by the docker command: what a container asks for is what the kernel holds it to."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm.inside.conftest import ROOT

BIN = Path(sys.executable).parent
MIB = 1 << 20


@dataclass
class Node:
    """One daemon and its client."""

    home: Path
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        return self.home.with_suffix(".sock")

    def docker(self, *args: str, status: int = 0, stdin: bytes = b"") -> str:
        ran = subprocess.run(["docker", "-H", f"unix://{self.socket}", *args], input=stdin, capture_output=True,
                             check=False, timeout=300)
        said = (ran.stdout + ran.stderr).decode(errors="replace")
        assert ran.returncode == status, said
        return said.strip()

    def folder(self, name: str) -> Path:
        """The cgroup of a container, as the kernel says."""
        pid = self.docker("inspect", "-f", "{{.State.Pid}}", name)
        return ROOT / Path(f"/proc/{pid}/cgroup").read_text().strip().partition("0::/")[2]


def start(home: Path, *flags: str) -> Node:
    with (home.parent / "log").open("ab") as log:
        process = subprocess.Popen([BIN / "seawalld", "--home", home, "--socket", home.with_suffix(".sock"), *flags],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    node = Node(home, process)
    wait(lambda: node.socket.exists() or process.poll() is not None, 500)
    assert process.poll() is None, (home.parent / "log").read_text()
    return node


def wait(check: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With what a host with systemd gets unasked. Starting one takes half a minute here: there is one for all, and the
    order of the tests counts."""
    running = start(tmp_path_factory.mktemp("node") / "home")
    tar = subprocess.run(["tar", "-c", "--transform=s,.*/,bin/,", "/bin/busybox"], capture_output=True, check=True).stdout
    running.docker("import", "-", "box", stdin=tar)
    yield running
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(300) == 0
    left = [str(path) for path in ROOT.rglob("*") if path.is_dir() and re.search(r"[0-9a-f]{64}", path.name)]
    assert left == [], "cgroups left behind"


def test_info_names_the_driver(node: Node) -> None:
    said = json.loads(node.docker("info", "-f", "{{json .}}"))
    assert (said["CgroupDriver"], said["CgroupVersion"]) == ("systemd", "2")
    assert [said[name] for name in ("MemoryLimit", "SwapLimit", "PidsLimit", "CPUShares", "CpuCfsQuota", "CPUSet")] == [
        True] * 6


def test_a_containers_life(node: Node) -> None:
    """Limits, update, pause, stats, exec and kill of one container; each command takes seconds here."""
    node.docker("run", "-d", "--name", "life", "-m", "64m", "--cpus", "0.5", "--pids-limit", "40", "box", "busybox", "sh",
                "-c", "while :; do :; done")
    folder = node.folder("life")
    assert [(folder / name).read_text().strip() for name in ("memory.max", "cpu.max", "pids.max", "memory.swap.max")] == [
        str(64 * MIB), "50000 100000", "40", str(64 * MIB)]
    node.docker("update", "-m", "32m", "--memory-swap", "32m", "--pids-limit", "50", "life")
    assert [(folder / name).read_text().strip() for name in ("memory.max", "pids.max", "memory.swap.max")] == [
        str(32 * MIB), "50", "0"]
    node.docker("pause", "life")
    assert "frozen 1" in (folder / "cgroup.events").read_text()
    node.docker("unpause", "life")
    said = json.loads(node.docker("stats", "--no-stream", "--format", "{{json .}}", "life"))
    assert said["MemUsage"].endswith("/ 32MiB")
    assert int(said["PIDs"]) >= 1
    # The container sees its own group as the root, and may not write there.
    assert node.docker("exec", "life", "busybox", "cat", "/proc/self/cgroup") == "0::/"
    assert "Read-only" in node.docker(
        "exec", "life", "busybox", "sh", "-c", "echo 1 >/sys/fs/cgroup/cgroup.freeze", status=1)
    assert node.docker("exec", "life", "busybox", "cat", "/sys/fs/cgroup/memory.max") == str(32 * MIB)
    node.docker("rm", "-f", "life")
    assert not folder.exists()


def test_too_much_memory_is_the_end_and_said_so(node: Node) -> None:
    node.docker("run", "--name", "hog", "-m", "16m", "--memory-swap", "16m", "box", "busybox", "sh", "-c",
                "busybox dd if=/dev/zero of=/dev/null bs=64M count=1; kill -9 $$", status=137)
    assert node.docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "hog") == "true 137"
    node.docker("rm", "hog")


def test_a_parent_of_the_users(node: Node) -> None:
    node.docker("run", "-d", "--name", "child", "--cgroup-parent", "mine-own.slice", "box", "busybox", "sleep", "600")
    folder = node.folder("child")
    assert folder.parent == ROOT / "mine.slice/mine-own.slice"
    assert "xxx.slice" in node.docker("create", "--cgroup-parent", "mine/own", "box", "busybox", "true", status=1)
    node.docker("rm", "-f", "child")


def test_a_node_that_changes_drivers_keeps_its_containers(node: Node) -> None:
    """Killed, and started again with the other driver: what runs is found where it was made."""
    node.docker("run", "-d", "--name", "kept", "-m", "64m", "box", "busybox", "sleep", "600")
    scope = node.folder("kept")
    assert scope.name.startswith("seawall-") and scope.name.endswith(".scope")
    node.process.kill()
    node.process.wait()
    node.socket.unlink()
    node.process = start(node.home, "--cgroup-driver", "cgroupfs").process
    assert node.docker("info", "-f", "{{.CgroupDriver}}") == "cgroupfs"
    node.docker("pause", "kept")
    assert "frozen 1" in (scope / "cgroup.events").read_text()
    node.docker("unpause", "kept")
    node.docker("restart", "-t", "0", "kept")
    folder = node.folder("kept")
    assert (folder.parent.parent, scope.exists()) == (ROOT, False)
    assert (folder / "memory.max").read_text().strip() == str(64 * MIB)
    node.docker("rm", "-f", "kept")
    assert not folder.exists()
