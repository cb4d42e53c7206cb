"""From a real docker-registry to Seawall: real images pushed there by real clients, imported, pulled here."""

import contextlib
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, lacking

pytestmark = pytest.mark.e2e
COMMAND = str(Path(sys.executable).with_name("seawall-registry"))


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, timeout=120,
                          cwd=cwd)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def serving(*command: object, port: int) -> Iterator[str]:
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
                break
            assert process.poll() is None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def old(tmp_path: Path):
    """`with old() as host`: Debian's docker-registry upon a folder."""
    if shutil.which("docker-registry") is None or shutil.which("skopeo") is None:
        lacking("needs docker-registry and skopeo (Debian packages)")

    @contextlib.contextmanager
    def start() -> Iterator[str]:
        port = free_port()
        settings = tmp_path / "old.yml"
        settings.write_text(f"""
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {tmp_path / "old"}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
""")
        with serving("docker-registry", "serve", settings, port=port) as host:
            yield host

    return start


def fill(host: str, shared: Path, tmp_path: Path) -> None:
    images = shared / "images"

    def push(source: str, name: str, *options: str) -> None:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", *options, source, f"docker://{host}/{name}")

    push(f"oci-archive:{images}/busybox-1.38.0-musl-amd64.oci.tar", "lib/busybox:musl")
    push(f"oci-archive:{images}/busybox-1.38.0-musl-multiarch.oci.tar", "lib/busybox:multi", "--all")
    push(f"docker-archive:{images}/dive-test-docker-image.tar", "tools/dive/docker:latest", "--format=v2s2")
    push(f"oci-archive:{images}/dive-test-oci-zstd-image.tar", "tools/dive:zstd")
    oras = CHECKOUT / ".tools/bin/oras"
    if oras.exists():
        (tmp_path / "note.txt").write_text("an artifact")
        run(oras, "push", "--plain-http", f"{host}/tools/artifact:v1", "note.txt:text/plain", cwd=tmp_path)


def everything(host: str) -> dict[str, str]:
    """Reference → the manifest's bytes, of all that is there."""
    import json

    def ask(path: str):
        with urllib.request.urlopen(f"http://{host}/v2/{path}", timeout=30) as answer:
            return json.loads(answer.read())

    found = {}
    for name in ask("_catalog")["repositories"]:
        for tag in ask(f"{name}/tags/list")["tags"]:
            found[f"{name}:{tag}"] = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/{name}:{tag}")
    return found


@pytest.mark.parametrize("mode", ["--copy", "--in-place"])
def test_everything_is_pulled_from_here_as_it_was_from_there(old, shared, tmp_path, mode):
    data = tmp_path / "data"
    with old() as host:
        fill(host, shared, tmp_path)
        before = everything(host)
    run(COMMAND, "migrate", "--data", data)
    output = run(COMMAND, "import", "distribution", tmp_path / "old", "--data", data, mode)
    assert "; 0 damaged" in output
    assert "0 damaged" in run(COMMAND, "verify", "--data", data)
    port = free_port()
    with serving(COMMAND, "serve", "--data", data, "--listen", f"127.0.0.1:{port}", "--workers", "1",
                 "--insecure-no-auth", port=port) as host:
        assert everything(host) == before
        for number, reference in enumerate(before):
            run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", f"docker://{host}/{reference}",
                f"dir:{tmp_path / str(number)}")
    with old() as host:
        assert everything(host) == before, "the old registry goes on as if nothing had been"
