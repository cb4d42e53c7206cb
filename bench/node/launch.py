"""From nothing to the exit of `true`: our launcher and monitor against runc and crun, one config.json, one root.

    sudo .venv/bin/python bench/node/launch.py [--rounds 50] [--users] [--sequential 1000]

All three get the same namespaces, limits, capabilities, seccomp profile, mounts and busybox, in turn. Ours keeps a
monitor with a log for each container, which the others leave to whoever calls them. Prints medians in milliseconds,
ratios, and what an idle monitor weighs. crun refuses hosts that mount both cgroup versions: the second is not mounted
in the mount namespace of this program. A runtime that cannot run all the same is left out with its own words.

`--users`: each container in a user namespace. Ours is made ahead of the start together with the network namespace, as
by the node, and the root is id-mapped; the peers make theirs, and map no ids. `--sequential`: so many runs of ours one
after the other, whether they slow down, and what is left of them.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from node.containers.launcher import Launcher, LaunchRequest, LogTarget
from node.containers.monitor import Monitor
from node.linux import capabilities, seccomp, syscalls
from node.snapshots.mounts import RootMount

PARENT = f"seawall-bench-{os.getpid()}"
FIRST_ID = 0x9000_0000
MOUNTS = (
    ("/proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
)


def bundle(folder: Path, name: str, *args: str, joined: Mapping[str, str] | None = None) -> Path:
    """`joined`: paths of namespaces, "" for a new one, beside or in place of new ones."""
    root = folder / name / "rootfs"
    (root / "bin").mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    for place in ("proc", "dev", "sys"):  # whose root may make nothing here has them all the same
        (root / place).mkdir()
    for applet in ("true", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    caps = list(capabilities.DEFAULT)
    paths = dict.fromkeys(("pid", "network", "mount", "ipc", "uts", "cgroup"), "") | dict(joined or {})
    ids = [{"containerID": 0, "hostID": FIRST_ID, "size": 65536}] if "user" in paths else []
    config = {
        "ociVersion": "1.0.2", "root": {"path": "rootfs"}, "hostname": "bench",
        "process": {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
                    "noNewPrivileges": True,
                    "capabilities": {"bounding": caps, "effective": caps, "permitted": caps}},
        "mounts": [{"destination": place, "type": kind, "source": kind, "options": options}
                   for place, kind, options in MOUNTS],
        "linux": {"namespaces": [{"type": kind, **({"path": path} if path else {})} for kind, path in paths.items()],
                  "uidMappings": ids, "gidMappings": ids, "cgroupsPath": f"/{PARENT}/{name}",
                  "resources": {"memory": {"limit": 256 << 20}, "pids": {"limit": 100}},
                  "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"],
                  "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
                  "seccomp": seccomp.default_profile(caps)},
    }
    (folder / name / "config.json").write_text(json.dumps(config))
    return folder / name


async def create(launcher: Launcher, folder: Path) -> Monitor:
    mounts = (RootMount("bind", str(folder / "rootfs"), ("rbind",)),)
    log = LogTarget(folder / "log")
    return await launcher.create(LaunchRequest(folder.name, folder, mounts, folder, log, False, False))


async def ours(launcher: Launcher, folder: Path) -> float:
    began = time.perf_counter()
    monitor = await create(launcher, folder)
    await monitor.start()
    status = await monitor.wait()
    took = time.perf_counter() - began
    await monitor.close()
    assert status.code == 0, (status, *(path.read_text() for path in folder.glob("log*")))
    return took


async def theirs(command: list[str], folder: Path) -> float:
    """The command itself and its waiting; started by vfork, so that this process's size does not count."""
    began = time.perf_counter()
    result = await asyncio.to_thread(subprocess.run, [*command, "run", "--bundle", str(folder), f"bench-{os.getpid()}"],
                                     stdin=subprocess.DEVNULL, capture_output=True)
    took = time.perf_counter() - began
    if result.returncode != 0:
        raise RuntimeError(result.stderr.decode(errors="replace").strip())
    return took


async def runtimes(folder: Path) -> dict[str, list[str]]:
    found = {}
    for name in ("runc", "crun"):
        if shutil.which(name) is None:
            print(f"{name}: not installed")
            continue
        try:
            await theirs([name], folder)
        except RuntimeError as error:
            print(f"{name}: {error}")
        else:
            found[name] = [name]
    return found


