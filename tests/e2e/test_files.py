"""cp, diff, export, commit, save, load and import: by both docker commands and by ours, which must agree."""

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.client import DaemonError
from tests.e2e.conftest import BIN, Docker, Platform, clients

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SCRIPT = ("mkdir -p /d/e; echo hi > /d/e/f; ln -s /d/e /l; ln /d/e/f /d/g; echo v > /data/v; echo t > /t/t; "
          "rm /bin/arch; ln -s /etc/shadow /data/evil; echo ready; sleep 1000")  # fmt: skip


@pytest.fixture(params=[*sorted(clients()), "seawall"])
def tool(request: pytest.FixtureRequest, platform: Platform) -> Iterator[Docker]:
    platform.pull()
    made = Docker(clients().get(request.param, str(BIN / "seawall")), platform)
    yield made
    platform.remove_containers()


def box(tool: Docker, name: str = "box", *flags: str) -> str:
    tool.ok("run", "-d", "--name", name, "-v", "/data", "--tmpfs", "/t", *flags, tool.platform.image(), "sh", "-c", SCRIPT)
    deadline = time.monotonic() + 10
    while "ready" not in tool("logs", name).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return name


def raw(tool: Docker, *words: str, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([tool.program, *words], input=data, capture_output=True, timeout=60, check=False,
                          env=tool.platform.environment)  # fmt: skip


def test_copying_out_and_in(tool: Docker, tmp_path: Path) -> None:
    name, out = box(tool), tmp_path / "out"
    out.mkdir()
    tool.ok("cp", f"{name}:/d", str(out))
    tool.ok("cp", f"{name}:/d/.", str(out / "contents"))
    tool.ok("cp", f"{name}:/d/e/f", str(out / "file"))
    tool.ok("cp", f"{name}:/l", str(out / "link"))
    tool.ok("cp", "-L", f"{name}:/l", str(out / "followed"))
    tool.ok("cp", f"{name}:/t/t", str(out))
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [
        "contents", "contents/e", "contents/e/f", "contents/g", "d", "d/e", "d/e/f", "d/g", "file", "followed",
        "followed/f", "link", "t",
    ]  # fmt: skip
    assert (out / "d/g").samefile(out / "d/e/f")
    assert os.readlink(out / "link") == "/d/e"
    (out / "link").unlink()
    tool.ok("cp", str(out), f"{name}:/data")
    tool.ok("cp", str(out / "file"), f"{name}:/l/renamed")
    assert tool.ok("exec", name, "cat", "/data/out/d/e/f", "/d/e/renamed") == "hi\nhi\n"
    for words, text in (
        ((f"{name}:/none", "."), "Could not find the file /none"),
        ((f"{name}:/proc/self/root", str(out)), "Could not find the file"),
        ((str(out / "file"), f"{name}:/no/such/x"), "Could not find the file /no"),
        ((str(out), f"{name}:/d/g"), "cannot"),
        ((f"{name}:/d", str(out / "file")), "cannot copy directory"),
    ):
        result = tool("cp", *words)
        assert result.returncode != 0
        # Docker 20's command has words of its own for a 404.
        assert text.lower() in result.stderr.lower() or "No such container:path" in result.stderr


def test_a_stopped_container_and_its_volumes(tool: Docker, tmp_path: Path) -> None:
    name = box(tool)
    tool.ok("stop", "-t", "0", name)
    (tmp_path / "in").write_text("put")
    tool.ok("cp", str(tmp_path / "in"), f"{name}:/data/")
    tool.ok("cp", str(tmp_path / "in"), f"{name}:/new")
    result = raw(tool, "cp", f"{name}:/data", "-")
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        assert sorted(tar.getnames()) == ["data", "data/evil", "data/in", "data/v"]
    # A link to the host's /etc/shadow is the container's own /etc/shadow.
    host = Path("/etc/shadow").read_bytes()
    inside = raw(tool, "cp", "-L", f"{name}:/data/evil", "-").stdout
    assert host not in inside
    tool.ok("start", name)
    assert tool.ok("exec", name, "cat", "/new", "/data/in") == "putput"
    assert tool.platform.home.name not in Path("/proc/mounts").read_text()


def test_what_may_not_be_written(tool: Docker, tmp_path: Path) -> None:
    image = tool.platform.image()
    tool.ok("run", "-d", "--name", "ro", "--read-only", "-v", f"{tmp_path}:/b:ro", "-v", "/rw", image, "sleep", "1000")
    (tmp_path / "x").write_text("1")
    for running in (True, False):
        if not running:
            tool.ok("stop", "-t", "0", "ro")
        assert "container rootfs is marked read-only" in tool("cp", str(tmp_path / "x"), "ro:/etc/x").stderr
        assert "mounted volume is marked read-only" in tool("cp", str(tmp_path / "x"), "ro:/b/y").stderr
        tool.ok("cp", str(tmp_path / "x"), "ro:/rw/x")
    assert os.listdir(tmp_path) == ["x"]


def test_diff_and_export(tool: Docker) -> None:
    name = box(tool)
    assert tool.ok("diff", name).splitlines() == [
        "C /bin", "D /bin/arch", "A /d", "A /d/e", "A /d/e/f", "A /d/g", "A /data", "A /l", "A /t"]  # fmt: skip
    result = raw(tool, "export", name)
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        names = tar.getnames()
    assert {"d/e/f", "l", "bin/sh"} <= set(names)
    assert "bin/arch" not in names
    assert not [one for one in names if one.startswith(("data/", "t/", "proc/", "sys/"))]
    assert tool("diff", "nobody").returncode == 1
    assert tool("export", "nobody").returncode == 1


def test_commit_and_what_it_makes(tool: Docker) -> None:
    name = box(tool)
    image = tool.ok("commit", "-m", "why", "-a", "who", "-c", 'CMD ["cat","/d/e/f"]', "-c", "ENV A=1 B='2 3'",
                    "-c", "LABEL l=m", name, "mine:1").strip()  # fmt: skip
    try:
        assert tool.ok("run", "--rm", "mine:1") == "hi\n"
        assert tool.ok("run", "--rm", "mine:1", "sh", "-c", "echo $A $B; ls /bin/arch 2>&1; true").startswith("1 2 3\nls:")
        found = json.loads(tool.ok("image", "inspect", "mine:1"))[0]
        assert (found["Id"], found["Author"], found["Comment"]) == (image, "who", "why")
        assert found["Config"]["Labels"] == {"l": "m"}
        assert tool.ok("inspect", "-f", "{{.State.Status}}", name).strip() == "running"
        assert "why" in tool.ok("history", "mine:1")
        bare = tool.ok("commit", "--pause=false", name).strip()
        assert "<none>" in tool.ok("images")
        tool.ok("tag", bare, "named:1")
        assert "Deleted" in tool.ok("rmi", "named:1")
        assert tool("commit", "-c", "RUN ls", name).returncode != 0
        assert tool("commit", "nobody").returncode != 0
    finally:
        tool("rmi", "-f", "mine:1")


def test_save_and_load(tool: Docker, tmp_path: Path) -> None:
    base = tool.platform.image()
    tool.ok("tag", base, "one:1")
    tool.ok("tag", base, "one:2")
    before = tool.inspect("one:1", "{{.Id}}")
    tool.ok("save", "-o", str(tmp_path / "a.tar"), "one", base)
    tool.ok("rmi", "one:1", "one:2")
    said = tool.ok("load", "-i", str(tmp_path / "a.tar"))
    assert [line for line in said.splitlines() if line.startswith("Loaded")] == [
        "Loaded image: one:1", "Loaded image: one:2", f"Loaded image: {base}:latest"] or "one:2" in said  # fmt: skip
    assert tool.inspect("one:2", "{{.Id}}") == before
    assert tool.ok("run", "--rm", "one:1", "echo", "x") == "x\n"
    skopeo = subprocess.run(["skopeo", "inspect", f"docker-archive:{tmp_path}/a.tar:one:1"], capture_output=True, check=False)
    assert skopeo.returncode == 0, skopeo.stderr
    tool.ok("rmi", "one:1", "one:2")
    packed = subprocess.run(["xz", "-c", "-1", str(tmp_path / "a.tar")], capture_output=True, check=True).stdout
    assert b"one:1" in raw(tool, "load", "-q", data=packed).stdout
    tool.ok("rmi", "one:1", "one:2")
    assert tool("save", "-o", str(tmp_path / "b.tar"), "nothere:1").returncode != 0
    assert not (tmp_path / "b.tar").exists()


def test_import_and_export_are_inverse(tool: Docker, shared: Path) -> None:
    rootfs = shared / "images" / "alpine-minirootfs-3.20.3-x86_64.tar.gz"
    tool.ok("import", "-m", "from a tar", "-c", 'CMD ["cat", "/etc/alpine-release"]', str(rootfs), "alp:1")
    assert tool.ok("run", "--rm", "alp:1") == "3.20.3\n"
    tool.ok("rmi", "alp:1")
    assert raw(tool, "import", "-", data=b"no tar" * 200).returncode != 0


ARCHIVES = {
    "dive-test-docker-image.tar": "dive-test:latest", "fanal-alpine-311.tar.gz": "alpine:3.11",
    "dive-test-oci-zstd-image.tar": "", "dive-test-oci-uncompressed-image.tar": "",
    "busybox-1.38.0-musl-multiarch.oci.tar": "busybox:musl", "ggcr-mutate-whiteout_image.tar": "whiteout_image",
}  # fmt: skip


@pytest.mark.parametrize("file", ARCHIVES)
def test_archives_of_others(seawall: Docker, shared: Path, file: str) -> None:
    assert ARCHIVES[file] in seawall.ok("load", "-i", str(shared / "images" / file))


def layered(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_archives_that_lie(seawall: Docker) -> None:
    layer = layered({"f": b"1"})
    wrong = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["liar:1"], "Layers": ["../../etc/passwd"]}]).encode()
    before = seawall.ok("images", "-a", "-q")
    for files in (
        {"manifest.json": manifest, "c.json": wrong, "etc/passwd": layer},
        {"manifest.json": manifest, "c.json": wrong},
        {"manifest.json": b'[{"Config": 1}]'},
        {"manifest.json": b"[" * 100_000},
        {"oci-layout": b"{}", "index.json": b'{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"b","size":1}]}'},
        {"repositories": b'{"a": {"b": "x"}}', "x/json": b'{"parent": "x"}', "x/layer.tar": layer},
        {"nothing": b""},
    ):
        result = raw(seawall, "load", data=layered(files))
        assert result.returncode != 0, files
    assert seawall.ok("images", "-a", "-q") == before


