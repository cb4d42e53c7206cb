"""aiodocker's own tests, unmodified, against a node."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, lacking
from tests.e2e.conftest import Platform

SUITE = CHECKOUT / ".tools" / "aiodocker-0.27.0"
LEFT_OUT: Mapping[str, str] = {
    "test_swarm.py": "swarm", "test_services.py": "swarm", "test_nodes.py": "swarm",
    "test_secrets.py": "swarm", "test_configs.py": "swarm",
    "test_ssh.py": "needs asyncssh",
    "from_remote": "needs the internet",
    "test_prune_images and not without": "builds upon an image of the internet's",
    "prune_builds_default": "wants an empty cache, and others of these build",
    "unreadable": "root reads files of mode 0",
}  # fmt: skip
FILES = sorted(path.name for path in SUITE.glob("tests/test_*.py") if path.name not in LEFT_OUT)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("file", FILES or ["none"])
def test_file(famous: Platform, file: str, tmp_path: Path) -> None:
    if file == "none":
        lacking("needs aiodocker's tests (dev/pytools)")
    environment = famous.environment | {
        "TESTCONTAINERS_RYUK_DISABLED": "true", "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host", "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    left_out = " or ".join(name for name in LEFT_OUT if not name.endswith(".py"))
    words = ["-c", os.devnull, f"--rootdir={SUITE}", "-p", "no:schemathesis", "-p", "no:cacheprovider", "-q", "-rfE",
             "--tb=short", "-W", "ignore", "--timeout=90", "-k", f"not ({left_out})", "-o", "asyncio_mode=auto",
             "-o", "asyncio_default_fixture_loop_scope=session", "-o", "asyncio_default_test_loop_scope=session",
             str(SUITE / "tests" / file)]  # fmt: skip
    ran = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=SUITE, env=environment, capture_output=True,
                         text=True, timeout=380, check=False)
    summary = re.search(r"(\d+) passed", ran.stdout)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-1000:]
    assert summary
