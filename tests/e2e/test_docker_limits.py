"""Limits asked for with the docker command, read back from the kernel."""

import json
import os
import re
import urllib.request
from pathlib import Path

import pytest

from node.linux import cgroups
from tests.conftest import WaitFor
from tests.e2e.conftest import Docker, Platform, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture(autouse=True)
def pulled(platform: Platform) -> None:
    platform.pull()


def group_files(container_id: str) -> dict[str, Path]:
    """Every control file of the container's cgroup, whatever the hierarchy."""
    return {file.name: file for folder in groups_called(container_id) for file in folder.iterdir() if file.is_file()}


def groups_called(name: str) -> list[Path]:
    """Walk, not rglob: other tests' groups come and go meanwhile."""
    return [Path(where) for where, _, _ in os.walk("/sys/fs/cgroup") if Path(where).name == name]


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
        folders = [folder for folder in groups_called(found) if folder.parent == folder.parents[1] / "in"
                   and folder.parents[1].name == parent]
        assert folders
        docker.ok("pause", found)
        docker.ok("unpause", found)
        docker.ok("rm", "-f", found)
        assert not any(folder.exists() for folder in folders)
    finally:
        platform.remove_containers()
        for top in groups_called(parent):
            (top / "in").rmdir()
            top.rmdir()


def test_huge_pages_by_annotation(newest: Docker, platform: Platform) -> None:
    if "hugetlb" not in cgroups.detect().features():
        pytest.skip("needs a kernel that limits huge pages")
    found = newest.ok("run", "-d", "--annotation", "seawall.hugepages.2MB=4m", platform.image(), "sleep", "60").strip()
    assert group_files(found)["hugetlb.2MB.max"].read_text().strip() == str(4 << 20)
    pid = newest.inspect(found, "{{.State.Pid}}")
    assert found in Path(f"/proc/{pid}/cgroup").read_text().split("0::")[1]
    newest.ok("rm", "-f", found)
    assert not group_files(found)
    wrong = newest("create", "--annotation", "seawall.hugepages.3MB=4m", platform.image())
    assert "huge pages of 3MB: this host has" in wrong.stderr


def test_update_a_living_container(docker: Docker, platform: Platform) -> None:
    found = docker.ok("run", "-d", "--memory", "64m", "--pids-limit", "20", platform.image(), "sleep", "60").strip()
    docker.ok("update", "--memory", "32m", "--memory-swap", "48m", "--cpu-shares", "300", "--pids-limit", "10",
              "--cpus", "0.3", "--restart", "on-failure:4", found)  # fmt: skip
    if on_version_1():
        files = group_files(found)
        assert files["memory.limit_in_bytes"].read_text().strip() == str(32 << 20)
        assert files["cpu.shares"].read_text().strip() == "300"
        assert files["cpu.cfs_quota_us"].read_text().strip() == "30000"
        assert files["pids.max"].read_text().strip() == "10"
    assert docker.inspect(found, "{{json .HostConfig.RestartPolicy}}") == '{"Name":"on-failure","MaximumRetryCount":4}'
    conflict = docker("update", "--cpu-quota", "5000", found)
    assert "CPU Quota cannot be updated as NanoCPUs has already been set" in conflict.stderr
    low = docker("update", "--memory", "1g", found)
    assert "update the memoryswap at the same time" in low.stderr
    docker.ok("update", "--memory", "128m", "--memory-swap", "-1", found)
    docker.ok("restart", "-t", "0", found)
    if on_version_1():
        assert group_files(found)["memory.limit_in_bytes"].read_text().strip() == str(128 << 20)


def test_stats_as_docker_prints_them(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "busy", "--memory", "64m", platform.image(), "sh", "-c", "while :; do :; done")
    docker.ok("create", "--name", "idle", platform.image())
    row = docker.ok("stats", "--no-stream", "--format",
                    "{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.NetIO}}|{{.PIDs}}", "busy", timeout=60)  # fmt: skip
    name, cpu, memory, net, pids = row.strip().split("|")
    assert name == "busy"
    assert 1 < float(cpu.rstrip("%")) <= 110
    assert memory.endswith(" / 64MiB")
    assert re.fullmatch(r"[\d.]+[kM]?B / [\d.]+[kM]?B", net)
    assert pids == "1"
    rows = docker.ok("stats", "--no-stream", "--all", "--format", "{{.Name}} {{.CPUPerc}}", timeout=60).splitlines()
    assert "idle 0.00%" in rows


def test_container_prune(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "up", platform.image(), "sleep", "60")
    docker.ok("run", "--name", "ended", platform.image(), "sh", "-c", "echo some bytes > /f")
    docker.ok("create", "--name", "new", "--label", "keep", platform.image())
    text = docker.ok("container", "prune", "-f", "--filter", "label!=keep")
    assert text.startswith("Deleted Containers:\n")
    assert re.search(r"Total reclaimed space: [1-9]", text)
    assert set(docker.ok("ps", "-a", "--format", "{{.Names}}").split()) == {"up", "new"}


def test_the_same_with_our_own_command(seawall: Docker, platform: Platform) -> None:
    found = seawall.ok("run", "-d", "--name", "up", "--device-read-bps", f"{disk()}:1mb", platform.image(),
                       "sleep", "60").strip()  # fmt: skip
    assert seawall.ok("update", "--memory", "32m", "--label", "a=b", "up").strip() == "up"
    assert seawall.inspect(found, "{{.HostConfig.Memory}} {{.Config.Labels.a}}") == f"{32 << 20} b"
    row = seawall.ok("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "up").split()
    assert (row[0], row[2:]) == ("up", ["/", "32MiB", "1"])
    assert seawall.ok("stats", "--no-stream").splitlines()[0].split("   ")[0] == "CONTAINER ID"
    seawall.ok("create", "--name", "new", platform.image())
    assert "Total reclaimed space" in seawall.ok("container", "prune", "-f")
    assert seawall.ok("ps", "-a", "--format", "{{.Names}}").split() == ["up"]
    gpus = seawall("create", "--gpus", "all", platform.image())
    assert (gpus.returncode, "could not select device driver" in gpus.stderr) == (125, True)


def test_ports_of_a_living_container(seawall: Docker, platform: Platform, wait_for: WaitFor) -> None:
    first, second = free_port(), free_port()
    found = seawall.ok("run", "-d", "-p", f"127.0.0.1:{first}:80", platform.image(), "sh", "-c",
                       "mkdir /w; echo here > /w/index.html; exec httpd -f -p 80 -h /w").strip()  # fmt: skip

    def answers(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as page:
                return page.read() == b"here\n"
        except OSError:
            return False

    wait_for(lambda: answers(first))
    pid = seawall.inspect(found, "{{.State.Pid}}")
    seawall.ok("update", "-p", f"127.0.0.1:{second}:80", found)
    wait_for(lambda: answers(second))
    assert answers(first)
    assert seawall.ok("port", found, "80").split() == [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]
    seawall.ok("update", "--publish-rm", "80", found)
    wait_for(lambda: not answers(first) and not answers(second))
    assert seawall.inspect(found, "{{.State.Pid}}") == pid
    taken = seawall("update", "-p", "127.0.0.1:99999:80", found)
    assert taken.returncode != 0
    seawall.ok("update", "-p", f"127.0.0.1:{first}:80", found)
    platform.kill_node()
    platform.start_node()
    wait_for(lambda: answers(first))
    seawall.ok("restart", "-t", "0", found)
    wait_for(lambda: answers(first))
