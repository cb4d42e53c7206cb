"""A root file system made by an enemy: no link in it leads out, and nothing is mounted where it should not be."""

import os
import stat
from pathlib import Path

import pytest

from node.containers.monitor import StartFailed
from node.linux import syscalls
from tests.node.runtime.conftest import Boxes, Stream

pytestmark = pytest.mark.root


def bind(source: Path, target: str, *options: str) -> dict[str, object]:
    return {"destination": target, "type": "bind", "source": str(source), "options": ["rbind", "rprivate", *options]}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the host that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("host")
    return folder


def untouched(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["file"] and (folder / "file").read_text() == "host"


async def test_proc_as_a_link_is_refused(boxes: Boxes, outside: Path) -> None:
    box = boxes("true")
    (box.root / "proc").rmdir()
    (box.root / "proc").symlink_to(outside)
    with pytest.raises(StartFailed, match="mount proc on /proc"):
        await box.create()
    assert untouched(outside)


async def test_sys_as_a_link_is_refused(boxes: Boxes) -> None:
    box = boxes("true")
    (box.root / "sys").rmdir()
    (box.root / "sys").symlink_to("tmp")
    with pytest.raises(StartFailed, match="mount sysfs on /sys"):
        await box.create()


@pytest.mark.parametrize("target", ["/", "../../../../../../..", "/etc"])
async def test_dev_as_a_link_stays_inside(boxes: Boxes, outside: Path, target: str) -> None:
    box = boxes("sh", "-c", "stat -c %t:%T /dev/null")
    (box.root / "dev").rmdir()
    (box.root / "dev").symlink_to(f"{target.rstrip('/')}{outside}" if target != "/etc" else target)
    (box.root / str(outside).lstrip("/")).mkdir(parents=True)
    status, output = await box.run()
    assert (status.code, output) == (0, "1:3\n")
    assert untouched(outside)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


async def test_dev_as_a_link_into_proc_is_refused(boxes: Boxes) -> None:
    box = boxes("true")
    (box.root / "dev").rmdir()
    (box.root / "dev").symlink_to("/proc/self/attr")
    with pytest.raises(StartFailed, match="inside proc"):
        await box.create()


async def test_a_mount_below_proc_is_refused(boxes: Boxes, outside: Path) -> None:
    box = boxes("true")
    box.config["mounts"].append(bind(outside / "file", "/proc/self/attr/exec"))
    with pytest.raises(StartFailed, match="inside proc"):
        await box.create()
    box.config["mounts"][-1] = bind(outside / "file", "/proc/uptime")
    box.config["process"]["args"] = ["cat", "/proc/uptime"]
    assert (await box.run())[1] == "host"


async def test_a_mount_point_behind_a_link_stays_inside(boxes: Boxes, outside: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "in").write_text("volume")
    box = boxes("sh", "-c", "cat /data/new/in; cat /up/in")
    (box.root / "data").symlink_to(outside)
    (box.root / "up").symlink_to(f"../../../../../../../../{outside}/up")
    box.config["mounts"] += [bind(volume, "/data/new"), bind(volume, "/up")]
    status, output = await box.run()
    assert (status.code, output) == (0, "volumevolume"), output
    assert untouched(outside)


async def test_a_file_behind_a_dangling_link_is_made_inside(boxes: Boxes, tmp_path: Path) -> None:
    """An imported root has /etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf without the target."""
    source = tmp_path / "resolv"
    source.write_text("nameserver 1.2.3.4")
    box = boxes("cat", "/etc/resolv.conf")
    (box.root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    box.config["mounts"].append(bind(source, "/etc/resolv.conf"))
    assert (await box.run())[1] == "nameserver 1.2.3.4"
    assert (box.root / "run/systemd/resolve/stub-resolv.conf").is_file()


async def test_links_in_a_circle_end(boxes: Boxes, outside: Path) -> None:
    box = boxes("true")
    (box.root / "a").symlink_to("b/x")
    (box.root / "b").symlink_to("a/x")
    box.config["mounts"].append(bind(outside, "/a/c"))
    with pytest.raises(StartFailed, match="(?i)symbolic links"):
        await box.create()


async def test_a_working_folder_behind_a_link_is_made_inside(boxes: Boxes, outside: Path) -> None:
    box = boxes("pwd", cwd="/link/new")
    (box.root / "link").symlink_to(outside)
    status, _ = await box.run()
    assert status.code == 0
    assert untouched(outside)
    assert (box.root / str(outside).lstrip("/") / "new").is_dir()


@pytest.mark.parametrize("path", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/fd/5"])
async def test_a_working_folder_of_leaked_descriptors_is_nowhere(boxes: Boxes, path: str) -> None:
    box = boxes("pwd", cwd=path)
    with pytest.raises(StartFailed):
        await box.run()


async def test_a_false_null_device_masks_nothing(boxes: Boxes, tmp_path: Path) -> None:
    """CVE-2025-31133: what stands at /dev/null would lie over the masked files."""
    box = boxes("true")
    (box.root / "dev/null").write_text("not a device")
    box.config["mounts"] = [mount for mount in box.config["mounts"] if not mount["destination"].startswith("/dev")]
    with pytest.raises(StartFailed, match="/dev/null"):
        await box.create()


async def test_a_console_that_is_a_link_is_left_alone(boxes: Boxes, outside: Path) -> None:
    box = boxes("true", terminal=True)
    box.config["mounts"] = [mount for mount in box.config["mounts"] if mount["destination"] != "/dev"]
    (box.root / "dev/pts").mkdir(parents=True, exist_ok=True)
    (box.root / "dev/console").symlink_to(outside / "made")
    assert (await box.run())[0].code == 0
    assert untouched(outside)


async def test_the_hosts_dev_gets_nothing_new(boxes: Boxes, tmp_path: Path) -> None:
    """`-v /dev:/dev`: no node or link is made in it."""
    dev = tmp_path / "dev"
    dev.mkdir()
    for name, number in (("null", 3), ("zero", 5)):
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(1, number))
    box = boxes("sh", "-c", "ls /dev")
    others = [mount for mount in box.config["mounts"] if not mount["destination"].startswith("/dev")]
    box.config["mounts"] = [bind(dev, "/dev"), *others]
    assert (await box.run())[1].split() == ["null", "zero"]
    assert sorted(path.name for path in dev.iterdir()) == ["null", "zero"]


async def test_binds_and_their_options(boxes: Boxes, outside: Path) -> None:
    box = boxes("sh", "-c", "touch /ro/x; touch /rw/made && echo made; grep -E ' /(ro|rw) ' /proc/self/mountinfo")
    box.config["mounts"] += [bind(outside, "/ro", "rro", "nosuid", "noexec"), bind(outside, "/rw")]
    _, output = await box.run()
    assert "Read-only file system" in output and "made\n" in output
    ro = next(line.split() for line in output.splitlines() if " /ro " in line)
    assert {"ro", "nosuid", "noexec"} <= set(ro[5].split(","))
    (outside / "made").unlink()
    assert untouched(outside)


async def test_a_missing_source_is_named(boxes: Boxes, tmp_path: Path) -> None:
    box = boxes("true")
    box.config["mounts"].append(bind(tmp_path / "absent", "/data"))
    with pytest.raises(StartFailed, match=r"mount .*absent on /data: No such file"):
        await box.create()


@pytest.fixture
def shared_mount(tmp_path: Path):  # type: ignore[no-untyped-def]
    place = tmp_path / "shared"
    place.mkdir()
    syscalls.mount("tmpfs", str(place), "tmpfs")
    syscalls.mount("", str(place), flags=syscalls.MS_SHARED)
    (place / "below").mkdir()
    (place / "inner").mkdir()
    yield place
    for path in (place / "below", place / "inner", place):
        while path.is_mount():
            syscalls.umount(str(path), syscalls.MNT_DETACH)


@pytest.mark.parametrize("propagation", ["rshared", "rslave", "rprivate"])
async def test_propagation(boxes: Boxes, shared_mount: Path, propagation: str) -> None:
    """What the host mounts later comes in unless private, what the container mounts goes out only when shared."""
    box = boxes("sh", "-c", "read go; grep -c ' /data/below ' /proc/self/mountinfo; mount -t tmpfs x /data/inner; read go",
                caps=["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
    del box.config["linux"]["seccomp"]
    box.config["mounts"].append({"destination": "/data", "type": "bind", "source": str(shared_mount),
                                 "options": ["rbind", propagation]})
    box.open_stdin = True
    monitor = await box.create()
    stream = Stream(await monitor.attach(stdin=True, stdout=True, stderr=True))
    await monitor.start()
    syscalls.mount("tmpfs", str(shared_mount / "below"), "tmpfs")
    await stream.send(b"\n")
    text = await stream.until(b"\n")
    assert text[8:] == (b"0\n" if propagation == "rprivate" else b"1\n")
    await stream.send(b"\n")
    stream.channel.close()
    assert (await monitor.wait()).code == 0
    assert (shared_mount / "inner").is_mount() == (propagation == "rshared")


@pytest.mark.parametrize("key", ["net.//.vm.page-cluster", "net/../vm/page-cluster", "fs.mqueue.//.//.vm.page-cluster"])
async def test_a_sysctl_of_a_namespace_leads_to_no_other(boxes: Boxes, key: str) -> None:
    """With dots and slashes exchanged they are what net/../vm/page-cluster is: the host's."""
    before = Path("/proc/sys/vm/page-cluster").read_text()
    box = boxes("true")
    box.config["linux"]["sysctl"] = {key: str(int(before) + 1)}
    try:
        with pytest.raises(StartFailed, match="is no name of a sysctl"):
            await box.run()
        assert Path("/proc/sys/vm/page-cluster").read_text() == before
    finally:
        Path("/proc/sys/vm/page-cluster").write_text(before)


async def test_a_remount_is_of_what_it_names(boxes: Boxes) -> None:
    """A link of the image would lead it to /sys, which is read-only."""
    box = boxes("sh", "-c", "grep ' /sys ' /proc/self/mountinfo")
    (box.root / "x").symlink_to("/sys")
    box.config["mounts"].append({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["remount", "rw"]})
    with pytest.raises(StartFailed):
        await box.run()
