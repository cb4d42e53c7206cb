"""COPY's choice of files: patterns, exclusions, modes, links, archives, and a digest without times."""

import io
import os
import resource
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.files.errors import Misfit, PathMissing
from node.files.gathering import mode_of
from node.files.trees import Stopped
from node.files.workers import Choice, Workers
from node.images.unpack.pool import UnpackLimits
from node.snapshots.mounts import RootMount

pytestmark = pytest.mark.root
PLAIN = Choice(("/",), "to", folder=True)


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    (tmp_path / "run").mkdir()
    async with Workers(tmp_path / "run", UnpackLimits()) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for folder in ("d/e", "x/y/z", "bin"):
        (top / folder).mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.md", "d/a.txt", "d/e/deep.txt", "x/y/z/end", "bin/tool"):
        (top / name).write_text(name)
    (top / "bin/tool").chmod(0o4755)
    (top / "link").symlink_to("a.txt")
    (top / "dir").symlink_to("/d")
    (top / "out").symlink_to("../../../../../etc")
    with tarfile.open(top / "pack.tar.xz", "w:xz") as pack:
        pack.addfile(tarfile.TarInfo("inside"), io.BytesIO())
    (top / "no.tar.gz").write_bytes(b"\x1f\x8b nothing")
    return top


def at(tree: Path) -> Stopped:
    return Stopped(RootMount("bind", str(tree), ("ro", "rbind")))


async def taken(workers: Workers, tree: Path, choice: Choice) -> dict[str, tarfile.TarInfo]:
    async with workers.gather(at(tree), choice) as stream:
        data = b"".join([chunk async for chunk in stream.chunks()])
        await stream.done()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


@pytest.mark.parametrize(("choice", "names"), [
    (Choice(("a.txt",), "to/b", folder=False), ["to/b"]),
    (Choice(("*.txt",), "to", folder=True), ["to/a.txt", "to/b.txt"]),
    (Choice(("?.md", "d"), "to", folder=True), ["to/a.txt", "to/c.md", "to/e", "to/e/deep.txt"]),
    (Choice(("d", "x/y"), "to", folder=True), ["to", "to/a.txt", "to/e", "to/e/deep.txt", "to/z", "to/z/end"]),
    (Choice(("d",), "to", folder=True, there=True), ["to/a.txt", "to/e", "to/e/deep.txt"]),
    (Choice(("d", "?.txt"), "to", folder=True, there=True, hidden=("a.txt", "d/e")), ["to/a.txt", "to/b.txt"]),
    (Choice(("?.txt",), "to", folder=True, done=("a.txt",)), ["to/b.txt"]),
    (Choice(("[^a]*.txt",), "t", folder=True), ["t/b.txt"]),
    (Choice(("**/*.txt",), "t", folder=True), ["t/a.txt", "t/b.txt", "t/deep.txt"]),
    (Choice(("d/",), "", folder=True), ["a.txt", "e", "e/deep.txt"]),
    (Choice(("x/y/z", "d/a.txt"), "to", folder=True, parents=True), ["to/d/a.txt", "to/x/y/z", "to/x/y/z/end"]),
    (Choice(("x/./y/z/end",), "to", folder=True, parents=True), ["to/y/z/end"]),
    (Choice(("d",), "to", folder=True, exclude=("**/*.txt",)), ["to", "to/e"]),
    (Choice(("link",), "to", folder=True), ["to/link"]),
    (Choice(("dir",), "to", folder=True), ["to", "to/a.txt", "to/e", "to/e/deep.txt"]),
    (Choice(("../../d/../a.txt",), "to", folder=True), ["to/a.txt"]),
])  # fmt: skip
async def test_what_is_taken(workers: Workers, tree: Path, choice: Choice, names: list[str]) -> None:
    assert sorted(await taken(workers, tree, choice)) == names


async def test_a_link_that_is_named_is_followed_inside_and_others_stay(workers: Workers, tree: Path) -> None:
    assert (await taken(workers, tree, Choice(("link",), "t", folder=True)))["t/link"].isreg()
    found = await taken(workers, tree, Choice((".",), "t", folder=True))
    assert found["t/out"].linkname == "../../../../../etc"
    with pytest.raises(PathMissing):
        await taken(workers, tree, Choice(("out/passwd",), "t", folder=True))


