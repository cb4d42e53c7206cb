"""Pull-through with real upstreams, real clients and real processes that are killed."""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import bcrypt
import pytest

from tests.conftest import Tool, lacking
from tests.e2e.conftest import free_port
from tests.e2e.registry.test_oci_clients import Client
from tests.e2e.registry.test_registry_clients import COMMAND, MEMORY, Server

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
USER, PASSWORD = "robot", "s3cret-of-the-upstream"
MULTIARCH = "busybox-1.38.0-musl-multiarch.oci.tar"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made:
        yield Path(made)


class Debian:
    """docker-registry, with a login. `log` is its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.log = folder / "upstream.log"
        password = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"{USER}:{password}\n")
        self._config = folder / "upstream.yml"
        self._config.write_text(json.dumps({
            "version": "0.1", "storage": {"filesystem": {"rootdirectory": str(folder / "upstream")}},
            "http": {"addr": self.address}, "auth": {"htpasswd": {"realm": "x", "path": str(folder / "htpasswd")}}}))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", self._config], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection(self.address)) as probe:
                probe.request("GET", "/v2/")
                probe.getresponse()
                return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def count(self, method: str, part: str) -> int:
        return sum(f'"{method} ' in line and part in line for line in self.log.read_text().splitlines())


@pytest.fixture
def debian(folder: Path) -> Iterator[Debian]:
    if shutil.which("docker-registry") is None:
        lacking("needs docker-registry (Debian package)")
    made = Debian(folder)
    made.start()
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture
def images(shared: Path) -> Path:
    return shared / "images"


Through = Callable[..., Server]


@pytest.fixture
def through(folder: Path) -> Iterator[Through]:
    """`through(url, workers=2, …)`: a registry process that pulls `up.test` through from there."""
    running: list[Server] = []

    def start(address: str, workers: int = 2, **more: object) -> Server:
        lines = [f"{name} = {json.dumps(value)}" for name, value in {
            "name": "up.test", "url": f"http://{address}", "allow_private": True, "tag_ttl": 0, **more}.items()]
        (folder / "registry.toml").write_text("[[upstreams]]\n" + "\n".join(lines))
        server = Server(folder / "proxy", "--config", str(folder / "registry.toml"), "--workers", str(workers))
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        if server.process is not None and server.process.poll() is None:
            server.kill()


def asked(folder: Path) -> tuple[int, str]:
    """`seawall-registry upstreams`, beside the running registry."""
    done = subprocess.run([COMMAND, "upstreams", "--config", folder / "registry.toml", "--data", folder / "proxy"],
                          capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


def test_clients_pull_through_from_docker_registry(debian, through, tool: Tool, images, tmp_path, folder) -> None:
    """One that wants a password, which only this registry knows."""
    secret = folder / "secret"
    secret.write_text(PASSWORD + "\n")
    server = through(debian.address, username=USER, password_file=str(secret), platforms=["linux/amd64", "linux/arm64"])
    assert asked(folder) == (0, f"up.test\thttp://{debian.address}\tanswers\n")
    skopeo = Client(tool("skopeo"), tmp_path, server.address)
    skopeo("copy", "--all", f"--dest-creds={USER}:{PASSWORD}", "--dest-tls-verify=false",
           f"oci-archive:{images / MULTIARCH}", f"docker://{debian.address}/team/busybox:musl")
    name = f"{server.address}/up.test/team/busybox"
    digest = skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}:musl")
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}:musl", f"oci:{tmp_path / 'out'}")
    crane = Client(tool("crane"), tmp_path, server.address)
    assert crane("digest", f"{name}:musl") == digest
    assert crane("ls", name) == "musl"
    crane("pull", "--platform", "linux/arm64", f"{name}:musl", "image.tar")
    assert "DENIED" in crane.run("pull", "--platform", "linux/386", f"{name}:musl", "other.tar").stderr
    assert "DENIED" in crane.run("tag", f"{name}:musl", "pushed").stderr
    assert "MANIFEST_UNKNOWN" in crane.run("digest", f"{name}:none").stderr
    with tempfile.TemporaryDirectory(prefix="pm") as store:
        podman = ["podman", "--root", f"{store}/r", "--runroot", f"{store}/rr", "--storage-driver", "vfs"]
        subprocess.run([*podman, "pull", "-q", "--tls-verify=false", f"{name}:musl"], check=True, capture_output=True)
        subprocess.run([*podman, "system", "reset", "--force"], check=False, capture_output=True)
    secret.write_text("wrong")
    status, text = asked(folder)
    assert status == 1
    assert "nauthorized" in text
    debian.kill()
    assert crane("digest", f"{name}:musl") == digest
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}:musl", f"oci:{tmp_path / 'again'}")
    status, headers, _ = server.ask("GET", "/v2/team/busybox/manifests/musl?ns=up.test")
    assert (status, headers["OCI-Namespace"]) == (200, "up.test")
    assert headers["Warning"].startswith("299 - ")


def test_one_of_our_own_behind_another(folder, through, tool, tmp_path, images) -> None:
    upstream = Server(folder / "upstream", "--workers", "1")
    upstream.start()
    try:
        server = through(upstream.address)
        regctl = Client(tool("regctl"), tmp_path, server.address)
        for address in (upstream.address, server.address):
            regctl("registry", "set", "--tls", "disabled", address)
        oras = Client(tool("oras"), tmp_path, server.address)
        (tmp_path / "note.txt").write_text("hello\n")
        (tmp_path / "sbom.json").write_text("{}\n")
        oras("push", "--plain-http", f"{upstream.address}/notes:1", "--artifact-type", "application/vnd.test.note",
             "note.txt:text/plain")
        oras("attach", "--plain-http", f"{upstream.address}/notes:1", "--artifact-type", "application/vnd.test.sbom",
             "sbom.json:application/json")
        found = json.loads(oras("discover", "--plain-http", "--format", "json", f"{server.address}/up.test/notes:1"))
        (referrer,) = found["referrers"]
        assert referrer["artifactType"] == "application/vnd.test.sbom"
        oras("pull", "--plain-http", "-o", "out", f"{server.address}/up.test/notes@{referrer['digest']}")
        assert (tmp_path / "out/sbom.json").read_text() == "{}\n"
        copied = f"{server.address}/own/notes:1"
        regctl("image", "copy", "--referrers", f"{server.address}/up.test/notes:1", copied)
        assert json.loads(oras("discover", "--plain-http", "--format", "json", copied))["referrers"]
    finally:
        upstream.kill()


# -- one blob, from an upstream that is watched


class Source:
    """An upstream of one blob that stops at `hold` bytes until it is let go, and remembers what it was asked for."""

    def __init__(self, size: int) -> None:
        self.data = os.urandom(MIB) * (size // MIB)
        self.digest = f"sha256:{hashlib.sha256(self.data).hexdigest()}"
        self.hold = len(self.data)
        self.go = threading.Event()
        self.asked: list[str] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
                source.asked.append(f"GET {start}")
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(source.data) - 1}/{len(source.data)}")
                self.send_header("Content-Length", str(len(source.data) - start))
                self.end_headers()
                with contextlib.suppress(OSError):
                    for first in range(start, len(source.data), MIB):
                        if first >= source.hold:
                            source.go.wait(60)
                        self.wfile.write(source.data[first : first + MIB])

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def source() -> Iterator[Callable[[int], Source]]:
    made: list[Source] = []

    def start(size: int) -> Source:
        made.append(Source(size))
        return made[-1]

    yield start
    for one in made:
        one.close()


def read(server: Server, digest: str, count: int = -1) -> bytes:
    with urllib.request.urlopen(f"http://{server.address}/v2/up.test/a/blobs/{digest}", timeout=60) as answer:
        return answer.read() if count < 0 else answer.read(count)


def test_fifty_clients_of_two_workers_cost_one_transfer(through, source) -> None:
    upstream = source(8 * MIB)
    upstream.hold = 4 * MIB
    server = through(upstream.address)
    with ThreadPoolExecutor(50) as threads:
        answers = [threads.submit(lambda: hashlib.sha256(read(server, upstream.digest)).hexdigest()) for _ in range(50)]
        deadline = time.monotonic() + 20
        while not upstream.asked:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        upstream.go.set()
        assert {f"sha256:{answer.result()}" for answer in answers} == {upstream.digest}
    assert upstream.asked == ["GET 0"]
    assert server.stop() == 0


def test_killed_in_the_middle_it_goes_on_from_what_was_on_disk(through, source) -> None:
    upstream = source(96 * MIB)
    upstream.hold = 80 * MIB
    server = through(upstream.address)
    with urllib.request.urlopen(f"http://{server.address}/v2/up.test/a/blobs/{upstream.digest}", timeout=60) as answer:
        assert answer.read(70 * MIB) == upstream.data[: 70 * MIB]
        server.kill()
        upstream.go.set()
        with pytest.raises((OSError, http.client.HTTPException)):
            while answer.read(MIB):
                pass
            raise http.client.IncompleteRead(b"")  # urllib ends a cut answer without a word
    server.start()
    assert read(server, upstream.digest) == upstream.data
    (first, second) = upstream.asked
    assert first == "GET 0"
    assert int(second.split()[1]) >= 64 * MIB
    assert read(server, upstream.digest) == upstream.data
    assert len(upstream.asked) == 2
    assert server.stop() == 0


def test_an_upstream_that_is_killed_and_comes_back(debian, through, tool, tmp_path) -> None:
    server = through(debian.address, username=USER, password=PASSWORD)
    data = os.urandom(MIB) * 192
    (tmp_path / "blob").write_bytes(data)
    (tmp_path / "m").write_text("{}")
    oras = Client(tool("oras"), tmp_path, debian.address)
    oras("push", "--plain-http", "-u", USER, "-p", PASSWORD, f"{debian.address}/a:1", "blob:application/octet-stream")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with urllib.request.urlopen(f"http://{server.address}/v2/up.test/a/blobs/{digest}", timeout=60) as answer:
        assert answer.read(1000) == data[:1000]
        assert debian.process
        debian.process.send_signal(signal.SIGSTOP)
        debian.kill()
        debian.start()
        assert answer.read() == data[1000:]
    assert server.stop() == 0


@pytest.mark.root
def test_docker_and_our_node_pull_through(docker, platform, through) -> None:
    """The node of `platform`, driven by docker; its own registry is the upstream."""
    server = through(platform.registry)
    name = f"{server.address}/up.test/busybox:latest"
    docker.ok("pull", name)
    try:
        assert docker.inspect(name, "{{.Architecture}}") == "amd64"
        assert docker.ok("run", "--rm", "--network", "none", name, "echo", "pulled through").strip() == "pulled through"
        refused = docker("push", name)
        assert refused.returncode != 0
        assert "pulled through" in refused.stdout + refused.stderr
    finally:
        docker("rmi", "-f", name)
    assert server.stop() == 0
