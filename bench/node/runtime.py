"""`run` of `true`, cold: seawall-runtime, runc and crun as commands, one config.json, one root, in turn.

    sudo .venv/bin/python bench/node/runtime.py [--rounds 50] [--users] [--sequence 1000]

`--users` adds a user namespace (runc 1.1 and later). Prints medians of wall and processor time in milliseconds, which a
busy machine moves less, and ratios to runc. `--sequence` runs ours that often and says what is left behind and whether
the last hundred took longer than the first. A runtime that cannot run here is left out with its own words.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.node.launch import bundle


def measure(program: list[str], folder: Path, name: str) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([*program, "run", "--bundle", folder, name], check=True, stdin=subprocess.DEVNULL,
                   capture_output=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall * 1000, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def left() -> tuple[int, int]:
    """Mounts and cgroup folders."""
    groups = sum(1 for _ in Path("/sys/fs/cgroup").glob("*/seawall-bench/*"))
    return Path("/proc/self/mountinfo").read_text().count("\n"), groups


def compare(folder: Path, programs: dict[str, list[str]], rounds: int) -> None:
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for name, program in list(programs.items()):
        try:
            measure(program, folder, "warm")
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error.stderr.decode().strip()[-200:]}")
            del programs[name], samples[name]
    for _ in range(rounds):
        for name, program in programs.items():
            samples[name].append(measure(program, folder, "bench"))
    base = [statistics.median(column) for column in zip(*samples["runc"], strict=True)] if "runc" in samples else None
    for name, pairs in samples.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = f"   {wall / base[0]:.2f} and {cpu / base[1]:.2f} of runc's" if base else ""
        print(f"{name:16} {wall:6.1f} ms, {cpu:6.1f} ms of processors{ratio}")


def sequence(folder: Path, program: list[str], count: int) -> None:
    before = left()
    walls = [measure(program, folder, "bench")[0] for _ in range(count)]
    print(f"{count} runs: mounts and groups {before} before, {left()} after; median of the first hundred "
          f"{statistics.median(walls[:100]):.1f} ms, of the last {statistics.median(walls[-100:]):.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--users", action="store_true")
    parser.add_argument("--sequence", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        Path(home).chmod(0o711)
        folder = bundle(Path(home), "true", "true")
        for name in ("proc", "dev", "sys"):
            (folder / "rootfs" / name).mkdir(exist_ok=True)
        if given.users:
            config = json.loads((folder / "config.json").read_text())
            config["linux"]["namespaces"].append({"type": "user"})
            config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = [
                {"containerID": 0, "hostID": 300000, "size": 65536}]
            (folder / "config.json").write_text(json.dumps(config))
            for path in (folder / "rootfs", *(folder / "rootfs").rglob("*")):
                os.chown(path, 300000, 300000, follow_symlinks=False)
        ours = [str(Path(sys.executable).parent / "seawall-runtime"), "--root", f"{home}/state"]
        programs = {"seawall-runtime": ours}
        programs.update({name: [name] for name in ("runc", "crun") if shutil.which(name)})
        compare(folder, programs, given.rounds)
        if given.sequence:
            sequence(folder, ours, given.sequence)


if __name__ == "__main__":
    main()
