"""skopeo and podman against a registry process, and what survives kill -9 and a full disk."""

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking

pytestmark = pytest.mark.e2e

COMMAND = str(Path(sys.executable).with_name("seawall-registry"))
MEMORY = Path("/dev/shm")
MIB = 1024 * 1024
OCI_ARCHIVES = [
    "busybox-1.38.0-glibc-amd64.oci.tar", "busybox-1.38.0-musl-amd64.oci.tar", "busybox-1.38.0-musl-multiarch.oci.tar",
    "dive-test-oci-estargz-image.tar", "dive-test-oci-gzip-image.tar", "dive-test-oci-uncompressed-image.tar",
    "dive-test-oci-zstd-image.tar",
]
DOCKER_ARCHIVES = [
    "dive-test-docker-image.tar", "fanal-alpine-310.tar.gz", "fanal-alpine-311.tar.gz",
    "ggcr-mutate-whiteout_image.tar",
]
REGCLIENT = "regclient-testrepo.ocidir"


class Server:
    """A registry process with its workers; `restart` keeps data and port."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.address = "127.0.0.1:0"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([COMMAND, "serve", "--data", str(self.data), "--listen", self.address,
                                         *self.options], stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        match = re.search(r"http://(\S+)", line)
        assert match, line
        self.address = match[1]

    def kill(self) -> None:
        """As a power cut would, all processes at once."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=20)
        return self.process.returncode

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=30)

    def ask(self, method: str, path: str, body: bytes | None = None,
            **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def begin(self, repo: str = "team/app") -> str:
        status, headers, _ = self.ask("POST", f"/v2/{repo}/blobs/uploads/")
        assert status == 202
        return headers["Location"]

    def offset(self, location: str) -> int:
        status, headers, _ = self.ask("GET", location)
        assert status == 204
        return int(headers["Range"].removeprefix("0-")) + 1

    def resident(self) -> int:
        """The most memory, in bytes, that any of its processes has had."""
        assert self.process
        pid = self.process.pid
        pids = [pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        return max(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in texts)


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:
        def begin(data: Path, *options: str) -> Server:
            server = Server(data, *options)
            server.start()
            stack.callback(lambda: server.process and server.process.poll() is None and server.kill())
            return server
        yield begin


@pytest.fixture(scope="module")
def registry() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        server = Server(Path(folder), "--workers", "2")
        server.start()
        try:
            yield server
        finally:
            assert server.stop() == 0


@pytest.fixture
def images(shared: Path) -> Path:
    return shared / "images"


@pytest.fixture
def archive(images: Path, tmp_path: Path) -> Callable[[str], str]:
    """`archive(file)`: how skopeo and podman name it; Debian's cannot read a compressed docker-archive."""
    def name(file: str) -> str:
        if file in OCI_ARCHIVES:
            return f"oci-archive:{images / file}"
        path = images / file
        if path.suffix == ".gz":
            path = tmp_path / path.stem
            with gzip.open(images / file) as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        return f"docker-archive:{path}"
    return name


def run(*command: str | Path) -> str:
    if not shutil.which(str(command[0])):
        lacking(f"{command[0]} is not installed")
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stderr[-3000:]}"
    return result.stdout


def skopeo_copy(source: str, target: str) -> None:
    run("skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false",
        "--dest-tls-verify=false", source, target)


def pulled(layout: Path) -> str:
    """The digest of the one image of an OCI layout, all of whose blobs are what their names say."""
    for blob in (layout / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    (item,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    return item["digest"]


def remote_digest(reference: str) -> str:
    return "sha256:" + hashlib.sha256(run("skopeo", "inspect", "--raw", "--tls-verify=false",
                                          f"docker://{reference}").encode()).hexdigest()


@pytest.mark.parametrize("file", OCI_ARCHIVES)
def test_skopeo_pushes_and_pulls_oci_images(registry, images, archive, tmp_path, file) -> None:
    reference = f"{registry.address}/skopeo/{file.partition('.')[0]}:v1"
    with tarfile.open(images / file) as tar:
        (item,) = json.load(tar.extractfile("index.json"))["manifests"]
    skopeo_copy(archive(file), f"docker://{reference}")
    assert remote_digest(reference) == item["digest"]
    skopeo_copy(f"docker://{reference}", f"oci:{tmp_path / 'out'}")
    assert pulled(tmp_path / "out") == item["digest"]


@pytest.mark.parametrize("file", DOCKER_ARCHIVES)
def test_skopeo_pushes_and_pulls_docker_images(registry, archive, tmp_path, file) -> None:
    reference = f"{registry.address}/skopeo/{file.partition('.')[0].lower()}:v1"
    skopeo_copy(archive(file), f"docker://{reference}")
    digest = remote_digest(reference)
    skopeo_copy(f"docker://{reference}", f"dir:{tmp_path / 'out'}")
    raw = (tmp_path / "out" / "manifest.json").read_bytes()
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == digest
    assert json.loads(raw)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    again = f"{registry.address}/again/{file.partition('.')[0].lower()}:v1"
    skopeo_copy(f"dir:{tmp_path / 'out'}", f"docker://{again}")
    assert remote_digest(again) == digest


def push_from_layout(server: Server, layout: Path, repo: str, digest: str, reference: str) -> None:
    """Byte for byte. For the indexes of referrers under fallback tags, which Debian's skopeo (1.9) refuses to copy
    unchanged: it wants to rewrite a list whose children are artifacts or lists."""
    raw = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    document = json.loads(raw)
    for item in document.get("manifests", []):
        push_from_layout(server, layout, repo, item["digest"], item["digest"])
    for item in (*document.get("layers", []), *filter(None, [document.get("config")])):
        data = (layout / "blobs" / item["digest"].replace(":", "/")).read_bytes()
        assert server.ask("POST", f"/v2/{repo}/blobs/uploads/?digest={item['digest']}", data)[0] == 201
    status, _, body = server.ask("PUT", f"/v2/{repo}/manifests/{reference}", raw, Content_Type=document["mediaType"])
    assert status == 201, body


def test_skopeo_pushes_and_pulls_every_tag_of_a_repository(registry, images, tmp_path) -> None:
    """26 tags: images of several platforms, artifacts, signatures by fallback tag, indexes that share children."""
    listed = json.loads((images / REGCLIENT / "index.json").read_bytes())["manifests"]
    tags = {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"]
            for item in listed if "annotations" in item}
    repo = f"{registry.address}/regclient/testrepo"
    for tag, digest in tags.items():
        if tag.startswith("sha256-"):
            push_from_layout(registry, images / REGCLIENT, "regclient/testrepo", digest, tag)
        else:
            skopeo_copy(f"oci:{images / REGCLIENT}:{tag}", f"docker://{repo}:{tag}")
    names = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{repo}"))["Tags"]
    assert names == sorted(tags)
    for number, (tag, digest) in enumerate(tags.items()):
        status, headers, raw = registry.ask("GET", f"/v2/regclient/testrepo/manifests/{tag}")
        assert (status, headers["Docker-Content-Digest"]) == (200, digest)
        assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == digest
        if number % 4 == 0 and not tag.startswith("sha256-"):
            skopeo_copy(f"docker://{repo}:{tag}", f"oci:{tmp_path / tag}")
            assert pulled(tmp_path / tag) == digest


def test_referrers_that_a_client_pushed(registry, images) -> None:
    """The layout lists them in fallback tags; the API finds them by their subject."""
    listed = json.loads((images / REGCLIENT / "index.json").read_bytes())["manifests"]
    tags = {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"]
            for item in listed if "annotations" in item}
    subject = tags["v2"]
    fallback = f"sha256-{subject.removeprefix('sha256:')}"
    skopeo_copy(f"oci:{images / REGCLIENT}:v2", f"docker://{registry.address}/referrers/repo:v2")
    push_from_layout(registry, images / REGCLIENT, "referrers/repo", tags[fallback], fallback)
    _, _, index = registry.ask("GET", f"/v2/referrers/repo/manifests/{fallback}")
    _, _, found = registry.ask("GET", f"/v2/referrers/repo/referrers/{subject}")
    expected = {item["digest"] for item in json.loads(index)["manifests"]}
    assert expected
    assert {item["digest"] for item in json.loads(found)["manifests"]} == expected


@pytest.fixture
def podman() -> Iterator[Callable[..., str]]:
    """podman with a store of its own (it wants short paths); pull and push need neither cgroups nor its service."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="pm") as folder:
        store = ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs")
        yield lambda *words: run("podman", *store, *words)
        subprocess.run(["podman", *store, "system", "reset", "--force"], capture_output=True, check=False)


@pytest.mark.root
@pytest.mark.parametrize("file", [*OCI_ARCHIVES, *DOCKER_ARCHIVES])
def test_podman_pushes_and_pulls(registry, archive, podman, tmp_path, file) -> None:
    reference = f"{registry.address}/podman/{file.partition('.')[0].lower()}:v1"
    image = podman("pull", "--quiet", archive(file)).strip()
    podman("push", "--quiet", "--tls-verify=false", f"--digestfile={tmp_path / 'digest'}", image, reference)
    digest = (tmp_path / "digest").read_text()
    assert remote_digest(reference) == digest
    podman("rmi", "--all", "--force")
    assert podman("pull", "--quiet", "--tls-verify=false", reference).strip() == image
    assert json.loads(podman("image", "inspect", image))[0]["Digest"] == digest


@pytest.mark.root
@pytest.mark.parametrize("tag", ["v1", "v2", "v3"])
def test_podman_pulls_from_an_index(registry, images, podman, tag) -> None:
    reference = f"{registry.address}/podman/indexed:{tag}"
    skopeo_copy(f"oci:{images / REGCLIENT}:{tag}", f"docker://{reference}")
    image = podman("pull", "--quiet", "--tls-verify=false", reference).strip()
    assert json.loads(podman("image", "inspect", image))[0]["Architecture"] == "amd64"


def upload_part(server: Server, location: str, data: bytes, announced: int) -> http.client.HTTPConnection:
    """Send a part of a body and leave it at that."""
    connection = server.connect()
    connection.putrequest("PATCH", location)
    connection.putheader("Content-Length", str(announced))
    connection.endheaders()
    connection.send(data)
    return connection


def test_an_upload_survives_kill_9(start, tmp_path, wait_for) -> None:
    server = start(tmp_path / "data", "--workers", "2")
    data = os.urandom(MIB) * 160
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    location = server.begin()
    with contextlib.closing(upload_part(server, location, data[: 150 * MIB], len(data))):
        wait_for(lambda: server.offset(location) >= 64 * MIB, within=30)
        server.kill()
    server.start()
    offset = server.offset(location)
    assert 64 * MIB <= offset <= 150 * MIB
    assert server.ask("GET", f"/v2/team/app/blobs/{digest}")[0] == 404
    status, headers, _ = server.ask("PUT", f"{location}?digest={digest}", data[offset:],
                                    Content_Range=f"{offset}-{len(data) - 1}")
    assert (status, headers["Docker-Content-Digest"]) == (201, digest)
    assert server.ask("GET", f"/v2/team/app/blobs/{digest}")[2] == data
    server.kill()
    server.start()
    assert server.ask("GET", f"/v2/team/app/blobs/{digest}")[2] == data


def test_pushed_images_survive_kill_9(start, archive, tmp_path) -> None:
    server = start(tmp_path / "data")
    skopeo_copy(archive(OCI_ARCHIVES[1]), f"docker://{server.address}/a:v1")
    before = server.ask("GET", "/v2/a/manifests/v1")[2]
    server.kill()
    server.start()
    skopeo_copy(f"docker://{server.address}/a:v1", f"oci:{tmp_path / 'out'}")
    assert pulled(tmp_path / "out") == f"sha256:{hashlib.sha256(before).hexdigest()}"


@pytest.mark.root
def test_a_full_disk(start, archive, tmp_path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "seawall-test", disk], check=True)
    try:
        server = start(disk / "data", "--workers", "1")
        skopeo_copy(archive(OCI_ARCHIVES[1]), f"docker://{server.address}/a:v1")
        data = os.urandom(64 * MIB)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        location = server.begin("a")
        status, _, body = server.ask("PATCH", location, data)
        assert (status, json.loads(body)["errors"][0]["code"]) == (507, "UNAVAILABLE")
        status, _, body = server.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", data)
        assert status == 507
        # Nothing of it is there, all that was there still is, and there is room again.
        assert server.ask("HEAD", f"/v2/a/blobs/{digest}")[0] == 404
        skopeo_copy(f"docker://{server.address}/a:v1", f"oci:{tmp_path / 'out'}")
        pulled(tmp_path / "out")
        assert server.ask("DELETE", location)[0] == 204
        small = data[: 8 * MIB]
        small_digest = f"sha256:{hashlib.sha256(small).hexdigest()}"
        assert server.ask("POST", f"/v2/a/blobs/uploads/?digest={small_digest}", small)[0] == 201
        server.kill()
        server.start()
        assert server.ask("GET", f"/v2/a/blobs/{small_digest}")[2] == small
        assert server.stop() == 0
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(not MEMORY.is_dir(), reason="needs a file system in memory")
def test_memory_does_not_grow_with_the_blob(start, tmp_path) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        server = start(Path(folder) / "data", "--workers", "1")
        size = 400 * MIB
        piece = os.urandom(MIB)
        hasher = hashlib.sha256()
        for _ in range(400):
            hasher.update(piece)
        location = server.begin()
        before = server.resident()
        with contextlib.closing(server.connect()) as connection:
            connection.request("PUT", f"{location}?digest=sha256:{hasher.hexdigest()}",
                               (piece for _ in range(400)), {"Content-Length": str(size)})
            assert connection.getresponse().status == 201
        with contextlib.closing(server.connect()) as connection:
            connection.request("GET", f"/v2/team/app/blobs/sha256:{hasher.hexdigest()}")
            answer = connection.getresponse()
            received = 0
            while chunk := answer.read(MIB):
                received += len(chunk)
        assert received == size
        assert server.resident() - before < 40 * MIB
