"""The specification's own conformance suite against a real `seawall-registry`: nothing fails, nothing is left out.

The suite is Go (`dev/gotools` builds it into `.tools/bin`, pinned). Every operation and every kind of data that it can
test is switched on, also what it leaves off by itself (sparse indexes), at the stable version and at `dev`.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import bcrypt
import pytest

from storage.blobs.s3.options import S3Options
from tests.postgres import Postgres
from tests.s3 import ACCESS, SECRET, S3Server

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


def serve(folder: Path, environment: dict[str, str]) -> Generator[str, None, None]:
    """HOST:PORT of a registry with two workers; it ends when the generator is closed."""
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


VERSIONS = pytest.mark.parametrize("version", ["1.1", "dev"])


@pytest.mark.e2e
@VERSIONS
def test_on_disk_and_sqlite(suite: Path, version: str, folder: Path) -> None:
    with contextlib.closing(serve(folder, {})) as serving:
        check(suite, next(serving), version, folder)


@pytest.mark.e2e
@pytest.mark.parametrize(("version", "redirect"), [("dev", False), ("1.1", True)])
async def test_on_s3_and_postgres(suite: Path, version: str, redirect: bool, folder: Path, s3_server: S3Server,
                                  s3_options: S3Options, postgres: Postgres) -> None:
    environment = {
        "SEAWALL_REGISTRY_DATABASE": postgres.url(await postgres.new_database()),
        "SEAWALL_REGISTRY_S3_BUCKET": s3_options.bucket,
        "SEAWALL_REGISTRY_S3_PREFIX": s3_options.prefix, "SEAWALL_REGISTRY_S3_ENDPOINT": s3_server.endpoint,
        "SEAWALL_REGISTRY_S3_REGION": "us-east-1", "SEAWALL_REGISTRY_S3_PATH_STYLE": "true",
        "SEAWALL_REGISTRY_S3_ACCESS_KEY": ACCESS, "SEAWALL_REGISTRY_S3_SECRET_KEY": SECRET,
        "SEAWALL_REGISTRY_S3_REDIRECT": str(redirect).lower()}
    with contextlib.closing(serve(folder, environment)) as serving:
        # The last answer to a blob is the bucket's then, and a presigned URL cannot make it say the digest.
        options = {"OCI_API_BLOBS_DIGEST_HEADER": "false"} if redirect else {}
        await asyncio.to_thread(check, suite, next(serving), version, folder, **options)


@pytest.mark.e2e
@pytest.mark.parametrize("tokens", [True, False])
def test_with_identity(suite: Path, tokens: bool, folder: Path) -> None:
    """Nobody in particular may do nothing; the suite logs in, by token and by name and password."""
    name, password = "ann", "correct horse"
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=5)).decode()
    (folder / "users").write_text(f"{name}:{hashed}\n")
    environment = {
        "SEAWALL_REGISTRY_AUTH_MODE": "htpasswd", "SEAWALL_REGISTRY_AUTH_HTPASSWD": str(folder / "users"),
        "SEAWALL_REGISTRY_AUTH_ADMINS": name, "SEAWALL_REGISTRY_AUTH_TOKEN_SERVER": str(tokens).lower()}
    with contextlib.closing(serve(folder, environment)) as serving:
        registry = next(serving)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://{registry}/v2/{REPOSITORIES[0]}/tags/list")
        check(suite, registry, "dev", folder, OCI_USERNAME=name, OCI_PASSWORD=password)
