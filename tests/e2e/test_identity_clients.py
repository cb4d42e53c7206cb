"""Real clients against a registry with accounts: they log in, push, pull, are refused, and pull what is public without
a login. docker goes through our node, as on a user's machine."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.e2e.conftest import BIN, Docker, Platform, clients, tear_down
from tests.e2e.registry.test_oci_clients import Client
from tests.e2e.registry.test_registry_clients import COMMAND, MEMORY, Server

pytestmark = pytest.mark.e2e

IMAGE = "busybox-1.38.0-musl-amd64.oci.tar"
PASSWORD = "correct horse"


@dataclass
class Guarded:
    """`robot` is a token for `team/**`, `admin` an administrator's."""

    server: Server
    robot: str
    admin: str

    @property
    def address(self) -> str:
        return self.server.address


def manage(data: Path, *words: str, given: str = "") -> str:
    done = subprocess.run([COMMAND, *words[:2], "--data", str(data), *words[2:]], input=given, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def guarded(shared: Path) -> Iterator[Guarded]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        data = Path(folder)
        manage(data, "user", "add", "ann", "--password-stdin", given=f"{PASSWORD}\n")
        manage(data, "policy", "set", "team/**", "user:ann", "pull,push,delete")
        manage(data, "policy", "set", "public/**", "anonymous", "pull")
        admin = manage(data, "token", "admin")
        robot = manage(data, "token", "create", "ci", "--repository", "team/**=pull,push", "--expires", "1d")
        server = Server(data, "--auth", "accounts", "--workers", "2")
        server.start()
        try:
            subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", f"x:{admin}",
                            f"oci-archive:{shared / 'images' / IMAGE}", f"docker://{server.address}/public/busybox:latest"],
                           check=True, timeout=60)
            yield Guarded(server, robot, admin)
        finally:
            assert server.stop() == 0


def logins(name: str, at: str) -> dict[str, list[str]]:
    """How each client logs in with a password on standard input, and what it says of tags."""
    return {
        "skopeo": ["login", "--tls-verify=false", "-u", "{user}", "--password-stdin", at],
        "podman": ["login", "--tls-verify=false", "-u", "{user}", "--password-stdin", at],
        "buildah": ["login", "--tls-verify=false", "-u", "{user}", "--password-stdin", at],
        "crane": ["auth", "login", at, "-u", "{user}", "--password-stdin"],
        "oras": ["login", "--plain-http", "-u", "{user}", "--password-stdin", at],
        "regctl": ["registry", "login", at, "-u", "{user}", "--pass-stdin"],
        "helm": ["registry", "login", "--plain-http", "-u", "{user}", "--password-stdin", at],
    }[name]  # type: ignore[return-value]


def prepared(program: Path, home: Path, at: str) -> Client:
    client = Client(program, home, at, {"REGISTRY_AUTH_FILE": str(home / "auth.json")})
    if program.name == "regctl":
        client("registry", "set", "--tls", "disabled", at)
    return client


@pytest.mark.parametrize("name", ["skopeo", "podman", "buildah", "crane", "oras", "regctl", "helm"])
def test_logging_in(guarded: Guarded, tool, tmp_path: Path, name: str) -> None:
    client = prepared(tool(name), tmp_path, guarded.address)
    words = logins(name, guarded.address)

    def login(user: str, password: str) -> int:
        return client.run(*(word.format(user=user) for word in words), stdin=password.encode()).returncode

    assert login("ann", PASSWORD) == 0
    if name != "crane":  # which only writes down what it was told
        assert login("ann", "wrong horse") != 0
        assert login("eve", PASSWORD) != 0
    assert login("ci", guarded.robot) == 0


