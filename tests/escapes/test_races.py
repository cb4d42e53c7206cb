"""CVE-2021-30465: while mount points are made in a volume, a container that has it too swaps folders for links."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from node.client import DaemonError
from tests.conftest import WaitFor
from tests.escapes.conftest import Node

pytestmark = pytest.mark.root

STARTS = 6
SWAP = ("cd /v; mkdir d; ln -s {host} l; echo ready; "
        "while :; do mv d t; mv l d; mv d l; mv t d; done")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "host").mkdir(mode=0o777)
    yield tmp_path / "host"
    assert list((tmp_path / "host").iterdir()) == [], "a mount point was made on the host"


@pytest.mark.parametrize("kind", ["tmpfs", "volume"])
def test_mount_points_in_a_volume_that_changes(node: Node, host: Path, wait_for: WaitFor, kind: str) -> None:
    enemy = node.begin("prober", "sh", "-c", SWAP.format(host=host), host={"Binds": ["raced:/v"]})
    wait_for(lambda: "ready" in node.logs(enemy))
    below = {"Type": kind, "Target": "/v/d/new", **({"Source": "other"} if kind == "volume" else {})}
    started = 0
    for _ in range(STARTS):
        with suppress(DaemonError):
            _, said = node.run("prober", "sh", "-c", "grep -c /new /proc/self/mountinfo; ls /v/d/new",
                                  host={"Binds": ["raced:/v"], "Mounts": [below]})
            assert said.startswith("1\n"), said
            started += 1
    node.remove(enemy)
    for name in ("raced", "other"):
        node.client.status("DELETE", f"/volumes/{name}", {"force": True})
    assert started, "no container ever started: the race was not run"
