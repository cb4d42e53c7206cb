"""Volumes: names, rows and folders that agree whatever is interrupted, and the first fill from an image."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.snapshots.mounts import RootMount
from node.state.database import State, open_state
from node.state.volumes import VolumeRow, VolumeRows
from node.volumes.filling import MARKER
from node.volumes.store import InvalidVolumeName, NoSuchVolume, VolumeInUse, Volumes, _tombstone, open_volumes
from ocispec.errors import Unimplemented


@dataclass
class At:
    source: str
    target: str


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with open_state(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
async def volumes(tmp_path: Path, state: State) -> AsyncIterator[Volumes]:
    async with open_volumes(tmp_path / "volumes", state) as opened:
        yield opened


def image(tmp_path: Path) -> RootMount:
    """A root file system with something at /data."""
    data = tmp_path / "image" / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "file").write_text("from the image")
    os.link(data / "sub" / "file", data / "again")
    (data / "way out").symlink_to("/etc/passwd")
    if os.geteuid() == 0:
        os.chown(data / "sub" / "file", 33, 44)
        os.setxattr(data / "sub", "trusted.mark", b"kept")
        os.chown(data, 1000, 1000)
    (data / "sub" / "file").chmod(0o6755)
    data.chmod(0o1777)
    return RootMount("bind", str(tmp_path / "image"), ("rw", "rbind"))


async def test_a_volume_is_open_to_every_user_whatever_the_daemons_umask(volumes: Volumes) -> None:
    before = os.umask(0o077)
    try:
        volume = await volumes.create("data", {"a": "b"}, {})
    finally:
        os.umask(before)
    folder = Path(volume.mountpoint)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert folder.parent.stat().st_mode & 0o001
    assert await volumes.inspect("data") == volume
    assert volume.labels == {"a": "b"}


async def test_a_name_gives_the_same_volume_and_no_name_a_new_one(volumes: Volumes) -> None:
    first = await volumes.create("data", {"a": "1"}, {})
    assert await volumes.create("data", {"a": "2"}, {}) == first
    one, other = await volumes.create(None, {}, {}), await volumes.create("", {}, {})
    assert one.name != other.name
    assert len(one.name) == 64
    assert [volume.name for volume in await volumes.list()] == sorted(["data", one.name, other.name])


@pytest.mark.parametrize("name", ["a", "..", "../x", "a/b", ".hidden", "-x", "x" * 256, "a\n", "a b", "ü1", "/abs"])
async def test_bad_names_are_refused_and_leave_nothing(tmp_path: Path, volumes: Volumes, name: str) -> None:
    with pytest.raises(InvalidVolumeName):
        await volumes.create(name, {}, {})
    with pytest.raises(InvalidVolumeName):
        volumes.path(name)
    assert list((tmp_path / "volumes").iterdir()) == []


async def test_driver_options_are_refused_by_name(volumes: Volumes) -> None:
    with pytest.raises(Unimplemented, match=r"volume options \(device, type\)"):
        await volumes.create("data", {}, {"type": "nfs", "device": ":/x"})


async def test_removal_respects_use_and_leaves_nothing(tmp_path: Path, volumes: Volumes) -> None:
    volume = await volumes.create("data", {}, {})
    Path(volume.mountpoint, "file").write_text("x")
    with pytest.raises(VolumeInUse, match="remove data: volume is in use"):
        await volumes.remove("data", in_use=["data"])
    await volumes.remove("data")
    with pytest.raises(NoSuchVolume, match="get data: no such volume"):
        await volumes.remove("data")
    await volumes.remove("data", force=True)
    assert list((tmp_path / "volumes").iterdir()) == []
    again = await volumes.create("data", {}, {})
    assert list(Path(again.mountpoint).iterdir()) == []


async def test_removing_and_making_the_same_name_at_once_never_shows_the_old_bytes(volumes: Volumes) -> None:
    for _ in range(10):
        volume = await volumes.create("data", {}, {})
        for number in range(50):
            Path(volume.mountpoint, f"{number}").write_text("old")
        await asyncio.gather(volumes.remove("data"), volumes.create("data", {}, {}))
        again = await volumes.create("data", {}, {})
        assert list(Path(again.mountpoint).iterdir()) == []
        await volumes.remove("data")


async def test_a_removal_whose_caller_left_is_finished(tmp_path: Path, volumes: Volumes) -> None:
    volume = await volumes.create("data", {}, {})
    for number in range(500):
        Path(volume.mountpoint, f"{number}").touch()
    task = asyncio.create_task(volumes.remove("data"))
    while any(row.name == "data" for row in await volumes.list()):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await volumes.finished()
    assert list((tmp_path / "volumes").iterdir()) == []


async def test_start_clears_what_an_interrupted_removal_or_creation_left(tmp_path: Path, state: State) -> None:
    root = tmp_path / "volumes"
    (root / f"{_tombstone('gone')}0123" / "_data" / "sub").mkdir(parents=True)
    (root / "unborn" / "_data").mkdir(parents=True)
    (root / "lost+found").mkdir()
    async with open_volumes(root, state) as volumes:
        assert await volumes.list() == []
        assert [folder.name for folder in root.iterdir()] == ["lost+found"]


async def test_data_without_a_row_is_kept_and_a_row_without_a_folder_gets_one(tmp_path: Path, state: State) -> None:
    root = tmp_path / "volumes"
    (root / "precious" / "_data").mkdir(parents=True)
    (root / "precious" / "_data" / "database").write_text("years of work")
    await VolumeRows(state).add(VolumeRow("bare", "2026-01-01T00:00:00Z", {}))
    async with open_volumes(root, state) as volumes:
        assert [volume.name for volume in await volumes.list()] == ["bare", "precious"]
        assert Path((await volumes.inspect("precious")).mountpoint, "database").read_text() == "years of work"
        assert Path((await volumes.inspect("bare")).mountpoint).is_dir()
    async with open_volumes(root, state) as volumes:
        assert len(await volumes.list()) == 2


async def test_a_removal_cut_short_between_folder_and_row_is_finished(tmp_path: Path, state: State) -> None:
    root = tmp_path / "volumes"
    async with open_volumes(root, state) as volumes:
        row = VolumeRow((await volumes.create("data", {}, {})).name, "2026-01-01T00:00:00Z", {})
        aside = root / f"{_tombstone('data')}0"
        (root / row.name).rename(aside)
    async with open_volumes(root, state) as volumes:
        assert await volumes.list() == []
        assert list(root.iterdir()) == []


@pytest.mark.root
async def test_an_empty_volume_takes_over_the_image_with_owners_modes_links_and_xattrs(
    tmp_path: Path, volumes: Volumes
) -> None:
    root = image(tmp_path)
    volume = await volumes.create("data", {}, {})
    await volumes.fill(root, [At(volume.mountpoint, "/data")])
    folder = Path(volume.mountpoint)
    file = (folder / "sub" / "file").stat()
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode), file.st_nlink) == (33, 44, 0o6755, 2)
    assert (folder / "again").stat().st_ino == file.st_ino
    assert (folder / "way out").readlink() == Path("/etc/passwd")
    assert os.getxattr(folder / "sub", "trusted.mark") == b"kept"
    top = folder.stat()
    assert (top.st_uid, stat.S_IMODE(top.st_mode)) == (1000, 0o1777)
    assert os.listdir(tmp_path / "run") == []
    assert not folder.with_name(MARKER).exists()


@pytest.mark.root
async def test_a_volume_that_holds_something_is_left_alone(tmp_path: Path, volumes: Volumes) -> None:
    root = image(tmp_path)
    volume = await volumes.create("data", {}, {})
    Path(volume.mountpoint, "mine").write_text("x")
    await volumes.fill(root, [At(volume.mountpoint, "/data")])
    assert os.listdir(volume.mountpoint) == ["mine"]


@pytest.mark.root
async def test_two_containers_fill_one_volume_at_once(tmp_path: Path, volumes: Volumes) -> None:
    root = image(tmp_path)
    for number in range(200):
        (tmp_path / "image" / "data" / f"{number}").write_text("x" * 100)
    volume = await volumes.create("data", {}, {})
    await asyncio.gather(*(volumes.fill(root, [At(volume.mountpoint, "/data")]) for _ in range(4)))
    assert len(os.listdir(volume.mountpoint)) == 203


@pytest.mark.root
async def test_a_fill_that_was_cut_short_is_done_again(tmp_path: Path, volumes: Volumes) -> None:
    root = image(tmp_path)
    volume = await volumes.create("data", {}, {})
    folder = Path(volume.mountpoint)
    folder.with_name(MARKER).touch()
    (folder / "sub").mkdir()
    (folder / "sub" / "half").write_text("half")
    await volumes.fill(root, [At(volume.mountpoint, "/data")])
    assert sorted(os.listdir(folder)) == ["again", "sub", "way out"]
    assert os.listdir(folder / "sub") == ["file"]


@pytest.mark.root
@pytest.mark.parametrize("link", ["/outside", "../../../../../outside", "/proc/self/root/outside"])
async def test_a_link_in_the_image_does_not_lead_out_of_it(tmp_path: Path, volumes: Volumes, link: str) -> None:
    """Resolved from the host's root it would find the secret; from the image's root it finds nothing."""
    root = image(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("the host's")
    target = link.replace("outside", str(outside).lstrip("/"))
    (tmp_path / "image" / "trap").symlink_to(target)
    volume = await volumes.create("data", {}, {})
    try:
        await volumes.fill(root, [At(volume.mountpoint, "/trap")])
    except OSError as error:
        assert "ELOOP" in str(error) or "symbolic" in str(error) or "cross" in str(error).lower()
    assert os.listdir(volume.mountpoint) == []


@pytest.mark.root
@pytest.mark.parametrize("target", ["/nothing/here", "/data/sub/file"])
async def test_a_place_the_image_lacks_or_that_is_a_file_leaves_the_volume_empty(
    tmp_path: Path, volumes: Volumes, target: str
) -> None:
    root = image(tmp_path)
    volume = await volumes.create("data", {}, {})
    await volumes.fill(root, [At(volume.mountpoint, target)])
    assert os.listdir(volume.mountpoint) == []
    assert stat.S_IMODE(Path(volume.mountpoint).stat().st_mode) == 0o755


@pytest.mark.root
async def test_a_root_that_cannot_be_mounted_leaves_no_trace(tmp_path: Path, volumes: Volumes) -> None:
    volume = await volumes.create("data", {}, {})
    with pytest.raises(OSError):
        await volumes.fill(RootMount("bind", str(tmp_path / "absent"), ("rw",)), [At(volume.mountpoint, "/data")])
    assert os.listdir(tmp_path / "run") == []
    assert os.listdir(volume.mountpoint) == []