async def exec_times(monitor: Monitor, rounds: int) -> list[float]:
    caps = list(capabilities.DEFAULT)
    process = {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
               "noNewPrivileges": True, "capabilities": {"bounding": caps, "effective": caps, "permitted": caps}}
    times = []
    for number in range(rounds):
        began = time.perf_counter()
        await monitor.exec(str(number), process, tty=False, stdin=False)
        await monitor.exec_start(str(number))
        await monitor.exec_wait(str(number))
        times.append(time.perf_counter() - began)
    return times


def weight(pid: int) -> tuple[int, int]:
    """(proportional set, private) in KiB."""
    fields = {line.split()[0]: int(line.split()[1])
              for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]}
    return fields["Pss:"], fields["Private_Dirty:"] + fields["Private_Clean:"]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])


async def idle(launcher: Launcher, folder: Path, count: int, rounds: int) -> None:
    monitors = [await create(launcher, bundle(folder, f"idle{number}", "sleep", "1000")) for number in range(count)]
    for number, monitor in enumerate(monitors, 1):
        await monitor.start()
        if number in (1, count):
            await asyncio.sleep(0.3)
            pss, private = weight(parent(monitor.pid))
            print(f"an idle monitor of {number}: {pss / 1024:.1f} MiB PSS, {private / 1024:.1f} MiB of it private")
    times = await exec_times(monitors[0], rounds)
    print(f"exec of `true` in a running container: {statistics.median(times) * 1000:.1f} ms")
    for monitor in monitors:
        await monitor.kill_all()
        await monitor.wait()
        await monitor.close()


def hide_second_hierarchy() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)
    with contextlib.suppress(OSError):
        syscalls.umount("/sys/fs/cgroup/unified", syscalls.MNT_DETACH)


async def in_a_row(launcher: Launcher, folder: Path, count: int) -> None:
    def held() -> tuple[int, int, int, int]:
        groups = sum(1 for _ in Path("/sys/fs/cgroup/memory").glob(f"{PARENT}/*"))
        return (len(Path("/proc/self/mountinfo").read_text().splitlines()), len(os.listdir("/proc/self/fd")),
                len(os.listdir(f"/proc/{launcher.pid}/fd")), groups)

    before, weighed = held(), weight(launcher.pid)
    times = [await ours(launcher, folder) for _ in range(count)]
    parts = [statistics.median(times[at:at + count // 5]) * 1000 for at in range(0, count, count // 5)][:5]
    print(f"{count} in a row, medians of fifths: {', '.join(f'{part:.1f}' for part in parts)} ms; mounts, descriptors, "
          f"the launcher's and groups {before} before and {held()} after; the launcher {weighed[1]} and "
          f"{weight(launcher.pid)[1]} KiB private")


async def main(rounds: int, sequential: int, *, users: bool) -> None:
    hide_second_hierarchy()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        folder.chmod(0o755)
        plain = bundle(folder, "peers", "/bin/true", joined={"user": ""} if users else None)
        others = await runtimes(plain)
        times: dict[str, list[float]] = {"seawall": [], **{peer: [] for peer in others}}
        async with Launcher() as launcher:
            joined = {}
            if users:
                made = await launcher.make_namespaces(FIRST_ID, 65536)
                paths = [f"/proc/{os.getpid()}/fd/{fd}" for fd in made]
                joined = dict(zip(("user", "network"), paths, strict=True))
            true = bundle(folder, "true", "/bin/true", joined=joined)
            await ours(launcher, true)
            for _ in range(rounds):
                times["seawall"].append(await ours(launcher, true))
                for peer, command in others.items():
                    times[peer].append(await theirs(command, plain))
            base = statistics.median(times["seawall"])
            for peer, measured in times.items():
                median = statistics.median(measured)
                print(f"{peer:24} {median * 1000:6.1f} ms   least {min(measured) * 1000:5.1f}   x{median / base:.2f}")
            await idle(launcher, folder, 10, rounds)
            if sequential:
                await in_a_row(launcher, true, sequential)
    for group in {*Path("/sys/fs/cgroup").glob(f"*/{PARENT}"), *Path("/sys/fs/cgroup").glob(PARENT)}:
        with contextlib.suppress(OSError):  # cpu and cpuacct may be one folder under two names
            group.rmdir()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--sequential", type=int, default=0)
    parser.add_argument("--users", action="store_true")
    if os.geteuid() != 0:
        sys.exit("needs root")
    asked = parser.parse_args()
    asyncio.run(main(asked.rounds, asked.sequential, users=asked.users))
