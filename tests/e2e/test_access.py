"""Several users on one socket, other machines over TLS and ssh: real docker commands as real users of the kernel."""

import getpass
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.conftest import lacking
from tests.e2e.conftest import BIN, Docker, Platform, clients, free_port, tear_down

ADA, BOB, EVE, GROUP = 47101, 47102, 47103, 47100


@dataclass
class Site:
    platform: Platform
    port: int
    folder: Path
    bind: Path

    def image(self) -> str:
        return self.platform.image("busybox:latest")

    def run(self, uid: int, program: str, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """As that user, in the socket's group and no other."""
        as_user = ["setpriv", f"--reuid={uid}", f"--regid={GROUP}", "--clear-groups", program]
        environment = self.platform.environment | {"HOME": "/nonexistent", "DOCKER_CONFIG": "/nonexistent"}
        return subprocess.run([*as_user, *words], input=stdin, capture_output=True, text=True, timeout=40, check=False,
                              env=environment, cwd="/")

    def tls(self, name: str) -> list[str]:
        at = self.folder / name
        return ["-H", f"tcp://127.0.0.1:{self.port}", "--tlsverify", "--tlscacert", str(self.folder / "ca.pem"),
                "--tlscert", str(at / "cert.pem"), "--tlskey", str(at / "key.pem")]


@pytest.fixture(scope="module")
def site(platform: Platform) -> Iterator[Site]:
    # Other users must be able to walk to the socket, and pytest's folders are their owner's alone.
    folder = Path(tempfile.mkdtemp(prefix="seawall-access-"))
    folder.chmod(0o755)
    made = Site(Platform(folder, platform.port), free_port(), folder, folder / "srv")
    made.bind.mkdir()
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("node", "ci-1", "stranger", "forged"):
        (folder / name).mkdir()
        issuer = trustme.CA() if name == "forged" else ca
        issued = issuer.issue_cert("127.0.0.1", common_name=name)
        issued.private_key_pem.write_to_path(str(folder / name / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(folder / name / "cert.pem"))
        shutil.copy(folder / "ca.pem", folder / name / "ca.pem")
    (folder / "access.toml").write_text(f"""
[[rule]]
user = {ADA}
rights = "read"
[[rule]]
user = {BOB}
project = "shop"
binds = ["{made.bind}"]
[[rule]]
certificate = "ci-*"
rights = "full"
""")
    try:
        made.platform.start_node(
            "--group", str(GROUP), "--access-rules", str(folder / "access.toml"),
            "--listen", f"tcp://127.0.0.1:{made.port}", "--tlscacert", str(folder / "ca.pem"),
            "--tlscert", str(folder / "node" / "cert.pem"), "--tlskey", str(folder / "node" / "key.pem"),
        )  # fmt: skip
        made.platform.pull()
        yield made
    finally:
        tear_down(made.platform)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=[*sorted(clients()), "seawall"])
def program(request: pytest.FixtureRequest, site: Site) -> Iterator[str]:
    yield clients().get(request.param) or str(BIN / "seawall")
    site.platform.remove_containers()


def test_who_may_read_sees_all_and_changes_nothing(site: Site, program: str) -> None:
    root = Docker(program, site.platform)
    root.ok("run", "-d", "--name", "web", site.image(), "sleep", "60")
    seen = site.run(ADA, program, "ps", "--format", "{{.Names}}")
    assert (seen.returncode, seen.stdout.split()) == (0, ["web"]), seen.stderr
    for words in (["rm", "-f", "web"], ["exec", "web", "id"], ["run", "--rm", site.image(), "true"], ["stop", "web"]):
        refused = site.run(ADA, program, *words)
        assert refused.returncode != 0
        assert "is not allowed with rights to read" in refused.stderr
    assert root.inspect("web", "{{.State.Running}}") == "true"


def test_a_project_lives_beside_others(site: Site, program: str) -> None:
    root = Docker(program, site.platform)
    root.ok("run", "-d", "--name", "admins", site.image(), "sleep", "60")
    made = site.run(BOB, program, "run", "-d", "--name", "shops", "-v", f"{site.bind}:/srv", "-v", "goods:/goods",
                    site.image(), "sh", "-c", "echo made >/srv/file; sleep 60")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert site.run(BOB, program, "ps", "-a", "--format", "{{.Names}}").stdout.split() == ["shops"]
    assert root.inspect("shops", '{{index .Config.Labels "seawall.project"}}') == "shop"
    assert site.run(BOB, program, "exec", "shops", "cat", "/srv/file").stdout == "made\n"
    for words in (["stop", "admins"], ["exec", "admins", "id"], ["logs", "admins"], ["inspect", "admins"],
                  ["run", "--rm", "--network", "container:admins", site.image(), "true"]):  # fmt: skip
        refused = site.run(BOB, program, *words)
        assert refused.returncode != 0
        assert "o such" in refused.stderr, (words, refused)
    for words in (["--privileged"], ["-v", "/:/host"], ["--pid", "host"], ["--cap-add", "SYS_ADMIN"]):
        refused = site.run(BOB, program, "run", "--rm", *words, site.image(), "true")
        assert refused.returncode == 125
        assert "with the rights of " in refused.stderr, (words, refused)
    beyond = site.run(BOB, program, "run", "--rm", "--user", "3000000000", site.image(), "true")
    assert beyond.returncode == 125
    assert "is not among the 65536 ids of its range" in beyond.stderr
    assert site.run(BOB, program, "rm", "-f", "shops").returncode == 0
    assert site.run(BOB, program, "volume", "rm", "goods").returncode == 0
    assert root.inspect("admins", "{{.State.Running}}") == "true"


def test_whom_no_rule_names_gets_nothing(site: Site, program: str) -> None:
    for words in (["ps"], ["run", "--rm", site.image(), "true"]):
        refused = site.run(EVE, program, *words)
        assert refused.returncode != 0
        assert f"user {EVE} has no rights on this node" in refused.stderr


def test_over_tls_with_a_certificate(site: Site, program: str) -> None:
    host = site.tls("ci-1")
    docker = Docker(program, site.platform)
    ran = docker(*host, "run", "--rm", "-i", site.image(), "sh", "-c", "cat; echo after; exit 3", stdin="words\n")
    # The end of standard input closes one direction of TLS; what comes after is not lost.
    assert (ran.returncode, ran.stdout) == (3, "words\nafter\n"), ran.stderr
    many = docker(*host, "run", "--rm", site.image(), "sh", "-c", "dd if=/dev/zero bs=64k count=160 2>/dev/null")
    assert len(many.stdout) == 160 * 65536
    refused = docker(*site.tls("stranger"), "ps")
    assert refused.returncode != 0
    assert "certificate stranger has no rights on this node" in refused.stderr


def test_without_a_certificate_of_the_authority_nobody_gets_in(site: Site, program: str) -> None:
    refused = Docker(program, site.platform)(*site.tls("forged"), "ps")
    assert refused.returncode != 0
    assert "CONTAINER ID" not in refused.stdout
    with socket.create_connection(("127.0.0.1", site.port), 5) as plain:
        plain.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
        plain.settimeout(5)
        assert b"HTTP/1.1 200" not in plain.recv(4096)


def test_rules_and_certificates_are_read_again(site: Site) -> None:
    program, rules = str(BIN / "seawall"), site.folder / "access.toml"
    before = rules.read_text()
    try:
        rules.write_text(f"[[rule]]\nuser = {EVE}\nrights = \"read\"\n{before}")
        site.platform.programs["node"].send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while site.run(EVE, program, "ps").returncode and time.monotonic() < deadline:
            time.sleep(0.1)
        assert site.run(EVE, program, "ps").returncode == 0
    finally:
        rules.write_text(before)
        site.platform.programs["node"].send_signal(signal.SIGHUP)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listen", "tcp://0.0.0.0:2375"], "--listen needs --tlscacert, --tlscert, --tlskey"),
        (["--listen", "http://x", "--tlscacert", "a", "--tlscert", "b", "--tlskey", "c"], "want tcp://HOST:PORT"),
        (["--listen", "tcp://127.0.0.1:1", "--tlscacert", "/no", "--tlscert", "/no", "--tlskey", "/no"],
         "the TLS files cannot be used"),
        (["--tlscert", "b"], "TLS files without --listen"),
        (["--group", "no-such-group"], "this host has no group 'no-such-group'"),
        (["--access-rules", "/nonexistent"], "/nonexistent: No such file"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(tmp_path: Path, flags: list[str], message: str) -> None:
    ran = subprocess.run([str(BIN / "seawalld"), "--home", str(tmp_path / "home"), *flags], capture_output=True,
                         text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert message in ran.stderr


@pytest.fixture(scope="module")
def ssh(site: Site) -> Iterator[dict[str, str]]:
    """An sshd on loopback whose users find `docker` and `seawall` to be ours; the environment of its clients."""
    if shutil.which("sshd") is None and not Path("/usr/sbin/sshd").exists():
        lacking("needs openssh-server")
    folder, port = site.folder / "ssh", free_port()
    (folder / "bin").mkdir(parents=True)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    for name in ("docker", "seawall"):
        script = folder / "bin" / name
        script.write_text(f"#!/bin/sh\nSEAWALL_HOST={site.platform.socket} exec {BIN / 'seawall'} \"$@\"\n")
        script.chmod(0o755)
    (folder / "config").write_text(f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
PidFile none
SetEnv PATH={folder}/bin:/usr/bin:/bin
""")
    (folder / "ssh").write_text(f"""#!/bin/sh
exec /usr/bin/ssh -i {folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile={folder}/known "$@"
""")
    (folder / "ssh").chmod(0o755)
    daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "sshd does not start"
                time.sleep(0.05)
        environment = site.platform.environment
        yield environment | {"PATH": f"{folder}:{environment['PATH']}", "DOCKER_HOST": f"ssh://{getpass.getuser()}@127.0.0.1:{port}"}
    finally:
        daemon.terminate()
        daemon.wait(10)


def test_over_ssh(site: Site, program: str, ssh: dict[str, str]) -> None:
    environment = {name: value for name, value in ssh.items() if name != "SEAWALL_HOST"}
    ran = subprocess.run([program, "run", "--rm", "-i", site.image(), "sh", "-c", "cat; exit 4"], input="over ssh",
                         capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (ran.returncode, ran.stdout) == (4, "over ssh"), ran.stderr


def test_contexts_are_shared_with_docker(site: Site, program: str, tmp_path: Path) -> None:
    environment = site.platform.environment | {"DOCKER_CONFIG": str(tmp_path)}
    environment.pop("DOCKER_HOST")
    environment.pop("SEAWALL_HOST")

    def ok(which: str, *words: str) -> str:
        ran = subprocess.run([which, *words], capture_output=True, text=True, timeout=40, check=False, env=environment)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    own, at = str(BIN / "seawall"), site.folder / "ci-1"
    ok(program, "context", "create", "plant", "--description", "The plant", "--docker",
       f"host=tcp://127.0.0.1:{site.port},ca={site.folder}/ca.pem,cert={at}/cert.pem,key={at}/key.pem")  # fmt: skip
    for which in (own, *clients().values()):
        assert "plant" in ok(which, "context", "ls", "--format", "{{.Name}}").split()
        ok(which, "context", "use", "plant")
        assert ok(which, "context", "show").strip() == "plant" if which == own else True
        assert ok(which, "run", "--rm", site.image(), "echo", "there") == "there\n"
        assert ok(which, "--context", "plant", "ps", "-q") == ""
        ok(which, "context", "use", "default")
    ok(own, "context", "rm", "plant")
    assert "plant" not in ok(program, "context", "ls")


def test_a_client_that_says_nothing_in_the_handshake_is_let_go(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 5) as silent:
        silent.settimeout(20)
        assert silent.recv(10) == b""


