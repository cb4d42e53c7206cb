"""Parts of runtime-spec 1.2 that Docker's containers do not use, carried out."""

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from node.containers.monitor import StartFailed
from tests.node.runtime.conftest import Box, Boxes
from tests.node.runtime.test_user_namespaces import confine

pytestmark = pytest.mark.root


async def run(box: Box) -> str:
    status, output = await box.run()
    assert status.code == 0, output
    return output


def mounted(box: Box, destination: str, kind: str, *options: str, source: str = "") -> None:
    box.config["mounts"].append({"destination": destination, "type": kind, "source": source, "options": [*options]})


@pytest.mark.parametrize("private", [False, True])
async def test_a_time_namespace_with_offsets(boxes: Boxes, private: bool) -> None:
    box = boxes("sh", "-c", "readlink /proc/self/ns/time; cat /proc/uptime")
    if private:
        confine(box)
    box.config["linux"]["namespaces"].append({"type": "time"})
    box.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 7, "nanosecs": 5}}
    space, uptime, *_ = (await run(box)).split()
    assert space != os.readlink("/proc/self/ns/time")
    assert float(uptime) > 1_000_000


@pytest.mark.parametrize("private", [False, True])
async def test_devices_anywhere(boxes: Boxes, private: bool) -> None:
    box = boxes("sh", "-c", "stat -c '%F %t:%T %a %u:%g' /dev/net/tun /opt/zero /opt/queue; head -c 2 /opt/zero | wc -c")
    if private:
        confine(box)
    box.config["linux"]["devices"] = [
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 3, "gid": 4},
        {"path": "/opt/zero", "type": "c", "major": 1, "minor": 5, "uid": 5, "gid": 6},
        {"path": "/opt/queue", "type": "p", "fileMode": 0o640},
    ]
    assert (await run(box)).splitlines() == [
        "character special file a:c8 600 3:4", "character special file 1:5 666 5:6", "fifo 0:0 640 0:0", "2"]


async def test_without_a_fresh_dev_nodes_are_bound_for_a_user_namespace(boxes: Boxes) -> None:
    box = confine(boxes("sh", "-c", "echo x > /dev/null; stat -c %t:%T:%u /dev/null; readlink /dev/stdin"))
    box.config["mounts"] = [mount for mount in box.config["mounts"] if not mount["destination"].startswith("/dev")]
    assert (await run(box)).splitlines() == ["1:3:0", "/proc/self/fd/0"]


async def test_options_of_mounts(boxes: Boxes, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    box = boxes("sh", "-c", "cat /proc/self/mountinfo; ls -a /etc; stat -c %a:%u:%g /etc/secret /etc/sub; cat /etc/link;"
                            " (echo x > /dev/new)")
    for name, content in (("secret", "s"), ("sub/file", "f")):
        (box.root / "etc" / name).parent.mkdir(exist_ok=True)
        (box.root / "etc" / name).write_text(content)
    (box.root / "etc/link").symlink_to("sub/file")
    (box.root / "etc/secret").chmod(0o640)
    os.chown(box.root / "etc/secret", 7, 8)
    mounted(box, "/etc", "tmpfs", "tmpcopyup", "size=1m", "nosuid")
    mounted(box, "/a", "none", "rbind", "rro", "rnoatime", "noexec", source=str(shared))
    mounted(box, "a2", "bind", "bind", "nodev", source=str(shared))
    mounted(box, "/a2", "none", "bind", "remount", "ro", "nodev")
    mounted(box, "/r", "ramfs", "noexec")
    mounted(box, "/s", "tmpfs", "rshared")
    box.config["mounts"] = [
        {**mount, "options": [*mount["options"], "ro"]} if mount["destination"] == "/dev" else mount
        for mount in box.config["mounts"]
    ]  # fmt: skip
    box.config["process"]["args"][-1] += " 2>/dev/null || echo read-only"
    lines = (await run(box)).splitlines()
    table = {line.split()[4]: line for line in lines if " - " in line}
    assert "ro,noexec,noatime" in table["/a"].split()[5] and "ro,nodev" in table["/a2"].split()[5]
    assert " - ramfs " in table["/r"] and "shared:" in table["/s"]
    assert table["/dev"].split()[5].startswith("ro,")
    rest = [line for line in lines if " - " not in line]
    assert {"passwd", "link", "sub"} <= set(rest)
    assert {"640:7:8", "755:0:0"} <= set(rest)
    assert "fread-only" in rest


@pytest.mark.parametrize(("destination", "kind", "options", "message"), [
    ("/x", "nosuchfs", (), "mount nosuchfs on /x: No such device"),
    ("/x", "tmpfs", ("colour=red",), "option colour"),
    ("/nowhere/at/all", "tmpfs", ("remount", "ro"), "mount tmpfs on /nowhere/at/all: No such file"),
    ("/etc", "bind", ("bind", "remount", "ro"), "mount .* on /etc: Invalid argument"),
])
async def test_mounts_that_fail_by_name(
    boxes: Boxes, destination: str, kind: str, options: tuple[str, ...], message: str
) -> None:
    box = boxes("true")
    mounted(box, destination, kind, *options)
    with pytest.raises(StartFailed, match=message):
        await box.create()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="LINUX32 renames the machine")