async def test_owner_and_mode(workers: Workers, tree: Path) -> None:
    found = await taken(workers, tree, Choice(("bin",), "t", folder=True, owner=(7, 8), mode="u=rw,go=X"))
    assert (found["t/tool"].uid, found["t/tool"].gid, found["t/tool"].mode) == (7, 8, 0o4611)
    assert (found["t"].uid, found["t"].mode) == (7, 0o611)


async def test_more_files_than_descriptors(tmp_path: Path, tree: Path) -> None:
    for number in range(300):
        (tree / f"{number}.n").touch()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "small").mkdir()
    async with Workers(tmp_path / "small", UnpackLimits()) as workers:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, before[1]))
        try:
            found = await taken(workers, tree, Choice(("*.n",), "t", folder=True))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(found) == 300


@pytest.mark.parametrize("choice", [
    Choice(("a.txt",), "t", folder=True, hidden=("a.txt",)),
    Choice(("nothing",), "t", folder=True), Choice(("*.nothing",), "t", folder=True),
    Choice(("a.txt", "gone"), "t", folder=True),
])  # fmt: skip
async def test_what_is_not_there(workers: Workers, tree: Path, choice: Choice) -> None:
    with pytest.raises(PathMissing):
        await taken(workers, tree, choice)


async def test_several_need_a_folder(workers: Workers, tree: Path) -> None:
    with pytest.raises(Misfit, match="more than one source"):
        await taken(workers, tree, Choice(("*.txt",), "t", folder=False))


async def test_the_digest(workers: Workers, tree: Path) -> None:
    """Of names, modes, owners, contents; not of times, nor of where the files go."""
    async def told(choice: Choice = PLAIN) -> str:
        return await workers.digest(at(tree), choice)

    before = await told()
    os.utime(tree / "a.txt", (1, 1))
    assert await told() == before
    seen = {before}
    for change in (lambda: (tree / "a.txt").write_text("else"), lambda: (tree / "b.txt").chmod(0o600),
                   lambda: os.chown(tree / "c.md", 3, 3), lambda: (tree / "d/e/deep.txt").rename(tree / "d/e/other"),
                   lambda: (tree / "link").unlink() or (tree / "link").symlink_to("b.txt"),
                   (tree / "new").mkdir):  # fmt: skip
        change()
        seen.add(await told())
    assert len(seen) == 7
    assert await told(replace(PLAIN, sources=("x",))) != await told(replace(PLAIN, sources=("d",)))


async def test_archives_are_told_by_what_they_hold(workers: Workers, tree: Path) -> None:
    assert await workers.archives(at(tree), Choice(("*",), "t", folder=True)) == ["pack.tar.xz"]


async def test_raw_bytes(workers: Workers, tree: Path) -> None:
    async with workers.raw(at(tree), "/dir/a.txt") as stream:
        assert b"".join([chunk async for chunk in stream.chunks()]) == b"d/a.txt"
    for path in ("/d", "/out/passwd", "/none"):
        with pytest.raises(PathMissing):
            async with workers.raw(at(tree), path) as stream:
                assert [chunk async for chunk in stream.chunks()] == []
                await stream.done()


@pytest.mark.parametrize(("text", "old", "folder", "new"), [
    ("755", 0o600, False, 0o755), ("4711", 0, True, 0o4711), ("u+x", 0o600, False, 0o700), ("a-w", 0o666, False, 0o444),
    ("go=", 0o777, False, 0o700), ("+X", 0o600, True, 0o711), ("+X", 0o600, False, 0o600), ("u+s,g+s", 0o755, False, 0o6755),
    ("+t", 0o777, True, 0o1777), ("u=rwX,go=rX", 0o700, False, 0o755),
])  # fmt: skip
def test_modes(text: str, old: int, folder: bool, new: int) -> None:
    assert mode_of(text)(old, folder) == new


@pytest.mark.parametrize("text", ["9", "12345678", "u", "u+q", "rwx", "u+x;", "77777"])
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(Misfit):
        mode_of(text)
