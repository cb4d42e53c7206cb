"""Containers in a user namespace of their own: root inside, nobody outside."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.containers.monitor import StartFailed
from node.linux import syscalls
from node.linux.cgroups import detect
from node.runtime import identity
from tests.node.runtime.conftest import Box, Boxes, process

pytestmark = pytest.mark.root

FIRST, COUNT = 3_000_000, 65_536


def extents(first: int = FIRST, count: int = COUNT) -> list[dict[str, int]]:
    return [{"containerID": 0, "hostID": first, "size": count}]


def confine(box: Box, *, path: str = "", **namespaces: str) -> Box:
    """Its root files belong to root as ever: the monitor mounts them id-mapped."""
    linux = box.config["linux"]
    linux["namespaces"] = [
        {**entry, **({"path": namespaces[entry["type"]]} if entry["type"] in namespaces else {})}
        for entry in linux["namespaces"] if namespaces.get(entry["type"]) != "host"
    ]  # fmt: skip
    linux["namespaces"].insert(0, {"type": "user", **({"path": path} if path else {})})
    linux["uidMappings"] = linux["gidMappings"] = extents()
    if linux.get("seccomp"):
        del linux["seccomp"]
    return box


@pytest.fixture
def pinned(tmp_path: Path) -> Iterator[str]:
    """A user namespace that a file stands for."""
    pin = tmp_path / "user"
    pin.touch()
    holder = subprocess.Popen(["unshare", "-U", "sleep", "100"])
    try:
        deadline = 200
        while os.readlink(f"/proc/{holder.pid}/ns/user") == os.readlink("/proc/self/ns/user") and deadline:
            deadline -= 1
            os.sched_yield()
            subprocess.run(["sleep", "0.01"], check=True)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text(f"0 {FIRST} {COUNT}\n")
        subprocess.run(["mount", "--bind", f"/proc/{holder.pid}/ns/user", str(pin)], check=True)
    finally:
        holder.kill()
        holder.wait()
    yield str(pin)
    subprocess.run(["umount", str(pin)], check=True)


LOOK = (
    "cat /proc/self/uid_map; id -u; readlink /proc/self/ns/user; stat -c '%u:%g' /dev/null /proc/1 /dev/pts /dev/mqueue"
    " /dev/shm /bin; echo x > /dev/null; echo y > /dev/shm/f; stat -c %u /dev/shm/f; echo $$; mknod /dev/new c 1 3"
    " || echo none; head -c 1 /dev/zero | wc -c; ls /sys/fs/cgroup >&2; grep CapEff /proc/self/status"
)


@pytest.mark.parametrize("by_path", [True, False])
async def test_root_inside_is_nobody_outside(boxes: Boxes, pinned: str, by_path: bool) -> None:
    box = confine(boxes("sh", "-c", LOOK), path=pinned if by_path else "")
    status, output = await box.run()
    assert status.code == 0, output
    lines = box.output("stdout").splitlines()
    assert lines[0].split() == ["0", str(FIRST), str(COUNT)] and lines[1] == "0"
    assert lines[2] != os.readlink("/proc/self/ns/user")
    assert lines[3:9] == ["0:0"] * 6
    assert lines[9:13] == ["0", "1", "none", "1"], output


async def test_the_host_sees_the_mapped_ids(boxes: Boxes, pinned: str) -> None:
    box = confine(boxes("sleep", "100", user={"uid": 1000, "gid": 1000}), path=pinned)
    monitor = await box.create()
    await monitor.start()
    status = Path(f"/proc/{monitor.pid}/status").read_text()
    assert f"Uid:\t{FIRST + 1000}\t" in status and f"Gid:\t{FIRST + 1000}\t" in status
    for number in (1, 2):
        assert os.stat(f"/proc/{monitor.pid}/fd/{number}").st_uid == FIRST + 1000


async def test_a_bind_shows_the_containers_ids(boxes: Boxes, pinned: str, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("mine")
    os.chown(volume / "file", 1000, 1000)
    box = confine(boxes("sh", "-c", "stat -c %u:%g /data /data/file; echo new > /data/new; chown 7:8 /data/new"),
                  path=pinned)
    box.config["mounts"].append({"destination": "/data", "type": "bind", "source": str(volume),
                                 "options": ["rbind", "ridmap"]})
    status, output = await box.run()
    assert (status.code, output) == (0, "0:0\n1000:1000\n")
    assert ((volume / "new").stat().st_uid, (volume / "new").stat().st_gid) == (7, 8)


async def test_an_exec_is_in_it_too(boxes: Boxes, pinned: str) -> None:
    box = confine(boxes("sleep", "100"), path=pinned)
    monitor = await box.create()
    await monitor.start()
    pid = await monitor.exec("e1", process("sleep", "50", user={"uid": 5, "gid": 6}), tty=False, stdin=False)
    assert await monitor.exec_start("e1") == pid
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{FIRST + 5}\t" in status
    for kind in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{monitor.pid}/ns/{kind}"), kind


@pytest.mark.parametrize("kinds", [("network",), ("pid",), ("ipc",), ("uts",), ("cgroup",), ("network", "pid", "ipc")])
async def test_namespaces_of_the_host_with_a_user_namespace(boxes: Boxes, kinds: tuple[str, ...]) -> None:
    box = confine(boxes("sh", "-c", "ls /sys/class/net /proc/1/status >/dev/null && echo ok"),
                  **dict.fromkeys(kinds, "host"))
    if "uts" in kinds:
        del box.config["hostname"]
    status, output = await box.run()
    assert (status.code, output) == (0, "ok\n")


async def test_ids_without_a_map_are_refused(boxes: Boxes) -> None:
    box = confine(boxes("true", user={"uid": 70_000, "gid": 0}))
    with pytest.raises(StartFailed, match="uid 70000 has no id on the host"):
        await asyncio.wait_for(box.create(), 20)


async def test_a_path_that_is_no_user_namespace(boxes: Boxes) -> None:
    box = confine(boxes("true"), path="/proc/self/ns/net")
    with pytest.raises(StartFailed, match="is no user namespace"):
        await box.create()


def console(box: Box) -> Any:
    box.config["process"]["terminal"] = True
    return box


async def test_a_terminal_belongs_to_the_user(boxes: Boxes, pinned: str) -> None:
    box = console(confine(boxes("sh", "-c", "tty; stat -c %u /dev/pts/0; stat -c %F /dev/console",
                                user={"uid": 1000, "gid": 1000}), path=pinned))
    status, _ = await box.run()
    assert box.output().replace("\r", "").splitlines() == ["/dev/pts/0", "1000", "character special file"]
    assert status.code == 0


async def test_groups_that_the_container_may_write(boxes: Boxes, pinned: str) -> None:
    """Its root owns its group, of version 2 (tests/vm/inside/test_owned_groups.py); those of version 1 have no bounds."""
    box = confine(boxes("sh", "-c", "cd /sys/fs/cgroup && mkdir inner && echo made; echo 1 >pids.max"), path=pinned)
    mount = next(mount for mount in box.config["mounts"] if mount["type"] == "cgroup")
    mount["options"] = [option for option in mount["options"] if option != "ro"]
    if detect().version == 1:
        with pytest.raises(StartFailed, match="gets writable groups of cgroup version 2 alone"):
            await box.create()
    else:
        assert (await box.run())[1].startswith("made\n")


def test_who_reads_the_maps_of_a_namespace_is_not_its_roots_to_look_into(pinned: str) -> None:
    """It sees the host's files, as the host's root: who may trace in the namespace must not take it over."""
    user = os.open(pinned, os.O_RDONLY | os.O_CLOEXEC)
    inhabitant = identity._Inhabitant(user)
    try:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                syscalls.setns(user, syscalls.CLONE_NEWUSER)
                identity.become_root()
                os.readlink(f"/proc/{inhabitant.pid}/cwd")
            except PermissionError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        inhabitant.let_go()
        os.close(user)
