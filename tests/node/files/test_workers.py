"""Files workers on real trees: what comes out and goes in, and that nothing of the host is ever met."""

import asyncio
import bz2
import gzip
import io
import lzma
import os
import socket
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zstandard

from node.files.errors import Misfit, NotADirectory, PathMissing, ReadOnly, TooMuch
from node.files.job import Job
from node.files.trees import Bound, Difference, Stopped
from node.files.workers import Extraction, SpooledFile, Workers
from node.images.archive.errors import NotAnArchive
from node.images.archive.spool import Spool
from node.images.unpack.pool import UnpackLimits
from node.snapshots.mounts import RootMount

pytestmark = pytest.mark.root


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    (tmp_path / "scratch").mkdir()
    async with Workers(tmp_path / "scratch", UnpackLimits(max_bytes=64 << 20, max_entries=1000)) as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nann:x:1000:100::/:/bin/sh\n")
    return made


def tree(root: Path, *mounts: Bound, writable: bool = True) -> Stopped:
    return Stopped(RootMount("bind", str(root), ("rbind",)), mounts, writable=writable)


async def body(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at:at + 50_000]


def archive(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                info.mode = 0o640
                tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


async def read(workers: Workers, at: Stopped, path: str) -> dict[str, tarfile.TarInfo]:
    async with workers.read(at, path) as (_, stream):
        data = b"".join([chunk async for chunk in stream.chunks()])
        await stream.done()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


@contextmanager
def untouched(*paths: Path):  # type: ignore[no-untyped-def]
    before = [(path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.read_bytes()) for path in paths]
    yield
    assert before == [(path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.read_bytes()) for path in paths]


async def test_everything_comes_out_as_it_is(workers: Workers, root: Path) -> None:
    long = "n" * 120
    (root / "d").mkdir(mode=0o1777)
    (root / "d").chmod(0o1777)
    (root / "d" / long).write_bytes(b"x" * 3_000_000)
    (root / "d" / "e\u00e9").write_text("umlaut")
    os.link(root / "d" / long, root / "d" / "second")
    os.symlink("/etc/passwd", root / "d" / "link")
    os.mknod(root / "d" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(root / "d" / "fifo")
    os.chown(root / "d" / "second", 70_000, 3_000_000)
    os.setxattr(root / "d" / long, "user.mark", b"\xffvalue")
    found = await read(workers, tree(root), "/d")
    assert found["d"].mode == 0o1777
    first, second = (found[name] for name in (f"d/{long}", "d/second"))
    assert (first.size, first.uid, first.gid) == (3_000_000, 70_000, 3_000_000)
    assert second.islnk()
    assert second.linkname == f"d/{long}"
    assert found["d/link"].linkname == "/etc/passwd"
    assert (found["d/null"].devmajor, found["d/null"].devminor, found["d/null"].type) == (1, 3, tarfile.CHRTYPE)
    assert found["d/fifo"].isfifo()
    assert "d/e\u00e9" in found
    assert found[f"d/{long}"].pax_headers["SCHILY.xattr.user.mark"].encode("utf-8", "surrogateescape") == b"\xffvalue"


async def test_a_path_is_described_as_docker_does(workers: Workers, root: Path) -> None:
    os.symlink("../etc", root / "link")
    os.symlink("/nowhere/../link/gone", root / "dangling")
    stat_of_link = await workers.stat(tree(root), "/link")
    assert (stat_of_link.name, stat_of_link.target) == ("link", "/etc")
    assert stat_of_link.mode == 1 << 27 | 0o777
    assert (await workers.stat(tree(root), "/dangling")).target == "/etc/gone"
    assert (await workers.stat(tree(root), "/link/")).mode == 1 << 31 | 0o755
    assert list(await read(workers, tree(root), "/link")) == ["link"]
    assert set(await read(workers, tree(root), "/link/")) == {"link", "link/passwd"}
    assert set(await read(workers, tree(root), "etc/.")) == {".", "./passwd"}


@pytest.mark.parametrize(("path", "error"), [
    ("/none", PathMissing), ("/etc/passwd/", NotADirectory), ("/none/passwd", PathMissing), ("a\0b", Misfit),
])
async def test_what_is_not_there_is_said(workers: Workers, root: Path, path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await workers.stat(tree(root), path)
    with pytest.raises(error):
        await read(workers, tree(root), path)


@pytest.mark.parametrize("path", ["/up", "/abs", "/abs/", "/abs/passwd", "/up/passwd", "/../../../etc/shadow-of-host",
                                  "/proc/self/root/etc/passwd", "/magic/etc/passwd"])  # fmt: skip
async def test_no_path_leads_to_the_host(workers: Workers, root: Path, tmp_path: Path, path: str) -> None:
    """Links of every kind are resolved inside the tree (CVE-2018-15664): the host's files are never met."""
    (tmp_path / "secret").write_text("of the host")
    (root / "proc").mkdir()
    os.symlink("../" * 20 + str(tmp_path / "secret"), root / "up")
    os.symlink(str(tmp_path), root / "abs")
    os.symlink("/proc/self/root", root / "magic")
    try:
        found = await read(workers, tree(root), path)
    except (PathMissing, NotADirectory):
        return
    assert all(not member.isfile() for member in found.values())


async def test_files_go_in_with_all_they_have(workers: Workers, root: Path) -> None:
    (root / "to").mkdir()
    big = bytes(range(256)) * 20_000
    data = archive(folder("d"), ("d/big", big), link("d/s", "/x"), link("d/h", "d/big", tarfile.LNKTYPE), ("n/e/w", b"1"))
    for packing in (bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress):
        await workers.write(tree(root), "/to", body(packing(data)), Extraction())
        assert (root / "to" / "d" / "big").read_bytes() == big
        assert os.readlink(root / "to" / "d" / "s") == "/x"
        assert (root / "to" / "d" / "h").stat().st_nlink == 2
        assert stat.S_IMODE((root / "to" / "n" / "e" / "w").stat().st_mode) == 0o640


async def test_owner_and_kinds(workers: Workers, root: Path) -> None:
    (root / "to" / "dir").mkdir(parents=True)
    (root / "to" / "file").write_text("1")
    await workers.write(tree(root), "/to", body(archive(folder("sub"), ("sub/x", b""))), Extraction(owner=(7, 8)))
    assert [(one.stat().st_uid, one.stat().st_gid) for one in (root / "to/sub", root / "to/sub/x")] == [(7, 8)] * 2
    with pytest.raises(Misfit, match="cannot overwrite directory .* with non-directory"):
        await workers.write(tree(root), "/to", body(archive(("dir", b""))), Extraction(keep_kinds=True))
    with pytest.raises(Misfit, match="cannot overwrite non-directory .* with directory"):
        await workers.write(tree(root), "/to", body(archive(folder("file"))), Extraction(keep_kinds=True))
    await workers.write(tree(root), "/to", body(archive(("dir", b"now a file"), folder("file"))), Extraction())
    assert (root / "to" / "dir").read_text() == "now a file"
    assert (root / "to" / "file").is_dir()


HOSTILE = {
    "dots": [("../../../escaped", b"x")],
    "inner dots": [("a/../../escaped", b"x")],
    "through a link": [link("l", "/../../../.."), ("l/escaped", b"x")],
    "through an absolute link": [link("l", "OUTSIDE"), ("l/escaped", b"x")],
    "hard link out": [link("h", "../../secret", tarfile.LNKTYPE)],
    "hard link to a link": [link("s", "OUTSIDE/secret"), link("h", "s/.", tarfile.LNKTYPE), ("h", b"overwritten")],
    "over a link": [link("s", "OUTSIDE/secret"), ("s", b"overwritten")],
    "through proc": [link("p", "/proc/self/root"), ("p/escaped", b"x")],
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_no_archive_reaches_the_host(workers: Workers, root: Path, tmp_path: Path, case: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    members = HOSTILE[case]
    for member in members:
        if isinstance(member, tarfile.TarInfo):
            member.linkname = member.linkname.replace("OUTSIDE", str(outside))
    (root / "to").mkdir()
    with untouched(outside / "secret"), suppress(Misfit, PathMissing):
        await workers.write(tree(root), "/to", body(archive(*members)), Extraction())
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not list(tmp_path.glob("escaped"))
    assert not Path("/escaped").exists()


async def test_modules_are_not_loaded_from_the_tree(workers: Workers, root: Path) -> None:
    """CVE-2019-14271: what an image calls lzma.py or libnss must not run in the worker, also with the host's paths."""
    marker = "ran"
    for place in (*filter(None, map(os.path.realpath, os.sys.path)), "/"):  # type: ignore[attr-defined]
        target = root / str(place).lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        for name in ("lzma", "bz2", "zstandard", "stat", "pwd", "encodings/latin_1"):
            (target / name).parent.mkdir(exist_ok=True)
            (target / f"{name}.py").write_text(f"open('/{marker}', 'w')")
    (root / "to").mkdir()
    await workers.write(tree(root), "/to", body(lzma.compress(archive(("x\u00fc", b"1")))), Extraction())
    await read(workers, tree(root), "/to")
    await workers.texts(tree(root), ["/etc/passwd"])
    assert not (root / marker).exists()


async def test_bounds(workers: Workers, root: Path) -> None:
    bomb = gzip.compress(archive(("zeros", bytes(80 << 20))), 9)
    with pytest.raises(TooMuch):
        await workers.write(tree(root), "/", body(bomb), Extraction())
    with pytest.raises(TooMuch):
        await workers.write(tree(root), "/", body(archive(*[(f"f{i}", b"") for i in range(1001)])), Extraction())
    with pytest.raises(Misfit):
        await workers.write(tree(root), "/", body(b"no archive at all" * 100), Extraction())
    with pytest.raises(Misfit):
        await workers.write(tree(root), "/", body(gzip.compress(archive(("x", b"1" * 9999)))[:-40]), Extraction())


async def test_volumes_are_where_they_belong(workers: Workers, root: Path, tmp_path: Path) -> None:
    for name in ("volume", "locked"):
        (tmp_path / name).mkdir()
    (tmp_path / "volume" / "inside").write_text("v")
    os.symlink("/etc", root / "evil")
    bounds = (Bound(str(tmp_path / "volume"), "/new/place"), Bound(str(tmp_path / "locked"), "/locked", read_only=True),
              Bound(str(tmp_path / "volume"), "/evil/deep"), Bound(str(tmp_path / "gone"), "/gone"))  # fmt: skip
    at = tree(root, *bounds)
    await workers.write(at, "/new/place", body(archive(("put", b"1"))), Extraction())
    assert (tmp_path / "volume" / "put").read_bytes() == b"1"
    assert (root / "etc" / "deep").is_dir()
    assert set(await read(workers, tree(root, bounds[0], writable=False), "/new/place")) == {
        "place", "place/inside", "place/put"}  # fmt: skip
    (tmp_path / "volume" / "sub").mkdir()
    (tmp_path / "volume" / "sub" / "x").write_text("1")
    os.symlink("/", tmp_path / "volume" / "up")
    assert set(await read(workers, tree(root, Bound(str(tmp_path / "volume"), "/etc", subpath="sub")), "/etc")) == {
        "etc", "etc/x"}  # fmt: skip
    led = await read(workers, tree(root, Bound(str(tmp_path / "volume"), "/etc", subpath="up/sub")), "/etc")
    assert set(led) == {"etc", "etc/x"}
    with pytest.raises(ReadOnly, match="mounted volume is marked read-only|read-only"):
        await workers.write(at, "/locked", body(archive(("put", b"1"))), Extraction())
    with pytest.raises(PathMissing):
        await workers.stat(tree(root, Bound(str(tmp_path / "volume"), "/unmade"), writable=False), "/unmade")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


async def test_a_tree_that_changes_meanwhile_leads_nowhere(workers: Workers, root: Path, tmp_path: Path) -> None:
    """A directory that is swapped with a link to the host's, all the time (the race of CVE-2018-15664)."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("host")
    (root / "d").mkdir()
    (root / "d" / "f").write_text("mine")
    os.symlink(str(outside), root / "l")
    stop = False

    def swap() -> None:
        while not stop:
            os.rename(root / "d", root / "t")
            os.rename(root / "l", root / "d")
            os.rename(root / "d", root / "l")
            os.rename(root / "t", root / "d")

    swapping = asyncio.ensure_future(asyncio.to_thread(swap))
    try:
        for _ in range(25):
            try:
                async with workers.read(tree(root), "/d/f") as (_, stream):
                    assert b"host" not in b"".join([chunk async for chunk in stream.chunks()])
            except (PathMissing, NotADirectory):
                pass
            with suppress(PathMissing, NotADirectory, Misfit):
                await workers.write(tree(root), "/d", body(archive(("g/h", b"x"))), Extraction())
    finally:
        stop = True
        await swapping
    assert [path.name for path in outside.iterdir()] == ["f"]


async def test_a_reader_that_leaves_ends_the_work(workers: Workers, root: Path) -> None:
    with (root / "big").open("wb") as file:
        file.truncate(200 << 20)
    async with workers.read(tree(root), "/") as (_, stream):
        async for _ in stream.chunks():
            break
    assert (await workers.stat(tree(root), "/big")).size == 200 << 20


def difference(own: Path, below: Path | None, *, whole: bool) -> Difference:
    return Difference(own, RootMount("bind", str(below), ("ro", "rbind")) if below else None, whole)


@pytest.mark.parametrize("whole", [False, True])
async def test_changes_and_their_layer(workers: Workers, tmp_path: Path, whole: bool) -> None:
    below, own = tmp_path / "below", tmp_path / "own"
    for name in ("kept", "gone", "opaque/hidden", "changed", "dir/inner"):
        (below / name).parent.mkdir(parents=True, exist_ok=True)
        (below / name).write_text(name)
    own.mkdir()
    (own / "opaque").mkdir()
    (own / "dir").mkdir()
    (own / "dir" / "fresh").write_text("1")
    (own / "changed").write_text("something longer")
    (own / "new").mkdir()
    (own / "new" / "x").write_text("1")
    for name in ("proc", "etc"):
        (own / name).mkdir()
    (own / "etc" / "hosts").touch()
    if whole:
        os.link(below / "kept", own / "kept")
        os.link(below / "dir" / "inner", own / "dir" / "inner")
    else:
        os.mknod(own / "gone", stat.S_IFCHR, 0)
        os.setxattr(own / "opaque", "trusted.overlay.opaque", b"y")
    found = await workers.changes(difference(own, below, whole=whole))
    assert found == [
        (0, "/changed"), (0, "/dir"), (1, "/dir/fresh"), (1, "/etc"), (2, "/gone"), (1, "/new"), (1, "/new/x"),
        (0, "/opaque"), (2, "/opaque/hidden"),
    ]  # fmt: skip
    async with workers.layer(difference(own, below, whole=whole)) as stream:
        data = b"".join([chunk async for chunk in stream.chunks()])
        told = await stream.packed()
    assert told.size == len(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert names == ["changed", "dir", "dir/fresh", "etc", ".wh.gone", "new", "new/x", "opaque", "opaque/.wh.hidden"]


async def test_spooling_uses_no_name_of_the_archive(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    data = archive(("../../escaped", b"1"), ("/abs", b"22"), link("l", "../x"), folder("d"), ("d/layer.tar", b"333"))
    found = await workers.spool(body(gzip.compress(data)), tmp_path / "spool")
    assert [(one.name, one.kind, one.size) for one in found] == [
        ("../../escaped", "file", 1), ("/abs", "file", 2), ("l", "symlink", 0), ("d/layer.tar", "file", 3)]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == ["0", "1", "4"]
    with pytest.raises(Misfit):
        await workers.spool(body(b"x" * 5000), tmp_path / "spool")


async def test_what_the_daemon_is_told_of_an_archive_is_bounded(tmp_path: Path) -> None:
    """It keeps each name: names of a mebibyte, or millions of members, would fill its memory from a small file."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "spool").mkdir()
    async with Workers(tmp_path / "scratch", UnpackLimits()) as workers:
        with pytest.raises(TooMuch, match="name of more than"):
            await workers.spool(body(gzip.compress(archive(("n" * 100_000, b"x")))), tmp_path / "spool")
        link = tarfile.TarInfo("link")
        link.type = tarfile.SYMTYPE
        many = link.tobuf() * 100_001 + bytes(1024)
        with pytest.raises(TooMuch, match="more than 100000 entries"):
            await workers.spool(body(gzip.compress(many)), tmp_path / "spool")


async def test_more_changes_than_are_listed(
    workers: Workers, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        (root / f"file{number}").touch()
    monkeypatch.setattr("node.files.workers.MAX_CHANGES", 10_000)
    with pytest.raises(TooMuch, match="too much to be listed"):
        await workers.changes(Difference(root, None, whole=True))


async def test_an_archives_documents_are_bounded_together(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b" " * (7 << 20) + b"{}")
    spool = Spool(tmp_path, [SpooledFile("a", "file", file="0", size=(7 << 20) + 2)])
    for _ in range(4):
        assert await spool.document("a") == {}
    with pytest.raises(NotAnArchive, match="manifests and configurations"):
        await spool.document("a")


async def test_a_job_is_over_when_its_end_is_cancelled() -> None:
    """Else its descriptor is closed under who waits for it, and the caller removes a tree that is still worked in."""
    ours, theirs = socket.socketpair()
    closing = asyncio.create_task(Job(ours).close())
    await asyncio.sleep(0.05)
    closing.cancel()
    await asyncio.sleep(0.05)
    assert not closing.done()
    assert ours.fileno() >= 0
    theirs.close()
    await asyncio.wait({closing}, timeout=5)
    assert closing.cancelled()
    assert ours.fileno() == -1
