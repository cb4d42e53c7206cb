"""Images by an enemy, through a whole node: where their links lead, what their programs are called, who their users are."""

import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.client import DaemonError
from tests.escapes.conftest import Node, add, base, folder, link

pytestmark = pytest.mark.root

RAN = '#!/bin/sh\necho ran > /ran\nexec /bin/busybox "${0##*/}" "$@"\n'
DECOMPRESSORS = ("xz", "unxz", "lzma", "gzip", "gunzip", "unpigz", "pigz", "bzip2", "zstd", "tar", "ps", "mount", "nft")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What lies outside, and must stay as it is."""
    place = tmp_path_factory.mktemp("host")
    (place / "passwd").write_text("hostuser:x:0:0::/:/bin/sh\n")
    (place / "file").write_text("of the host")
    os.chmod(place, 0o777)
    before = seen(place)
    yield place
    assert seen(place) == before


def seen(place: Path) -> dict[str, tuple[int, str]]:
    return {str(path): (path.lstat().st_mode, path.read_text() if path.is_file() else "") for path in place.rglob("*")}


Change = Callable[[tarfile.TarFile], None]


def image(*changes: Change) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        base(tar)
        for change in changes:
            change(tar)
    return out.getvalue()


def trapped(host: Path) -> bytes:
    def change(tar: tarfile.TarFile) -> None:
        for name in ("etc/passwd", "etc/group"):
            link(tar, name, f"{host}/passwd")
        for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
            link(tar, name, f"{host}/{name.rpartition('/')[2]}")
        link(tar, "data", str(host))
        link(tar, "up", f"../../../../../../../..{host}")
        link(tar, "magic", "/proc/1/root")

    return image(change)


@pytest.fixture(scope="module")
def links(node: Node, host: Path) -> str:
    assert not any("error" in line for line in node.load("links", trapped(host)))
    return "links"


def test_the_traps_catch_who_follows_them(host: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(trapped(host))) as tar:
        tar.extractall(tmp_path, filter="fully_trusted")
    assert "hostuser" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "data/file").read_text() == "of the host"


def test_users_are_the_images(node: Node, links: str) -> None:
    """/etc/passwd is a link to a file of the host in which that user is root."""
    with pytest.raises(DaemonError, match="unable to find user hostuser"):
        node.begin(links, "id", User="hostuser")
    made = node.begin(links, "sleep", "60")
    try:
        assert "unable to find user" in node.execute(made, "id", User="hostuser")[1]
    except DaemonError as error:
        assert "unable to find user" in error.message
    node.remove(made)


@pytest.mark.parametrize("user", ["4294967296", "2147483648", "-1", "0x0", "1000:4294967296", "+0", "١"])
def test_no_number_becomes_another(node: Node, user: str) -> None:
    """What overflows or is read by halves would end up as root (CVE-2024-40635)."""
    with pytest.raises(DaemonError, match=r"uids and gids must be|unable to find user"):
        node.begin("prober", "id", User=user)


def test_a_number_is_no_name(node: Node) -> None:
    """CVE-2026-30892: a user whose name is a number, and who is root."""
    tricky = image(lambda tar: add(tar, "etc/passwd", b"1000:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n"))
    node.load("numbers", tricky)
    assert node.run("numbers", "id", "-u", User="1000") == (0, "1000\n")
    made = node.begin("numbers", "sleep", "60")
    assert node.execute(made, "id", "-u", User="1000") == (0, "1000\n")
    node.remove(made)


@pytest.mark.parametrize("place", ["/data/new", "/up/new", "/magic/tmp/new"])
def test_a_working_folder_is_the_images(node: Node, links: str, place: str) -> None:
    try:
        code, text = node.run(links, "pwd", "-P", WorkingDir=place)
    except DaemonError:
        return  # refused is as good; the host's folder is looked at in the end
    assert code == 0
    assert text.strip().endswith("new")


def test_a_volume_is_mounted_inside_and_filled_from_inside(node: Node, links: str, host: Path) -> None:
    """The mount point is a link to a folder of the host; what lies there must not come into the volume either."""
    code, text = node.run(links, "sh", "-c", "touch /data/made; ls /data", host={"Binds": ["trap:/data"]})
    assert (code, text) == (0, "made\n")
    code, text = node.run(links, "sh", "-c", "ls /vol", host={"Binds": ["trap:/vol:ro"]})
    assert (code, text) == (0, "made\n")
    node.client.status("DELETE", "/volumes/trap")
    for kind in ("tmpfs", "bind"):
        mount = {"Type": kind, "Target": "/up/deeper", **({"Source": "/usr/bin"} if kind == "bind" else {})}
        node.run(links, "true", host={"Mounts": [mount]})
    assert not (host / "deeper").exists()


def test_a_part_of_a_volume_leads_nowhere_else(node: Node, links: str, host: Path) -> None:
    """CVE-2017-1002101: the container that has the whole volume puts a link where the other's part is."""
    node.run("prober", "ln", "-s", str(host), "/v/part", host={"Binds": ["parts:/v"]})
    mount = {"Type": "volume", "Source": "parts", "Target": "/p", "VolumeOptions": {"Subpath": "part"}}
    with pytest.raises(DaemonError, match="leads out of it|cannot access path"):
        node.begin("prober", "ls", "/p", host={"Mounts": [mount]})
    node.client.status("DELETE", "/volumes/parts")


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
@pytest.mark.parametrize("target", ["HOST", "../../../../..HOST", "/proc/self/fd", "etc"])
def test_the_runtimes_own_places_are_no_links(node: Node, host: Path, name: str, target: str) -> None:
    """runc CVE-2019-19921, CVE-2023-27561, CVE-2026-41579, crun CVE-2026-47766: refused, or mounted inside the root."""
    text = target.replace("HOST", str(host))
    node.load("places", image(lambda tar: link(tar, name, text)))
    try:
        code, said = node.run("places", "sh", "-c", "stat -c %t:%T /dev/null; cat /proc/sys/kernel/core_pattern > "
                                                    "/dev/null; echo x > /proc/sys/kernel/core_pattern")
    except DaemonError as error:
        assert name in error.message
        return
    assert code != 0 or name == "dev", said
    assert "1:3" in said or name != "dev"


