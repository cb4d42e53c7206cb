"""Volumes: names, rows and folders that agree whatever is interrupted, and the first fill from an image."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.events import EventBus
from node.linux import mounts
from node.snapshots.mounts import RootMount
from node.state.database import State, open_state
from node.state.volumes import VolumeRow, VolumeRows
from node.volumes.errors import CannotMountVolume, InvalidVolumeName, InvalidVolumeOptions, NoSuchVolume, VolumeInUse
from node.volumes.filling import MARKER
from node.volumes.opening import open_volumes
from node.volumes.options import backing, data_of
from node.volumes.store import ANONYMOUS, Volumes, tombstone


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
    async with open_volumes(tmp_path / "volumes", state, EventBus()) as opened:
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


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mountpoint": "/x"}, 'invalid option: "mountpoint"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "/x"}, 'missing required option: "type"'),
        ({"o": "ro"}, 'missing required option: "device"'),
        ({"size": "10m"}, "quota size requested but no quota support"),
        ({"type": "none", "device": "relative", "o": "bind"}, "must be absolute"),
        ({"type": "cifs", "device": "//host:445/share"}, "port not allowed in CIFS device URL"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "x" * 5000}, "longer than"),
    ],
)
async def test_options_that_cannot_be(tmp_path: Path, volumes: Volumes, options: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidVolumeOptions, match=text):
        await volumes.create("data", {}, options)
    assert list((tmp_path / "volumes").iterdir()) == []


async def test_removal_respects_use_and_leaves_nothing(tmp_path: Path, volumes: Volumes) -> None:
    volume = await volumes.create("data", {}, {})
    Path(volume.mountpoint, "file").write_text("x")
    with pytest.raises(VolumeInUse, match=r"remove data: volume is in use - \[data\]"):
        await volumes.remove("data", users=lambda name: [name])
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
    (root / f"{tombstone('gone')}0123" / "_data" / "sub").mkdir(parents=True)
    (root / "unborn" / "_data").mkdir(parents=True)
    (root / "lost+found").mkdir()
    async with open_volumes(root, state, EventBus()) as volumes:
        assert await volumes.list() == []
        assert [folder.name for folder in root.iterdir()] == ["lost+found"]


async def test_data_without_a_row_is_kept_and_a_row_without_a_folder_gets_one(tmp_path: Path, state: State) -> None:
    root = tmp_path / "volumes"
    (root / "precious" / "_data").mkdir(parents=True)
    (root / "precious" / "_data" / "database").write_text("years of work")
    await VolumeRows(state).add(VolumeRow("bare", "2026-01-01T00:00:00Z", {}))
    async with open_volumes(root, state, EventBus()) as volumes:
        assert [volume.name for volume in await volumes.list()] == ["bare", "precious"]
        assert Path((await volumes.inspect("precious")).mountpoint, "database").read_text() == "years of work"
        assert Path((await volumes.inspect("bare")).mountpoint).is_dir()
    async with open_volumes(root, state, EventBus()) as volumes:
        assert len(await volumes.list()) == 2


async def test_a_removal_cut_short_between_folder_and_row_is_finished(tmp_path: Path, state: State) -> None:
    root = tmp_path / "volumes"
    async with open_volumes(root, state, EventBus()) as volumes:
        row = VolumeRow((await volumes.create("data", {}, {})).name, "2026-01-01T00:00:00Z", {})
        aside = root / f"{tombstone('data')}0"
        (root / row.name).rename(aside)
    async with open_volumes(root, state, EventBus()) as volumes:
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


# -- volumes that are mounted from somewhere


@pytest.mark.root
async def test_a_tmpfs_volume_is_one_mount_while_somebody_holds_it(volumes: Volumes) -> None:
    volume = await volumes.create("fast", {}, {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,noexec"})
    folder = Path(volume.mountpoint)
    assert dict(volume.options)["type"] == "tmpfs"
    await volumes.acquire("fast", "one")
    assert folder.stat().st_uid == 1000
    assert os.statvfs(folder).f_flag & os.ST_NOEXEC
    (folder / "file").write_text("x")
    await volumes.acquire("fast", "two")
    await volumes.release("fast", "one")
    assert (folder / "file").exists()
    await volumes.release("fast", "two")
    await volumes.release("fast", "two")
    assert not mounts.mounted_on(str(folder))
    assert os.listdir(folder) == []


@pytest.mark.root
async def test_a_bind_volume_is_never_emptied(tmp_path: Path, volumes: Volumes) -> None:
    """Not by a removal, not by the next start, not by what a fill that was cut short left behind."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("years of work")
    volume = await volumes.create("mine", {}, {"type": "none", "device": str(precious), "o": "bind,ro"})
    folder = Path(volume.mountpoint)
    folder.with_name(MARKER).touch()
    await volumes.fill(image(tmp_path), [At(str(folder), "/data")])
    await volumes.acquire("mine", "box")
    assert (folder / "file").read_text() == "years of work"
    with pytest.raises(OSError, match="Read-only"):
        (folder / "more").touch()
    assert await volumes.usage("mine") == -1
    await volumes.remove("mine")  # though it is still mounted: the daemon that mounted it may be gone
    await volumes.finished()
    assert (precious / "file").read_text() == "years of work"
    assert not list(Path(volume.mountpoint).parent.parent.iterdir())


