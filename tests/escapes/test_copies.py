"""`docker cp` while the container works against it (CVE-2018-15664, CVE-2026-41568, CVE-2026-42306)."""

import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.client import DaemonError
from tests.escapes.conftest import Node, add

pytestmark = pytest.mark.root

TRIES = 15
SWAP = ("cd /w; mkdir d v; echo mine > d/f; ln -s {host} l; echo ready; "
        "while :; do mv d t; mv l d; mv d l; mv t d; done")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "host").mkdir(mode=0o777)
    (tmp_path / "host/f").write_text("of the host")
    yield tmp_path / "host"
    assert [(path.name, path.read_text()) for path in (tmp_path / "host").iterdir()] == [("f", "of the host")]


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            add(tar, name, b"copied")
    return out.getvalue()


def put(node: Node, container: str, path: str, data: bytes) -> None:
    list(node.client.upload("PUT", f"/containers/{container}/archive", {"path": path}, lambda write: write(data)))


def get(node: Node, container: str, path: str) -> bytes:
    return b"".join(node.client.stream("GET", f"/containers/{container}/archive", {"path": path}))


@pytest.mark.parametrize("volume", [False, True])
def test_a_folder_that_is_a_link_every_other_moment(node: Node, host: Path, volume: bool) -> None:
    script = SWAP.format(host=host)
    made = node.begin("prober", "sh", "-c", f"mkdir -p /w; {script}",
                      host={"Binds": ["swapped:/w"]} if volume else {})
    hit = 0
    try:
        for _ in range(TRIES):
            try:
                assert b"of the host" not in get(node, made, "/w/d/f")
                put(node, made, "/w/d", archive("g/h"))
                hit += 1
            except DaemonError as error:
                assert error.status in (400, 404), error.message
    finally:
        node.remove(made)
    assert hit or volume, "no copy ever met the folder"
    if volume:
        node.client.status("DELETE", "/volumes/swapped", {"force": True})


def test_who_looks_a_path_up_twice_is_led_out(host: Path, tmp_path: Path) -> None:
    """The same race against a copy that checks a path and then opens it."""
    work, stop, seen = tmp_path / "w", threading.Event(), set()
    (work / "d").mkdir(parents=True)
    (work / "d/f").write_text("mine")
    (work / "l").symlink_to(host)

    def swap() -> None:
        while not stop.is_set():
            for source, target in (("d", "t"), ("l", "d"), ("d", "l"), ("t", "d")):
                os.rename(work / source, work / target)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(200_000):
            try:
                if not (work / "d").is_symlink():
                    seen.add((work / "d/f").read_text())
            except OSError:
                continue
            if "of the host" in seen:
                break
    finally:
        stop.set()
        thread.join()
    assert "of the host" in seen


def test_a_stopped_containers_volume_behind_a_link(node: Node, host: Path) -> None:
    """The mount points of volumes are made for the copy, too, when the container does not run."""
    made = node.create("prober", "sh", "-c", f"rm -rf /x; ln -s {host} /x", host={"Binds": ["behind:/x/deep"]})
    node.client.json("POST", f"/containers/{made}/start")
    node.client.json("POST", f"/containers/{made}/wait")
    for path in ("/x", "/x/deep"):
        try:
            put(node, made, path, archive("copied"))
        except DaemonError as error:
            assert error.status < 500, error.message
    node.remove(made)
    node.client.status("DELETE", "/volumes/behind", {"force": True})


def test_nothing_of_the_kernels_is_copied(node: Node) -> None:
    """What lies in /proc and /sys has no end, or acts when it is read."""
    made = node.begin("prober", "sleep", "60")
    for path in ("/proc/1/root", "/proc/self/cwd", "/proc/kcore", "/sys/kernel"):
        with pytest.raises(DaemonError) as refused:
            get(node, made, path)
        assert refused.value.status == 404
    node.remove(made)
