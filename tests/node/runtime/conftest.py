"""Containers of a busybox root file system under a real launcher, and the check that nothing of them is left behind."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from node.containers.launcher import Launcher, LaunchRequest, LogTarget, Program
from node.containers.monitor import ExitStatus, Monitor, MonitorGone
from node.linux import capabilities, seccomp
from node.linux.cgroups import detect
from node.snapshots.mounts import RootMount
from tests.conftest import lacking

APPLETS = ("sh", "cat", "echo", "true", "false", "sleep", "id", "ls", "mount", "stat", "head", "tail", "dd", "yes",
           "ps", "kill", "touch", "mkdir", "pwd", "env", "hostname", "test", "wc", "stty", "tr", "seq", "grep",
           "printf", "rm", "readlink", "setsid", "df", "tty", "chmod", "ln", "awk", "mknod", "umount")
MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/absent")
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
MOUNTS = [
    ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
]


def busybox() -> Path:
    for place in ("/bin/busybox", "/usr/bin/busybox"):
        if Path(place).is_file():
            return Path(place)
    lacking("busybox (Debian: busybox-static) is not installed")
    raise AssertionError


def make_root(root: Path) -> Path:
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy2(busybox(), root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    return root


def process(*args: str, **fields: Any) -> dict[str, Any]:
    caps = list(fields.pop("caps", capabilities.DEFAULT))
    uid = fields.get("user", {}).get("uid", 0)
    granted = caps if uid == 0 else []
    return {
        "args": list(args), "cwd": "/", "env": ["PATH=/usr/bin:/bin", "TERM=xterm"], "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": caps, "effective": granted, "permitted": granted}, "noNewPrivileges": True,
        "terminal": False, **fields,
    }


@dataclass
class Box:
    """One container to be: change `config` before `create`."""

    folder: Path
    name: str
    config: dict[str, Any]
    launcher: Launcher
    log: LogTarget | None = None
    """None: json without a bound."""

    open_stdin: bool = False
    stdin_once: bool = False
    logged: bool = True
    fds: tuple[int, ...] = ()
    mounts: tuple[RootMount, ...] = ()
    runtime: Program | None = None
    monitors: list[Monitor] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "image"

    @property
    def log_path(self) -> Path:
        return self.folder / "json.log"

    async def create(self) -> Monitor:
        (self.folder / "config.json").write_text(json.dumps(self.config))
        mounts = self.mounts or (RootMount("bind", str(self.root), ("rw", "rbind")),)
        monitor = await self.launcher.create(LaunchRequest(
            self.name, self.folder, mounts, self.folder,
            (self.log or LogTarget(self.log_path)) if self.logged else None, self.open_stdin, self.stdin_once, self.fds,
            runtime=self.runtime))
        self.monitors.append(monitor)
        return monitor

    async def run(self) -> tuple[ExitStatus, str]:
        """Start it and wait for its end; its status and what it wrote to stdout and stderr."""
        monitor = await self.create()
        await monitor.start()
        status = await asyncio.wait_for(monitor.wait(), 20)
        return status, self.output()

    def lines(self) -> list[dict[str, str]]:
        older = sorted(self.folder.glob("json.log.*"), key=lambda path: -int(path.suffix[1:]))
        files = [*older, self.log_path]
        return [json.loads(line) for path in files if path.exists() for line in path.read_bytes().splitlines()]

    def output(self, stream: str | None = None) -> str:
        return "".join(line["log"] for line in self.lines() if stream in (None, line["stream"]))


class Boxes:
    def __init__(self, folder: Path, launcher: Launcher, parent: str) -> None:
        self._folder = folder
        self._launcher = launcher
        self.parent = parent
        self.made: list[Box] = []

    def __call__(self, *args: str, **fields: Any) -> Box:
        """A container that would run `args`; further fields go into its process."""
        name = f"box{len(self.made)}"
        folder = self._folder / name
        make_root(folder / "image")
        held = process(*args, **fields)
        config = {
            "ociVersion": "1.2.0", "process": held, "root": {"path": "rootfs", "readonly": False}, "hostname": name,
            "mounts": [{"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in MOUNTS],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "network", "mount", "ipc", "uts", "cgroup")],
                "cgroupsPath": f"{self.parent}/{name}", "resources": {}, "devices": [], "sysctl": {},
                "maskedPaths": list(MASKED), "readonlyPaths": list(READONLY),
                "seccomp": seccomp.default_profile(held["capabilities"]["bounding"]),
            },
        }
        box = Box(folder, name, config, self._launcher)
        self.made.append(box)
        return box


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    async with Launcher() as launcher:
        yield launcher


@pytest.fixture
async def boxes(tmp_path: Path, launcher: Launcher) -> AsyncIterator[Boxes]:
    """Ends what still runs, and fails the test that leaves a mount, a process or a cgroup behind."""
    parent = f"seawall-test-{uuid.uuid4().hex[:8]}"
    made = Boxes(tmp_path, launcher, parent)
    yield made
    for box in made.made:
        for monitor in box.monitors:
            with contextlib.suppress(MonitorGone):
                await monitor.kill_all()
            await monitor.close()
    await _gone(parent)
    detect().prune(parent)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(), "a mount leaked"


async def _gone(parent: str) -> None:
    deadline = time.monotonic() + 10
    while (left := leftovers(parent)) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert not left, f"left behind: {left}"


def leftovers(parent: str) -> list[str]:
    """Cgroups below the parent."""
    found = []
    for root, folders, _ in os.walk("/sys/fs/cgroup"):
        if Path(root).name == parent:
            found += [f"{root}/{folder}" for folder in folders]
            folders.clear()
    return found


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    def held() -> set[str]:
        found = set()
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(f"{entry.name} {entry.readlink()}")
        return {item for item in found if "/proc/" not in item}

    before = held()
    yield
    assert not held() - before, "a descriptor leaked"


class Stream:
    """An attached socket, read to its end."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.data = bytearray()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.channel, data)

    def end_input(self) -> None:
        self.channel.shutdown(socket.SHUT_WR)

    async def read(self) -> bool:
        part = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.channel, 1 << 18), 20)
        self.data += part
        return bool(part)

    async def until(self, text: bytes) -> bytes:
        while text not in self.data:
            assert await self.read(), f"the stream ended after {bytes(self.data[-500:])!r}"
        return bytes(self.data)

    async def all(self) -> bytes:
        while await self.read():
            pass
        self.channel.close()
        return bytes(self.data)

    async def frames(self) -> dict[int, bytes]:
        """What came, by stream number, of Docker's frames."""
        data, found, at = await self.all(), {1: bytearray(), 2: bytearray()}, 0
        while at < len(data):
            number, length = struct.unpack_from(">BxxxI", data, at)
            found[number] += data[at + 8:at + 8 + length]
            assert at + 8 + length <= len(data), "a frame was cut short"
            at += 8 + length
        return {number: bytes(content) for number, content in found.items()}
