"""The wheel holds all it needs: installed in an empty environment, outside the checkout, it migrates and serves."""

import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment into which only the wheel was installed."""
    home = tmp_path_factory.mktemp("wheel")
    source = home / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    subprocess.run([sys.executable, "-m", "build", "-q", "--wheel", "--outdir", str(home), str(source)],
                   check=True, stdout=subprocess.DEVNULL)
    (wheel,) = home.glob("*.whl")
    venv.create(home / "env")
    # Not compiled: half of the time goes into modules that nothing here imports.
    pip = [sys.executable, "-m", "pip", "--python", str(home / "env/bin/python"), "install", "-q", "--no-compile",
           "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True, cwd=home)
    return home / "env" / "bin"


def run(command: Path, *arguments: str, cwd: Path) -> str:
    result = subprocess.run([str(command), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.timeout(400)
def test_every_console_script_answers(installed: Path, tmp_path: Path) -> None:
    for script in ("seawall", "seawalld", "seawall-registry"):
        assert "Usage" in run(installed / script, "--help", cwd=tmp_path)


def test_the_registry_migrates_and_serves(installed: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(installed / "seawall-registry"), "serve", "--data", str(tmp_path / "data"),
               "--listen", f"127.0.0.1:{port}", "--workers", "1"]
    with subprocess.Popen(command, cwd=tmp_path) as server:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/_catalog") as answer:
                        assert answer.read() == b'{"repositories":[]}'
                    break
                except OSError:
                    assert server.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        finally:
            server.terminate()
            assert server.wait(20) == 0