@pytest.mark.parametrize("who", ["ann", "robot"])
def test_pushing_and_pulling(guarded: Guarded, tool, shared: Path, tmp_path: Path, who: str) -> None:
    user, password = ("ann", PASSWORD) if who == "ann" else ("ci", guarded.robot)
    at, source = guarded.address, f"oci-archive:{shared / 'images' / IMAGE}"
    skopeo, crane, oras, regctl = (prepared(tool(name), tmp_path, at) for name in ("skopeo", "crane", "oras", "regctl"))
    for client, name in ((skopeo, "skopeo"), (crane, "crane"), (oras, "oras"), (regctl, "regctl")):
        client(*(word.format(user=user) for word in logins(name, at)), stdin=password.encode())
    skopeo("copy", "-q", "--dest-tls-verify=false", source, f"docker://{at}/team/{who}:v1")
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{at}/team/{who}:v1", f"dir:{tmp_path / 'got'}")
    crane("copy", f"{at}/team/{who}:v1", f"{at}/team/{who}-crane:v1")  # mounts its layers
    (tmp_path / "file").write_text("attached")
    oras("attach", "--plain-http", f"{at}/team/{who}:v1", "--artifact-type", "test/thing", "file:text/plain")
    assert "test/thing" in oras("discover", "--plain-http", f"{at}/team/{who}:v1")
    regctl("image", "copy", f"{at}/team/{who}:v1", f"{at}/team/{who}-regctl:v2")
    assert crane("ls", f"{at}/team/{who}-regctl") == "v2"
    refused = skopeo.run("copy", "-q", "--dest-tls-verify=false", source, f"docker://{at}/public/busybox:mine")
    assert refused.returncode != 0
    for client, words in ((crane, ("ls", f"{at}/other/thing")), (regctl, ("tag", "ls", f"{at}/other/thing"))):
        assert client.run(*words).returncode != 0
    if who == "ann":
        regctl("tag", "rm", f"{at}/team/{who}-regctl:v2")
        assert f"team/{who}" in crane("catalog", at).splitlines()


def test_what_is_public_needs_no_login(guarded: Guarded, tool, tmp_path: Path) -> None:
    at = guarded.address
    crane = prepared(tool("crane"), tmp_path, at)
    assert crane("ls", f"{at}/public/busybox") == "latest"
    skopeo = prepared(tool("skopeo"), tmp_path, at)
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{at}/public/busybox:latest", f"dir:{tmp_path / 'got'}")
    assert crane.run("ls", f"{at}/team/ann").returncode != 0


@pytest.fixture(scope="module")
def node(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    if os.geteuid() != 0:
        lacking("needs root on a Linux kernel")
    made = Platform(tmp_path_factory.mktemp("node"), int(guarded.address.rpartition(":")[2]))
    (made.home / "docker").mkdir()
    try:
        made.start_node()
        yield made
    finally:
        tear_down(made)


@pytest.mark.parametrize(("program", "who"), [*((name, "ann") for name in (*sorted(clients()), "seawall")),
                                              ("seawall", "robot")])
def test_docker_through_our_node(guarded: Guarded, node: Platform, tmp_path: Path, program: str, who: str) -> None:
    at = guarded.address
    user, password = ("ann", PASSWORD) if who == "ann" else ("anything", guarded.robot)
    mine = Platform(node.home, node.port)
    docker = Docker(clients().get(program, str(BIN / "seawall")), mine)
    image = f"{at}/team/{program}-{who}"
    docker.ok("pull", f"{at}/public/busybox:latest")
    docker.ok("tag", f"{at}/public/busybox:latest", f"{image}:v1")
    docker("logout", at)
    refused = docker("push", f"{image}:v1")
    assert refused.returncode != 0
    wrong = docker("login", "-u", user, "--password-stdin", at, stdin="wrong horse")
    assert wrong.returncode != 0
    docker.ok("login", "-u", user, "--password-stdin", at, stdin=password)
    docker.ok("push", f"{image}:v1")
    docker.ok("rmi", f"{image}:v1")
    docker.ok("pull", f"{image}:v1")
    assert image in docker.ok("search", image)
    assert docker("push", f"{at}/public/busybox:latest").returncode != 0
    docker.ok("logout", at)
    docker.ok("rmi", f"{image}:v1")
    assert image not in docker.ok("search", image)
    assert docker("pull", f"{image}:v1").returncode != 0
