"""A node that an ordinary user starts (docs/rootless.md), asked by Docker's own clients.

The tests named at the end are those of a node of root, run against this one as they stand.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.e2e import test_docker_cli, test_docker_volumes, test_files, test_networks
from tests.e2e.conftest import BIN, IMAGES, Docker, Platform, clients, free_port, push, tear_down
from tests.e2e.ordinary import UID, Ordinary, ordinary_folder, why_not

pytestmark = [pytest.mark.timeout(120), pytest.mark.e2e, pytest.mark.root]

IMAGE = "busybox-1.38.0-musl-amd64.oci.tar"


@dataclass
class OfAUser(Platform):
    user: Ordinary = field(default_factory=lambda: Ordinary(Path("/nonexistent")))

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"HOME": str(self.user.home), "XDG_RUNTIME_DIR": str(self.user.home)}

    @property
    def socket(self) -> Path:
        return self.user.home / "seawall.sock"

    @property
    def node_home(self) -> Path:
        return self.user.home / ".local/share/seawall"

    def start_node(self, *flags: str) -> None:
        """With no home and no socket given: where the XDG base directories are."""
        with (self.home / "node.log").open("ab") as log:
            self.programs["node"] = subprocess.Popen(
                self.user.command(str(BIN / "seawalld"), "--search-registry", self.registry, *flags),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment, start_new_session=True,
            )
        self._until(lambda: self._answers(str(self.socket), "/_ping"), "node")

    def holder(self) -> int:
        return int(_pids(self.user, "rootless.holder")[0])


def _pids(user: Ordinary, words: str) -> list[str]:
    found = subprocess.run(["pgrep", "-u", str(user.home.stat().st_uid), "-f", words], capture_output=True, text=True, check=False)
    return found.stdout.split()


@pytest.fixture(scope="module")
def platform(shared: Path) -> Iterator[OfAUser]:
    if why := why_not():
        lacking(why)
    with ordinary_folder() as folder:
        made = OfAUser(folder, free_port(), user=Ordinary(folder / "home"))
        (made.home / "docker").mkdir()
        try:
            made.start_registry()
            for name, source in IMAGES.items():
                push(made, shared, name, source)
            made.start_node("--insecure-registry", made.registry)
            yield made
        finally:
            tear_down(made)
            left = made.user.gone()
        assert not left, f"processes are left: {left}"


back, tool = test_networks.back, test_files.tool


@pytest.fixture(autouse=True)
def _image(platform: OfAUser) -> None:
    platform.pull()


def test_what_it_says_of_itself(docker: Docker, platform: OfAUser) -> None:
    options = docker.ok("info", "-f", "{{json .SecurityOptions}}")
    assert "name=rootless" in options
    assert docker.ok("info", "-f", "{{.Driver}}").strip() == "overlay2"
    assert docker.ok("info", "-f", "{{.DockerRootDir}}").strip() == str(platform.node_home)
    ids = docker.ok("run", "--rm", platform.image(), "sh", "-c", "id -u; cat /proc/self/uid_map; touch /f; stat -c %u /f")
    assert ids.split() == ["0", "0", "61234", "1", "1", "1500000000", "65536", "0"]


def test_every_user_of_a_container_is_there(docker: Docker, platform: OfAUser) -> None:
    script = "chown 1000:1000 /data && su -s /bin/sh nobody -c 'id -u' && stat -c %u:%g /data"
    assert docker.ok("run", "--rm", "-v", "rootless-vol:/data", platform.image(), "sh", "-c", script).split() == ["65534", "1000:1000"]
    docker.ok("volume", "rm", "rootless-vol")


def test_a_port_below_1024_is_refused_with_the_reason(docker: Docker, platform: OfAUser) -> None:
    result = docker("run", "--rm", "-p", "127.0.0.1:81:80", platform.image(), "true")
    if Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() != "0":
        assert result.returncode in (125, 126)  # older clients read the words "permission denied"
        assert "bind: permission denied" in result.stderr
        assert "net.ipv4.ip_unprivileged_port_start" in result.stderr


@pytest.fixture
def outside() -> Iterator[str]:
    """A web server that is neither this machine's nor the node's: beyond a network interface."""
    name = f"swout{os.getpid()}"
    commands = (f"netns add {name}", f"link add {name[:13]} type veth peer name e0 netns {name}",
                f"addr add 198.18.77.1/24 dev {name[:13]}", f"link set {name[:13]} up",
                f"-n {name} addr add 198.18.77.2/24 dev e0", f"-n {name} link set e0 up")
    server = None
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        server = subprocess.Popen(["ip", "netns", "exec", name, "busybox", "httpd", "-f", "-p", "80", "-h", "/etc"])
        yield "198.18.77.2"
    finally:
        if server:
            server.kill()
            server.wait()
        subprocess.run(["ip", "netns", "del", name], check=False)


def test_containers_reach_the_world(docker: Docker, platform: OfAUser, outside: str) -> None:
    said = docker.ok("run", "--rm", platform.image(), "wget", "-T", "5", "-qO-", f"http://{outside}/hostname")
    assert said == Path("/etc/hostname").read_text()


def test_limits_that_cannot_be_set_are_said(newest: Docker, platform: OfAUser) -> None:
    result = newest("create", "--name", "limited", "--memory", "64m", platform.image(), "true")
    assert result.returncode == 0
    assert "Limitation discarded" in result.stderr
    newest.ok("rm", "limited")


# -- parts are killed


def test_a_killed_daemon_a_killed_holder_a_killed_way_out(newest: Docker, platform: OfAUser, outside: str) -> None:
    """Containers go on through all of it; a port is answered again by the daemon that comes after."""
    port = free_port()
    newest.ok("run", "-d", "--name", "on", "-p", f"{port}:80", platform.image(), "sh", "-c",
              "echo still here > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    pid = newest.inspect("on", "{{.State.Pid}}")
    platform.kill_node()
    platform.start_node("--insecure-registry", platform.registry)
    assert newest.inspect("on", "{{.State.Pid}}") == pid
    _until(lambda: _get(port) == "still here")

    for name in ("pasta", "slirp4netns"):
        for carrier in _pids(platform.user, f"/{name} "):
            os.kill(int(carrier), signal.SIGKILL)
    _until(lambda: newest("exec", "on", "wget", "-T", "2", "-qO-", f"http://{outside}/hostname").returncode == 0)

    os.kill(platform.holder(), signal.SIGKILL)
    assert platform.programs.pop("node").wait(20) == 1
    assert "holder" in platform.log("node")
    platform.start_node("--insecure-registry", platform.registry)
    assert newest.inspect("on", "{{.State.Running}} {{.State.Pid}}") == f"true {pid}"
    assert newest.ok("exec", "on", "cat", "/tmp/index.html") == "still here\n"
    _until(lambda: _get(port) == "still here")
    other = newest.ok("run", "--rm", platform.image(), "wget", "-T", "5", "-qO-", f"http://{outside}/hostname")
    assert other == Path("/etc/hostname").read_text()
    newest.ok("rm", "-f", "on")


def _get(port: int) -> str:
    result = subprocess.run(["curl", "-s", "-m", "3", f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=False)
    return result.stdout.strip()


def _until(check: "object", seconds: float = 45) -> None:
    deadline = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


# -- the same tests as root's

test_run_passes_standard_input = test_docker_cli.test_run_passes_standard_input_to_its_end
test_run_it = test_docker_cli.test_run_it
test_exec = test_docker_cli.test_exec
test_stop_start_restart = test_docker_cli.test_stop_start_restart_keep_the_root
test_published_port = test_docker_cli.test_published_port_answers
test_a_busy_port = test_docker_cli.test_a_port_that_another_program_has
test_a_network_of_ones_own = test_networks.test_a_network_of_ones_own
test_volumes_outlive = test_docker_cli.test_volumes_outlive_the_container_they_came_with
test_tmpfs = test_docker_volumes.test_tmpfs_with_all_options
test_diff_and_export = test_files.test_diff_and_export
test_commit = test_files.test_commit_and_what_it_makes


# -- with less, and with more


@dataclass
class Other(OfAUser):
    """A second node of another user, who has no ids but its own, in a cgroup that was given to it."""

    group: Path = Path("/nonexistent")

    def start_node(self, *flags: str) -> None:
        inside = f"echo $$ > {self.group}/cgroup.procs; exec \"$@\""
        words = self.user.command(str(BIN / "seawalld"), "--rootless-network", "none", *flags)
        with (self.home / "node.log").open("ab") as log:
            self.programs["node"] = subprocess.Popen(
                ["bash", "-c", inside, "in", *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=self.environment, start_new_session=True,
            )
        self._until(lambda: self._answers(str(self.socket), "/_ping"), "node")


@pytest.fixture
def delegated() -> Iterator[Path]:
    tree = next((place for place in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if Path(place, "cgroup.procs").exists()), "")
    if not tree:
        lacking("needs cgroup version 2")
    group = Path(tree, f"seawall-test-{os.getpid()}")
    group.mkdir()
    for place in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(place, UID, UID)
    try:
        yield group
    finally:
        for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            inner.rmdir()
        group.rmdir()


def test_one_id_no_way_out_and_a_delegated_cgroup(platform: OfAUser, delegated: Path, shared: Path) -> None:
    """What stays possible: root alone lives in containers, files of others are its own; pause, top and stats work."""
    if not clients():
        lacking("needs a docker command")
    platform.remove_containers()
    platform.kill_node(signal.SIGTERM)  # the processes of one user are told apart by nothing
    assert not platform.user.gone()
    with ordinary_folder() as folder:
        made = Other(folder, platform.port, user=Ordinary(folder / "home", subordinate=False), group=delegated)
        docker = Docker(clients()["docker28" if "docker28" in clients() else "docker20"], made, 28)
        try:
            made.start_node("--insecure-registry", made.registry)
            assert "usermod --add-subuids" in made.log("node")
            docker.ok("load", "-i", str(shared / "images" / IMAGE))
            assert "asked for none" in made.log("node")
            image = docker.ok("images", "-q").split()[0]
            docker.ok("run", "-d", "--name", "box", "-v", "data:/data", image, "sh", "-c", "cat /proc/self/uid_map; exec sleep 100")
            assert docker.ok("logs", "box").split() == ["0", str(UID), "1"]
            docker.ok("pause", "box")
            assert "(Paused)" in docker.ok("ps")
            docker.ok("unpause", "box")
            assert "sleep 100" in docker.ok("top", "box")
            assert "box" in docker.ok("stats", "--no-stream", "box")
            assert docker.ok("exec", "box", "stat", "-c", "%u", "/data", "/bin/busybox").split() == ["0", "0"]
            result = docker("run", "--rm", "-u", "1000", image, "true")
            assert result.returncode != 0
            docker.ok("rm", "-f", "-v", "box")
        finally:
            tear_down(made)
            left = made.user.gone()
        assert not left
