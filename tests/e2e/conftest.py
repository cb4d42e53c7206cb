"""A registry and a node as a user starts them, with images in the registry. Everything made is taken away again."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import pytest

from node.client import Client, DaemonError
from node.settings import Settings
from tests.conftest import lacking

BIN = Path(sys.executable).parent
IMAGES = {
    "busybox:latest": "oci-archive:busybox-1.38.0-musl-amd64.oci.tar",
    "busybox:glibc": "oci-archive:busybox-1.38.0-glibc-amd64.oci.tar",
    "alpine:3.10": "docker-archive:fanal-alpine-310.tar.gz",
    "dive:14-layers": "docker-archive:dive-test-docker-image.tar",
}
STARTUP_SECONDS = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clients() -> dict[str, str]:
    """Every docker command of this machine by its version: 28.x and Debian's."""
    found = {}
    for path in ("/usr/local/bin/docker", "/usr/bin/docker"):
        if os.access(path, os.X_OK):
            text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            match = re.search(r"version (\d+)", text)
            assert match, text
            found[f"docker{match[1]}"] = path
    return found


@dataclass
class Platform:
    """The programs and what they are called with."""

    home: Path
    port: int
    programs: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return self.home / "node.sock"

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{self.port}"

    def image(self, name: str = "busybox") -> str:
        return f"{self.registry}/{name}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        return kept | {
            "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.home / "docker"), "TERM": "xterm",
            "LANG": "C.UTF-8", "SEAWALL_HOST": str(self.socket),
        }  # fmt: skip

    def start_registry(self) -> None:
        self._start("registry", "seawall-registry", "serve", "--data", str(self.home / "registry"),
                    "--listen", self.registry)  # fmt: skip
        self._until(lambda: self._answers(("127.0.0.1", self.port), "/v2/"), "registry")

    def start_node(self, *flags: str) -> None:
        self._start("node", "seawalld", "--home", str(self.home / "node"), "--socket", str(self.socket),
                    "--search-registry", self.registry, *flags)  # fmt: skip
        self._until(lambda: self._answers(str(self.socket), "/_ping"), "node")

    def kill_node(self, number: int = signal.SIGKILL) -> None:
        program = self.programs.pop("node")
        program.send_signal(number)
        program.wait(20)

    @property
    def client(self) -> Client:
        return Client(str(self.socket))

    def remove_containers(self) -> None:
        for container in self.client.json("GET", "/containers/json", {"all": True}):
            # One that removes itself may be gone by now.
            with suppress(DaemonError):
                self.client.status("DELETE", f"/containers/{container['Id']}", {"force": True, "v": True})

    def pull(self, name: str = "busybox:latest") -> None:
        repository, _, tag = name.partition(":")
        query = {"fromImage": f"{self.registry}/{repository}", "tag": tag}
        assert not any("error" in line for line in self.client.lines("POST", "/images/create", query))

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, program: str, *words: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                [str(BIN / program), *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment,
                start_new_session=True,
            )  # fmt: skip

    def _answers(self, where: "str | tuple[str, int]", path: str) -> bool:
        try:
            kind = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
            with socket.socket(kind) as connection:
                connection.settimeout(2)
                connection.connect(where)
                connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                return b" 200 " in connection.recv(64)
        except OSError:
            return False

    def _until(self, check: "object", name: str) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not check():  # type: ignore[operator]
            if self.programs[name].poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{name} does not answer:\n{self.log(name)[-3000:]}")
            time.sleep(0.05)


