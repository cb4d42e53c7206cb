"""The clients that people point at a registry: push, pull, copy, attach, sign, list, delete with each as it is."""

import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Tool, lacking
from tests.e2e.registry.test_registry_clients import MEMORY, Server

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
TRUST = {"version": "1.0", "trustPolicies": [{
    "name": "tests", "registryScopes": ["*"], "signatureVerification": {"level": "strict"},
    "trustStores": ["ca:seawall.test"], "trustedIdentities": ["*"]}]}


@dataclass
class Client:
    """One program with a home of its own. `registry` is HOST:PORT."""

    program: Path
    home: Path
    registry: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"),
            "COSIGN_PASSWORD": "test", "COSIGN_EXPERIMENTAL": "1", "LANG": "C.UTF-8", **self.environment,
        }  # fmt: skip
        done = subprocess.run([self.program, *words], input=stdin, capture_output=True, cwd=self.home, timeout=90,
                              check=False, env=environment)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def __call__(self, *words: str, stdin: bytes = b"") -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
        return done.stdout.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        made = Server(Path(folder), "--workers", "2")
        made.start()
        try:
            yield made
        finally:
            assert made.stop() == 0


@pytest.fixture
def client(server: Server, tool: Tool, tmp_path: Path):
    """`client("crane")`."""
    return lambda name: Client(tool(name), tmp_path, server.address)