def test_a_legacy_archive(seawall: Docker) -> None:
    """As Docker wrote them before 1.10."""
    files = {
        "repositories": b'{"old/one": {"1": "bb"}}',
        "aa/json": b'{"id": "aa", "created": "2014-01-01T00:00:00Z", "container_config": {"Cmd": ["/bin/sh", "-c", "x"]}}',
        "aa/VERSION": b"1.0", "aa/layer.tar": layered({"below": b"1"}),
        "bb/json": b'{"id": "bb", "parent": "aa", "architecture": "amd64", "os": "linux", "config": {"Env": ["A=1"]}}',
        "bb/layer.tar": layered({"above": b"2"}),
    }  # fmt: skip
    assert b"Loaded image: old/one:1" in raw(seawall, "load", data=layered(files)).stdout
    image = json.loads(seawall.ok("image", "inspect", "old/one:1"))[0]
    assert (len(image["RootFS"]["Layers"]), image["Config"]["Env"]) == (2, ["A=1"])
    seawall.ok("rmi", "old/one:1")


def test_a_killed_daemon_leaves_nothing_of_an_import(seawall: Docker, tmp_path: Path) -> None:
    platform = seawall.platform
    with (tmp_path / "big").open("wb") as file:
        file.write(layered({"x": os.urandom(4_000_000)})[:-1024])
    child = seawall.start("import", "-", "half:1")
    assert child.stdin is not None
    child.stdin.buffer.write((tmp_path / "big").read_bytes())
    child.stdin.flush()
    time.sleep(0.5)
    platform.kill_node(signal.SIGKILL)
    child.kill()
    child.communicate()
    platform.start_node()
    with pytest.raises(DaemonError):
        platform.client.json("GET", "/images/half:1/json")
    home = platform.home / "node"
    assert not list((home / "run").glob("archives/*"))
    left = subprocess.run(["pgrep", "-f", "node.files.worker"], capture_output=True, text=True, check=False).stdout.split()
    assert all(str(platform.home) not in Path(f"/proc/{pid}/cmdline").read_text() for pid in left)
