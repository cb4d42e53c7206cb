"""schemathesis against the administration API: whatever the document allows is answered as the document says."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.registry.test_registry_clients import Server

pytestmark = pytest.mark.e2e

REPOSITORY = "app"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def fill(server: Server) -> str:
    """One image, tagged; gives its digest."""
    config = b"{}"
    status, _, _ = server.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest(config)}", config)
    assert status == 201
    raw = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
                      "config": {"mediaType": CONFIG, "digest": digest(config), "size": 2}}).encode()
    for tag in ("one", "two"):
        status, _, _ = server.ask("PUT", f"/v2/{REPOSITORY}/manifests/{tag}", raw, Content_Type=MANIFEST)
        assert status == 201
    return digest(raw)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "data", "--workers", "1")
    made.start()
    yield made
    assert made.stop() == 0


def test_answers_follow_the_document(server: Server, tmp_path: Path) -> None:
    known = fill(server)
    (tmp_path / "schemathesis.toml").write_text(f"""[parameters]
"path.repository" = "{REPOSITORY}"
"path.reference" = "one"
"path.tag" = "two"
"path.digest" = "{known}"
"body.digest" = "{known}"
""")
    base = f"http://{server.address}/api/v1"
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{base}/openapi.json", "--url", base, "-n", "8",
         "--phases", "coverage,fuzzing", "--checks", "all", "--seed", "1", "--no-color",
         # This registry lets everybody in: that an operation can be had without an account is no fault here. And no
         # schema says all that a pattern or a password has to be.
         "--exclude-checks", "ignored_auth,positive_data_acceptance"],
        cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout.partition("FAILURES")[2][:8000] + done.stderr[-2000:]
    status, _, _ = server.ask("GET", "/v2/")
    assert status == 200