@pytest.mark.root
async def test_the_next_daemon_unmounts_what_nobody_holds(tmp_path: Path, state: State) -> None:
    root = tmp_path / "volumes"
    async with open_volumes(root, state, EventBus()) as volumes:
        for name in ("held", "left"):
            await volumes.create(name, {}, {"type": "tmpfs", "device": "tmpfs"})
            await volumes.acquire(name, "box")
    async with open_volumes(root, state, EventBus()) as volumes:
        await volumes.hold("held", "box")
        await volumes.settle()
        assert mounts.mounted_on(str(volumes.path("held")))
        assert not mounts.mounted_on(str(volumes.path("left")))
        await volumes.release("held", "box")
        assert not mounts.mounted_on(str(volumes.path("held")))


@pytest.mark.root
async def test_a_mount_that_the_host_refuses_says_so_and_leaves_nothing(volumes: Volumes) -> None:
    volume = await volumes.create("bad", {}, {"type": "tmpfs", "device": "tmpfs", "o": "nonsense=1"})
    with pytest.raises(CannotMountVolume, match="failed to mount local volume: mount tmpfs:.*nonsense=1: invalid arg"):
        await volumes.acquire("bad", "box")
    gone = await volumes.create("gone", {}, {"type": "none", "device": "/no/such/folder", "o": "bind"})
    with pytest.raises(CannotMountVolume, match="no such file or directory"):
        await volumes.acquire("gone", "box")
    assert not mounts.mounted_on(volume.mountpoint)
    assert not mounts.mounted_on(gone.mountpoint)


def test_a_server_s_name_becomes_an_address() -> None:
    held = backing({"type": "nfs4", "device": ":/export", "o": "addr=localhost,rw,vers=4"})
    assert held is not None
    assert data_of(held) in ("addr=127.0.0.1,vers=4", "addr=::1,vers=4")


async def test_prune_takes_the_anonymous_and_tells_what_came_back(volumes: Volumes) -> None:
    kept = await volumes.create("named", {"k": "v"}, {})
    used, loose = await volumes.create(None, {}, {}), await volumes.create(None, {}, {})
    Path(loose.mountpoint, "file").write_bytes(b"x" * 1000)
    claimed = await volumes.create(None, {}, {}, claim=True)
    removed, size = await volumes.prune(
        lambda volume: ANONYMOUS in volume.labels, lambda name: ["box"] if name == used.name else []
    )
    assert (removed, size) == ([loose.name], 1000)
    assert {volume.name for volume in await volumes.list()} == {kept.name, used.name, claimed.name}
    with pytest.raises(VolumeInUse):
        await volumes.remove(claimed.name)
    volumes.unclaim(claimed.name)
    await volumes.remove(claimed.name)


async def test_events(tmp_path: Path, state: State) -> None:
    bus = EventBus()
    async with open_volumes(tmp_path / "volumes", state, bus) as volumes:
        await volumes.create("data", {}, {})
        await volumes.create("data", {}, {})
        await volumes.remove("data")
        await volumes.prune(lambda _volume: True, lambda _name: [])
    assert [(event.type, event.action, event.actor_id) for event in bus.past()] == [
        ("volume", "create", "data"), ("volume", "destroy", "data"), ("volume", "prune", ""),
    ]  # fmt: skip
