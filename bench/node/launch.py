"""From nothing to the exit of `true`: our launcher and monitor against runc and crun, one config.json, one root.

    sudo .venv/bin/python bench/node/launch.py [--rounds 50]

All three get the same namespaces, limits, capabilities, seccomp profile, mounts and busybox, in turn. Ours keeps a
monitor with a log for each container, which the others leave to whoever calls them. Prints medians in milliseconds,
ratios, and what an idle monitor weighs. A runtime that cannot run here (crun refuses hosts that mount both cgroup
versions) is left out with its own words.
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
from pathlib import Path

from node.containers.launcher import Launcher, LaunchRequest, LogTarget
from node.containers.monitor import Monitor
from node.linux import capabilities, seccomp
from node.snapshots.mounts import RootMount

PARENT = "seawall-bench"
MOUNTS = (
    ("/proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
)


def bundle(folder: Path, name: str, *args: str) -> Path:
    root = folder / name / "rootfs"
    (root / "bin").mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    for applet in ("true", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    caps = list(capabilities.DEFAULT)
    kinds = ("pid", "network", "mount", "ipc", "uts", "cgroup")
    config = {
        "ociVersion": "1.0.2", "root": {"path": "rootfs"}, "hostname": "bench",
        "process": {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
                    "noNewPrivileges": True,
                    "capabilities": {"bounding": caps, "effective": caps, "permitted": caps}},
        "mounts": [{"destination": place, "type": kind, "source": kind, "options": options}
                   for place, kind, options in MOUNTS],
        "linux": {"namespaces": [{"type": kind} for kind in kinds], "cgroupsPath": f"/{PARENT}/{name}",
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
    assert status.code == 0
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


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        true = bundle(folder, "true", "/bin/true")
        others = await runtimes(true)
        times: dict[str, list[float]] = {"seawall": [], **{peer: [] for peer in others}}
        async with Launcher() as launcher:
            await ours(launcher, true)
            for _ in range(rounds):
                times["seawall"].append(await ours(launcher, true))
                for peer, command in others.items():
                    times[peer].append(await theirs(command, true))
            base = statistics.median(times["seawall"])
            for peer, measured in times.items():
                median = statistics.median(measured)
                print(f"{peer:24} {median * 1000:6.1f} ms   least {min(measured) * 1000:5.1f}   x{median / base:.2f}")
            await idle(launcher, folder, 10, rounds)
    for group in {*Path("/sys/fs/cgroup").glob(f"*/{PARENT}"), *Path("/sys/fs/cgroup").glob(PARENT)}:
        with contextlib.suppress(OSError):  # cpu and cpuacct may be one folder under two names
            group.rmdir()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    if os.geteuid() != 0:
        sys.exit("needs root")
    asyncio.run(main(parser.parse_args().rounds))