@dataclass
class Docker:
    """A docker-like command against the platform."""

    program: str
    platform: Platform
    version: int = 0
    terminals: "list[pexpect.spawn[bytes]]" = field(default_factory=list)

    def __call__(self, *words: str, stdin: str = "", timeout: float = 30) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([self.program, *words], input=stdin, capture_output=True, text=True, timeout=timeout,
                              check=False, env=self.platform.environment, errors="replace")

    def ok(self, *words: str, stdin: str = "", timeout: float = 30) -> str:
        result = self(*words, stdin=stdin, timeout=timeout)
        assert result.returncode == 0, f"{words}: {result.returncode} {result.stdout} {result.stderr}"
        return result.stdout

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([self.program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=self.platform.environment)

    def terminal(self, *words: str, size: tuple[int, int] = (24, 80)) -> "pexpect.spawn[bytes]":
        child: pexpect.spawn[bytes] = pexpect.spawn(
            self.program, list(words), env=self.platform.environment, timeout=20, dimensions=size
        )  # type: ignore[arg-type]
        self.terminals.append(child)
        return child

    def inspect(self, name: str, template: str) -> str:
        return self.ok("inspect", "-f", template, name).strip()


@pytest.fixture(scope="session")
def platform(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    if os.geteuid() != 0:
        lacking("needs root on a Linux kernel")
    if shutil.which("skopeo") is None:
        lacking("needs skopeo")
    made = Platform(tmp_path_factory.mktemp("e2e"), free_port())
    (made.home / "docker").mkdir()
    try:
        made.start_registry()
        for name, source in IMAGES.items():
            push(made, shared, name, source)
        made.start_node()
        yield made
    finally:
        tear_down(made)


def push(platform: Platform, shared: Path, name: str, source: str) -> None:
    kind, _, file = source.partition(":")
    archive = shared / "images" / file
    if file.endswith(".gz"):
        # Debian's skopeo cannot read a compressed docker-archive.
        archive = platform.home / file.removesuffix(".gz")
        with archive.open("wb") as plain:
            subprocess.run(["gzip", "-dc", str(shared / "images" / file)], stdout=plain, check=True)
    subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"{kind}:{archive}",
                    f"docker://{platform.registry}/{name}"], check=True, capture_output=True, timeout=60)


def tear_down(platform: Platform) -> None:
    if "node" in platform.programs and platform.programs["node"].poll() is None:
        platform.remove_containers()
    for program in platform.programs.values():
        program.send_signal(signal.SIGTERM)
    for program in platform.programs.values():
        try:
            program.wait(20)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
    sweep_host(platform.home / "node")


def sweep_host(home: Path) -> None:
    """The bridge, the rules and the cgroups outlive a daemon by design; a test's must not."""
    settings = Settings.make(home)
    subprocess.run(["ip", "link", "del", settings.bridge_name], capture_output=True, check=False)
    listed = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=False)
    for item in json.loads(listed.stdout or "{}").get("nftables", ()):
        table = item.get("table", {})
        if table.get("name") == settings.nft_table:
            subprocess.run(["nft", "delete", "table", table["family"], table["name"]], capture_output=True, check=False)
    # Walk, not rglob: other tests' groups come and go meanwhile.
    found = [Path(where, name) for where, names, _ in os.walk("/sys/fs/cgroup") for name in names]
    for folder in (path for path in found if path.name == settings.cgroup_parent):
        for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            inner.rmdir()
        folder.rmdir()


@pytest.fixture(params=sorted(clients()) or ["none"])
def docker(request: pytest.FixtureRequest, platform: Platform) -> Iterator[Docker]:
    if request.param == "none":
        lacking("needs a docker command")
    made = Docker(clients()[request.param], platform, int(request.param.removeprefix("docker")))
    yield made
    _clean(made)


@pytest.fixture
def newest(platform: Platform) -> Iterator[Docker]:
    """The newest docker of this machine, for what older ones have no words for."""
    found = {int(name.removeprefix("docker")): path for name, path in clients().items()}
    if not found:
        lacking("needs a docker command")
    version = max(found)
    made = Docker(found[version], platform, version)
    yield made
    _clean(made)


@pytest.fixture
def seawall(platform: Platform) -> Iterator[Docker]:
    made = Docker(str(BIN / "seawall"), platform)
    yield made
    _clean(made)


def _clean(made: Docker) -> None:
    for child in made.terminals:
        child.close(force=True)
    made.platform.remove_containers()
