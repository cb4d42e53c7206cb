"""Limits asked for with the docker command, read back from the kernel."""

import json
import os
import re
from pathlib import Path

import pytest

from node.linux import cgroups
from tests.e2e.conftest import Docker, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture(autouse=True)
def pulled(platform: Platform) -> None:
    platform.pull()


def group_files(container_id: str) -> dict[str, Path]:
    """Every control file of the container's cgroup, whatever the hierarchy."""
    return {
        file.name: file
        for folder in Path("/sys/fs/cgroup").rglob(container_id)
        for file in folder.iterdir()
        if file.is_file()
    }


def disk() -> str:
    """A block device of this host."""
    for name in ("vda", "sda", "nvme0n1", "loop0"):
        if Path(f"/dev/{name}").is_block_device():
            return f"/dev/{name}"
    pytest.skip("this host shows no block device")


def on_version_1() -> bool:
    return cgroups.detect().version == 1


def test_every_limit_reaches_the_kernel(docker: Docker, platform: Platform) -> None:
    if not on_version_1():
        pytest.skip("reads the files of version 1")
    device = disk()
    about = os.stat(device)
    number = f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
    found = docker.ok(
        "run", "-d", "--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--memory-swappiness",
        "7", "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "50",
        "--device-read-bps", f"{device}:1mb", "--device-write-bps", f"{device}:2mb", "--device-read-iops",
        f"{device}:100", "--device-write-iops", f"{device}:200", "--device-cgroup-rule", "c 42:* rwm",
        platform.image(), "sleep", "60",
    ).strip()  # fmt: skip
    files = {name: path.read_text().strip() for name, path in group_files(found).items()
             if name.split(".")[0] in ("memory", "cpu", "cpuset", "pids", "blkio", "devices")
             and os.access(path, os.R_OK) and name not in ("memory.pressure_level", "memory.force_empty")
             and path.stat().st_mode & 0o400}  # fmt: skip
    assert files["memory.limit_in_bytes"] == str(64 << 20)
    if "memory.memsw.limit_in_bytes" in files:
        assert files["memory.memsw.limit_in_bytes"] == str(96 << 20)
    assert files["memory.soft_limit_in_bytes"] == str(32 << 20)
    assert files["memory.swappiness"] == "7"
    assert (files["cpu.cfs_quota_us"], files["cpu.cfs_period_us"]) == ("50000", "100000")
    assert files["cpu.shares"] == "512"
    assert (files["cpuset.cpus"], files["cpuset.mems"]) == ("0", "0")
    assert files["pids.max"] == "50"
    assert files["blkio.throttle.read_bps_device"] == f"{number} {1 << 20}"
    assert files["blkio.throttle.write_bps_device"] == f"{number} {2 << 20}"
    assert files["blkio.throttle.read_iops_device"] == f"{number} 100"
    assert files["blkio.throttle.write_iops_device"] == f"{number} 200"
    assert "c 42:* rwm" in files["devices.list"]
    shown = json.loads(docker.inspect(found, "{{json .HostConfig}}"))
    assert shown["BlkioDeviceReadBps"] == [{"Path": device, "Rate": 1 << 20}]
    assert (shown["NanoCpus"], shown["MemorySwap"]) == (500_000_000, 96 << 20)


def test_what_this_host_lacks_is_a_warning_and_what_cannot_be_an_error(docker: Docker, platform: Platform) -> None:
    features = cgroups.detect().features()
    made = docker("create", "--blkio-weight", "300", "--kernel-memory", "8m", platform.image())
    assert made.returncode == 0, made.stderr
    discarded = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
    assert (f"WARNING: {discarded}" in made.stderr) is ("blkio_weight" not in features)
    for words, message in (
        (("--cpuset-cpus", "0,4000"), r"Requested CPUs are not available - requested 0,4000, available: \S+"),
        (("--storage-opt", "size=1G"), "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
        (("--gpus", "all"), r'could not select device driver "" with capabilities: \[\[gpu\]\]'),
        (("--runtime", "kata"), "unknown or invalid runtime name: kata"),
        (("--device-read-bps", "/dev/null:1mb"), "/dev/null is not a block device"),
        (("--ulimit", "nofile=99999999999:99999999999"), "this host permits no more than"),
        (("--memory", "4m"), "Minimum memory limit allowed is 6MB"),
        (("--memory", "64m", "--memory-swap", "32m"), "Minimum memoryswap limit should be larger than memory limit"),
        (("--cgroup-parent", "../x"), "invalid cgroup parent"),
    ):  # fmt: skip
        refused = docker("create", *words, platform.image())
        if "ulimit" in words[0] and refused.returncode == 0:
            continue  # a host that permits everything
        assert refused.returncode == 1, words
        assert re.search(message, refused.stderr), refused.stderr


def test_init_reaps_and_forwards(docker: Docker, platform: Platform) -> None:
    found = docker.ok(
        "run", "-d", "--init", platform.image(), "sh", "-c", "trap 'exit 7' TERM; (sleep 0 &) ; while :; do sleep 0.1; done"
    ).strip()  # fmt: skip
    assert "docker-init" in docker.ok("exec", found, "cat", "/proc/1/cmdline")
    assert docker.inspect(found, "{{.HostConfig.Init}}") == "true"
    docker.ok("stop", "-t", "5", found)
    assert docker.inspect(found, "{{.State.ExitCode}}") == "7"


def test_a_cgroup_parent(docker: Docker, platform: Platform) -> None:
    parent = f"seawall-test-parent-{os.getpid()}"
    try:
        found = docker.ok("run", "-d", "--cgroup-parent", f"/{parent}/in", platform.image(), "sleep", "60").strip()
        folders = list(Path("/sys/fs/cgroup").rglob(f"{parent}/in/{found}"))
        assert folders
        docker.ok("pause", found)
        docker.ok("unpause", found)
        docker.ok("rm", "-f", found)
        assert not any(folder.exists() for folder in folders)
    finally:
        platform.remove_containers()
        for top in Path("/sys/fs/cgroup").rglob(parent):
            (top / "in").rmdir()
            top.rmdir()