def test_nothing_of_the_image_runs_for_us(node: Node) -> None:
    """CVE-2026-41567: a compressed `docker cp` once ran the container's own decompressor with the host's rights."""
    def change(tar: tarfile.TarFile) -> None:
        for name in DECOMPRESSORS:
            for where in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin"):
                add(tar, f"{where}/{name}", RAN.encode())

    node.load("programs", image(lambda tar: [folder(tar, where) for where in (  # type: ignore[func-returns-value]
        "sbin", "usr", "usr/bin", "usr/sbin", "usr/local", "usr/local/bin")], change))
    made = node.begin("programs", "sleep", "60", Healthcheck={"Test": ["CMD", "true"], "Interval": 10**9})
    packed = lzma.compress(image())
    list(node.client.upload("PUT", f"/containers/{made}/archive", {"path": "/tmp"}, lambda write: write(packed)))
    for path, query in (("archive", {"path": "/etc"}), ("export", {}), ("changes", {}), ("top", {}), ("json", {})):
        for _ in node.client.stream("GET", f"/containers/{made}/{path}", query):
            pass
    node.client.json("POST", "/commit", {"container": made, "repo": "committed"})
    code, text = node.execute(made, "/bin/busybox", "ls", "/ran", "/tmp/etc/passwd")
    assert "/tmp/etc/passwd\n" in text, "the archive did not arrive"
    assert "/ran: No such file" in text
    assert code != 0
    code, text = node.execute(made, "/bin/sh", "-c", "/usr/bin/xz --help; ls /ran")
    assert "/ran\n" in text, "the image's own program would not have left a trace"
    node.remove(made)
    assert not Path("/ran").exists()


ARCHIVES: dict[str, Change] = {
    "dots": lambda tar: add(tar, "../../../../../../HOST/made", b"x"),
    "absolute": lambda tar: add(tar, "/HOST/made", b"x"),
    "through a link": lambda tar: (link(tar, "l", "/HOST"), add(tar, "l/made", b"x")),  # type: ignore[func-returns-value]
    "over a link": lambda tar: (link(tar, "l", "/HOST/file"), add(tar, "l", b"x")),  # type: ignore[func-returns-value]
    "hard link": lambda tar: (add(tar, "h", type=tarfile.LNKTYPE, linkname="/HOST/file"),  # type: ignore[func-returns-value]
                              add(tar, "h", b"x")),
    "hard link by dots": lambda tar: (add(tar, "h", type=tarfile.LNKTYPE, linkname="../../../../..HOST/file"),  # type: ignore[func-returns-value]
                                      add(tar, "h", b"x")),
    "through proc": lambda tar: (link(tar, "p", "/proc/self/root"), add(tar, "p/HOST/made", b"x")),  # type: ignore[func-returns-value]
}


class Renamed(tarfile.TarFile):
    """Puts the host's folder in place of HOST."""

    place = ""

    def addfile(self, tarinfo: tarfile.TarInfo, fileobj: object = None) -> None:
        tarinfo.name = tarinfo.name.replace("/HOST", self.place)
        tarinfo.linkname = tarinfo.linkname.replace("/HOST", self.place).replace("HOST", self.place)
        super().addfile(tarinfo, fileobj)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", sorted(ARCHIVES))
def test_no_archive_leaves_its_root(node: Node, host: Path, case: str) -> None:
    out = io.BytesIO()
    with Renamed.open(fileobj=out, mode="w") as tar:
        assert isinstance(tar, Renamed)
        tar.place = str(host)
        base(tar)
        ARCHIVES[case](tar)
    taken = tried(lambda: node.load("archive", out.getvalue()))
    made = node.create("archive" if taken else "prober", "true")
    tried(lambda: list(node.client.upload("PUT", f"/containers/{made}/archive", {"path": "/"},
                                          lambda write: write(out.getvalue()))))
    node.remove(made)
    assert not (host / "made").exists()


@pytest.mark.parametrize("name", ["../../HOST", "/HOST/file", "a/../../../HOST"])
def test_no_saved_image_names_files_of_the_host(node: Node, host: Path, name: str) -> None:
    """`docker load`: manifest.json says where layers and config lie."""
    out = io.BytesIO()
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, "config.json", config)
        link(tar, "layer.tar", str(host / "file"))
        add(tar, "manifest.json", json.dumps([{
            "Config": "config.json", "RepoTags": ["evil:latest"],
            "Layers": [name.replace("HOST", str(host).lstrip("/")), "layer.tar"]}]).encode())
    assert not tried(lambda: list(node.client.upload("POST", "/images/load", {}, lambda write: write(out.getvalue()))))


def tried(work: Callable[[], list[dict[str, str]]]) -> bool:
    """Whether it was taken; refused must be because of what was asked, not because something broke."""
    try:
        answers = work()
    except DaemonError as error:
        assert error.status < 500, error.message
        return False
    return not any("error" in line for line in answers)