async def test_personality_scheduler_and_io_priority(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "uname -m || busybox uname -m; cat /proc/self/sched; cat /proc/self/stat",
                scheduler={"policy": "SCHED_BATCH", "nice": 5}, ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6})
    box.config["linux"]["personality"] = {"domain": "LINUX32"}
    monitor_free: Any = await run(box)
    lines = monitor_free.splitlines()
    assert "i686" in lines[0] or "i686" in lines[1]
    assert [line.split()[-1] for line in lines if line.startswith("policy")] == ["3"]
    assert lines[-1].rpartition(")")[2].split()[16] == "5"


async def test_unknown_capabilities_are_warnings(boxes: Boxes) -> None:
    box = boxes("grep", "CapEff", "/proc/self/status", caps=["CAP_CHOWN", "CAP_TELEPORT"])
    box.config["linux"]["seccomp"] = None
    monitor = await box.create()
    assert any("CAP_TELEPORT" in warning for warning in monitor.warnings)
    await monitor.start()
    await monitor.wait()
    assert int(box.output().split()[1], 16) == 1


async def test_without_capabilities_there_are_none(boxes: Boxes) -> None:
    box = boxes("grep", "Cap", "/proc/self/status")
    del box.config["process"]["capabilities"]
    assert {line.split()[1] for line in (await run(box)).splitlines()} == {"0" * 16}


async def test_without_a_process_it_is_made_and_not_started(boxes: Boxes) -> None:
    box = boxes("true")
    del box.config["process"]
    monitor = await box.create()
    with pytest.raises(StartFailed, match="there is nothing to start"):
        await monitor.start()


@pytest.mark.parametrize("change", [{"apparmorProfile": "x"}, {"selinuxLabel": "x:y:z"}])
async def test_labels_without_a_security_module_are_errors(boxes: Boxes, change: dict[str, str]) -> None:
    if Path("/sys/module/apparmor").exists() or Path("/sys/fs/selinux").exists():
        pytest.skip("this kernel has one")
    with pytest.raises(StartFailed, match="this kernel has no"):
        await boxes("true", **change).create()


async def test_sysctls_of_every_namespace(boxes: Boxes) -> None:
    box = boxes("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/domainname", "/proc/sys/fs/mqueue/msg_max")
    box.config["linux"]["sysctl"] = {"net/ipv4/ip_forward": "1", "kernel.domainname": "house", "fs.mqueue.msg_max": "9"}
    assert (await run(box)).split() == ["1", "house", "9"]


@pytest.mark.parametrize("joined", [False, True])
async def test_without_a_mount_namespace_of_its_own(boxes: Boxes, joined: bool) -> None:
    """Its mounts are in a tree that only its processes see; the host's, or the joined one's, stay as they are."""
    box = boxes("sh", "-c", "readlink /proc/self/ns/mnt; ls /; echo x > /proc/sys/kernel/hostname; cat /proc/keys; id")
    rest = [item for item in box.config["linux"]["namespaces"] if item["type"] != "mount"]
    path = f"/proc/{os.getpid()}/ns/mnt"
    box.config["linux"]["namespaces"] = [*rest, *([{"type": "mount", "path": path}] if joined else [])]
    if joined:  # there its root is looked up
        box.config["root"]["path"] = str(box.root)
    before = Path("/proc/self/mountinfo").read_text()
    output = await run(box)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert "Read-only file system" in output and "uid=0" in output and "image" not in output.splitlines()


async def test_the_hosts_name_and_parameters_are_not_changed_by_way_of_a_path(boxes: Boxes) -> None:
    box = boxes("true")
    kinds = {item["type"]: item for item in box.config["linux"]["namespaces"]}
    kinds["uts"]["path"] = "/proc/self/ns/uts"
    box.config["hostname"] = os.uname().nodename
    with pytest.raises(StartFailed, match="is the host's uts namespace, which the hostname would change"):
        await box.create()
    del kinds["uts"]["path"]
    kinds["network"]["path"] = "/proc/self/ns/net"
    box.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text()}
    with pytest.raises(StartFailed, match="which sysctl net.ipv4.ip_forward would change"):
        await box.create()