@pytest.fixture(scope="module")
def layout(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """busybox for four platforms as an OCI layout, its tag named as clients other than skopeo want it."""
    folder = tmp_path_factory.mktemp("layout")
    with tarfile.open(shared / "images" / "busybox-1.38.0-musl-multiarch.oci.tar") as archive:
        archive.extractall(folder, filter="data")
    index = json.loads((folder / "index.json").read_text())
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "musl"
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def image(client, layout: Path, request: pytest.FixtureRequest) -> str:
    """A multi-platform image in a repository of the test's own, by digest."""
    regctl = client("regctl")
    regctl("registry", "set", "--tls", "disabled", regctl.registry)
    name = f"{regctl.registry}/{re.sub('[^a-z0-9]+', '-', request.node.name).strip('-')}"
    regctl("image", "copy", f"ocidir://{layout}:musl", f"{name}:1")
    return f"{name}@{regctl('image', 'digest', f'{name}:1')}"


def test_crane(client, image: str, layout: Path) -> None:
    crane = client("crane")
    here = f"{crane.registry}/crane"
    crane("push", str(layout), f"{here}/busybox:multi", "--index")
    digest = image.partition("@")[2]
    crane("copy", image, f"{here}/copy:1")
    assert crane("digest", f"{here}/copy:1") == digest
    crane("tag", f"{here}/copy:1", "second")
    assert crane("ls", f"{here}/copy").split() == ["1", "second"]
    assert {"crane/busybox", "crane/copy"} <= set(crane("catalog", crane.registry).split())
    assert json.loads(crane("config", "--platform", "linux/arm64", f"{here}/copy:1"))["architecture"] == "arm64"
    crane("validate", "--remote", f"{here}/busybox:multi")
    crane("pull", "--platform", "linux/amd64", f"{here}/copy:1", "image.tar")
    with tarfile.open(crane.home / "image.tar") as archive:
        assert "manifest.json" in archive.getnames()
    crane("delete", f"{here}/copy:second")
    assert crane("ls", f"{here}/copy").split() == ["1"]
    crane("delete", f"{here}/copy@{digest}")
    assert "MANIFEST_UNKNOWN" in crane.run("manifest", f"{here}/copy:1").stderr
    assert crane("digest", image) == digest
    crane("validate", "--remote", image)


def test_oras_attaches_and_discovers(client) -> None:
    oras = client("oras")
    name = f"{oras.registry}/oras/notes"
    (oras.home / "note.txt").write_text("hello\n")
    (oras.home / "sbom.json").write_text("{}\n")
    oras("push", "--plain-http", f"{name}:1", "--artifact-type", "application/vnd.test.note", "note.txt:text/plain")
    oras("attach", "--plain-http", f"{name}:1", "--artifact-type", "application/vnd.test.sbom",
         "sbom.json:application/json")
    tree = json.loads(oras("discover", "--plain-http", "--format", "json", f"{name}:1"))
    (referrer,) = tree["referrers"]
    assert referrer["artifactType"] == "application/vnd.test.sbom"
    none = json.loads(oras("discover", "--plain-http", "--format", "json", "--artifact-type", "application/other",
                           f"{name}:1"))
    assert not none.get("referrers")
    oras("copy", "--recursive", "--from-plain-http", "--to-plain-http", f"{name}:1", f"{oras.registry}/oras/copy:1")
    copied = json.loads(oras("discover", "--plain-http", "--format", "json", f"{oras.registry}/oras/copy:1"))
    assert [item["digest"] for item in copied["referrers"]] == [referrer["digest"]]
    oras("pull", "--plain-http", "-o", "out", f"{oras.registry}/oras/copy:1")
    assert (oras.home / "out/note.txt").read_text() == "hello\n"
    assert oras("repo", "tags", "--plain-http", name) == "1"
    oras("manifest", "delete", "--plain-http", "--force", f"{name}@{referrer['digest']}")
    assert not json.loads(oras("discover", "--plain-http", "--format", "json", f"{name}:1")).get("referrers")


def test_regctl_pushes_a_blob_in_chunks_and_an_image_with_its_referrers(client, image: str) -> None:
    regctl = client("regctl")
    regctl("registry", "set", "--tls", "disabled", "--blob-chunk", str(MIB), "--blob-max", str(2 * MIB),
           regctl.registry)
    data = os.urandom(5 * MIB + 17)
    digest = regctl("blob", "put", f"{regctl.registry}/regctl/chunks", stdin=data)
    (regctl.home / "back").write_bytes(subprocess.run(
        [regctl.program, "blob", "get", f"{regctl.registry}/regctl/chunks", digest], check=True, capture_output=True,
        env={"HOME": str(regctl.home)}, timeout=60).stdout)
    assert (regctl.home / "back").read_bytes() == data
    regctl("artifact", "put", "--artifact-type", "application/vnd.test.note", "--subject", image, stdin=b"note")
    target = f"{regctl.registry}/regctl/copy:1"
    regctl("image", "copy", "--referrers", image, target)
    listed = json.loads(regctl("artifact", "list", "--format", "{{jsonPretty .}}", target))
    assert [item["artifactType"] for item in listed["descriptors"]] == ["application/vnd.test.note"]
    regctl("tag", "delete", target)
    assert not regctl("tag", "ls", target.rpartition(":")[0])
    name, _, digest = image.partition("@")
    assert regctl("manifest", "head", f"{name}:1") == digest


def test_notation_signs_and_verifies(client, image: str) -> None:
    notation = client("notation")
    notation("cert", "generate-test", "--default", "seawall.test")
    notation("sign", "--insecure-registry", image)
    assert "application/vnd.cncf.notary.signature" in notation("ls", "--insecure-registry", image)
    (notation.home / "trust.json").write_text(json.dumps(TRUST))
    notation("policy", "import", "trust.json")
    assert "Successfully verified" in notation("verify", "--insecure-registry", image)


@pytest.mark.parametrize("mode", ["legacy", "oci-1-1"])
def test_cosign_signs_and_verifies(client, image: str, mode: str) -> None:
    """`legacy` keeps signatures behind a tag, `oci-1-1` as referrers."""
    cosign = client("cosign")
    cosign("generate-key-pair")
    extra = ["--registry-referrers-mode", mode] if mode != "legacy" else []
    cosign("sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-insecure-registry", "-y", *extra, image)
    verified = cosign.run("verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-insecure-registry",
                          *(["--experimental-oci11"] if extra else []), image)
    assert verified.returncode == 0, verified.stderr
    assert image.partition("@")[2] in verified.stdout


def test_helm_charts(client) -> None:
    helm = client("helm")
    charts = f"oci://{helm.registry}/charts"
    helm("create", "web")
    helm("package", "web")
    helm("push", "--plain-http", "web-0.1.0.tgz", charts)
    (helm.home / "pulled").mkdir()
    helm("pull", "--plain-http", f"{charts}/web", "--version", "0.1.0", "-d", "pulled")
    assert (helm.home / "pulled/web-0.1.0.tgz").read_bytes() == (helm.home / "web-0.1.0.tgz").read_bytes()
    assert "version: 0.1.0" in helm("show", "chart", "--plain-http", f"{charts}/web", "--version", "0.1.0")


def test_buildah(client, image: str) -> None:
    if os.geteuid() != 0:
        lacking("needs root on a Linux kernel")
    buildah = client("buildah")
    storage = ["--root", str(buildah.home / "root"), "--runroot", str(buildah.home / "run"), "--storage-driver", "vfs"]
    name = image.partition("@")[0]
    buildah(*storage, "pull", "-q", "--tls-verify=false", f"{name}:1")
    buildah(*storage, "tag", f"{name}:1", f"{name}:again")
    buildah(*storage, "push", "-q", "--tls-verify=false", f"{name}:again")
    crane = client("crane")
    assert json.loads(crane("config", f"{name}:again")) == json.loads(crane("config", "--platform", "linux/amd64", image))
