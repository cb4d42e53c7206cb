"""The specification's own conformance suite against a real `seawall-registry`: nothing fails, nothing is left out.

The suite is Go (`dev/gotools` builds it into `.tools/bin`, pinned). Every operation and every kind of data that it can
test is switched on, also what it leaves off by itself (sparse indexes), at the stable version and at `dev`.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPOSITORIES = ("conformance/one", "conformance/two")
LEAST = 1000
"""Checks that the pinned suite has at least, so that a suite which silently tests nothing does not pass."""

APIS = ("PING", "PULL", "PUSH", "BLOBS_ATOMIC", "BLOBS_DELETE", "BLOBS_DIGEST_HEADER", "BLOBS_MOUNT_ANONYMOUS",
        "BLOBS_UPLOAD_CANCEL", "MANIFESTS_ATOMIC", "MANIFESTS_DELETE", "MANIFESTS_DIGEST_HEADER",
        "MANIFESTS_TAG_PARAM", "TAGS_ATOMIC", "TAGS_DELETE", "TAGS_LIST", "REFERRER")
DATA = ("IMAGE", "INDEX", "INDEX_LIST", "SPARSE", "ARTIFACT", "SUBJECT", "SUBJECT_MISSING", "ARTIFACT_LIST",
        "SUBJECT_LIST", "DATA_FIELD", "NONDISTRIBUTABLE", "CUSTOM_FIELDS", "NO_LAYERS", "EMPTY_BLOB", "SHA512")


@pytest.fixture(scope="session")
def suite() -> Path:
    found = shutil.which("conformance", path=f"{ROOT / '.tools/bin'}:{os.environ.get('PATH', '')}")
    if found is None:
        reason = "needs the OCI conformance suite (dev/gotools)"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return Path(found)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: the suite waits for thousands of small writes to be durable."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as made:
        yield Path(made)


@pytest.fixture
def registry(folder: Path) -> Iterator[str]:
    """HOST:PORT of a registry with two workers, upon a folder and SQLite."""
    yield from serve(folder, {})


def serve(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    command = [Path(sys.executable).with_name("seawall-registry"), "serve", "--data", folder / "data",
               "--listen", "127.0.0.1:0", "--workers", "2"]
    settings = {"SEAWALL_REGISTRY_MANIFESTS_REQUIRE_PLATFORMS": "none",
                "SEAWALL_REGISTRY_MANIFESTS_REQUIRE_LAYERS": "false", **environment}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE,
                                   stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listens on" in line, (folder / "log").read_text()
        yield line.split("://")[1].split(" ")[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def check(suite: Path, registry: str, version: str, folder: Path, **options: str) -> None:
    environment = {
        "PATH": os.defpath, "OCI_REGISTRY": registry, "OCI_TLS": "disabled", "OCI_VERSION": version,
        "OCI_REPO1": REPOSITORIES[0], "OCI_REPO2": REPOSITORIES[1], "OCI_RESULTS_DIR": str(folder / "results"),
        **{f"OCI_API_{name}": "true" for name in APIS}, **{f"OCI_DATA_{name}": "true" for name in DATA}, **options}
    ended = subprocess.run([suite], check=False, env=environment, cwd=folder, capture_output=True, text=True,
                           timeout=150)
    report = ET.parse(folder / "results/junit.xml").getroot()
    cases = report.findall(".//testcase")
    others = [f"{case.get('name')}: {case.get('status')}" for case in cases if case.get("status") != "passed"]
    assert not others, "\n".join(others)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert int(report.attrib["tests"]) >= LEAST
    assert {name: report.get(name, "0") for name in ("failures", "errors", "skipped", "disabled")} == {
        "failures": "0", "errors": "0", "skipped": "0", "disabled": "0"}
    told = Counter(line.rsplit(":", 1)[1].strip() for line in _conformance(ended.stdout))
    assert set(told) == {"Pass"}, told


def _conformance(output: str) -> list[str]:
    """The lines that sum up an operation or a kind of data."""
    lines = output[output.index("API conformance:"):].splitlines()
    return [line for line in lines if line.startswith("  ") and ":" in line]


@pytest.mark.e2e
@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_on_disk_and_sqlite(suite: Path, registry: str, version: str, folder: Path) -> None:
    check(suite, registry, version, folder)
