"""Every limit as the kernel has it afterwards, and what it does to processes."""

import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from node.linux.cgroups import CgroupError, InvalidResources, detect
from node.linux.cgroups.store import Cgroup, Cgroups
from tests.vm.inside.conftest import ROOT

MIB = 1 << 20
HOG = "import sys; held = bytearray(int(sys.argv[1])); held[::4096] = b'x' * len(held[::4096]); print('held')"
PYTHON = "/usr/bin/python3"
Make = Callable[..., Cgroup]
Process = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(params=["cgroupfs", "systemd"])
def groups(request: pytest.FixtureRequest) -> Cgroups:
    return detect(driver=request.param)


@pytest.fixture
def within(groups: Cgroups, parent: str) -> str:
    """The parent as the driver names it."""
    return f"{parent}.slice" if groups.driver == "systemd" else parent


@pytest.fixture
def make(groups: Cgroups, within: str) -> Iterator[Make]:
    """Groups with a first process that does nothing."""
    made: list[Cgroup] = []
    with ExitStack() as stack:

        def create(**resources: Any) -> Cgroup:
            first = stack.enter_context(subprocess.Popen(["sleep", "600"]))
            stack.callback(first.kill)
            made.append(groups.create(groups.place(within, str(len(made))), resources, first=first.pid))
            made[-1].add(first.pid)
            return made[-1]

        yield create
        for group in made:
            group.kill()
            group.delete()
    groups.prune(within)


def folder(group: Cgroup) -> Path:
    return ROOT / group.path


def read(group: Cgroup, name: str) -> str:
    return (folder(group) / name).read_text().strip()


@pytest.fixture
def process() -> Iterator[Process]:
    """`process(group, *command)`: held back until it is in the group."""
    with ExitStack() as stack:

        def start(group: Cgroup, *args: str) -> "subprocess.Popen[bytes]":
            started = subprocess.Popen(["sh", "-c", 'read x; exec "$@"', "-", *args], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            stack.enter_context(started)
            stack.callback(started.kill)
            group.add(started.pid)
            assert started.stdin is not None
            started.stdin.write(b"\n")
            started.stdin.flush()
            return started

        yield start


def test_limits_are_the_kernels(make: Make) -> None:
    group = make(
        memory={"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB},
        cpu={"shares": 2048, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "1", "mems": "0"},
        pids={"limit": 33}, blockIO={"weight": 500}, hugepageLimits=[{"pageSize": "2MB", "limit": 2 * MIB}])
    assert group.warnings == []
    found = {name: read(group, name) for name in (
        "memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.max.burst", "cpuset.cpus", "cpuset.mems",
        "pids.max", "hugetlb.2MB.max")}
    assert found == {
        "memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB), "memory.low": str(16 * MIB),
        "cpu.max": "50000 100000", "cpu.max.burst": "10000", "cpuset.cpus": "1", "cpuset.mems": "0", "pids.max": "33",
        "hugetlb.2MB.max": str(2 * MIB)}
    assert 100 < int(read(group, "cpu.weight")) < 300


def test_an_update_leaves_what_it_does_not_name(make: Make) -> None:
    group = make(memory={"limit": 64 * MIB}, pids={"limit": 33})
    assert group.update({"pids": {"limit": -1}}) == []
    assert (read(group, "pids.max"), read(group, "memory.max")) == ("max", str(64 * MIB))


def test_the_files_own_names(make: Make) -> None:
    group = make(memory={"limit": 64 * MIB}, unified={"memory.high": str(48 * MIB), "memory.max": str(80 * MIB),
                                                      "cpu.idle": "1"})
    assert [read(group, name) for name in ("memory.high", "memory.max", "cpu.idle")] == [
        str(48 * MIB), str(80 * MIB), "1"]
    for name, says in (("memory.nonsense", "no such cgroup file"), ("memory.max", "kernel refused")):
        with pytest.raises((InvalidResources, CgroupError), match=says):
            group.update({"unified": {name: "nonsense"}})


@pytest.mark.parametrize(("resources", "says"), [
    ({"cpu": {"cpus": "77"}}, "cpuset"), ({"unified": {"no.such": "1"}}, "no such cgroup file"),
    ({"memory": {"limit": -7}}, "memory limit -7")])
def test_a_group_that_cannot_be_leaves_nothing(
    groups: Cgroups, make: Make, within: str, resources: dict[str, Any], says: str
) -> None:
    with pytest.raises((CgroupError, InvalidResources), match=says):
        make(**resources)
    assert not folder(groups.open(groups.place(within, "0"))).exists()
    if groups.driver == "systemd":
        assert ".scope" not in systemctl("list-units", "--all", f"seawall-{within}*")


def test_memory_is_bounded_and_its_kill_counted(make: Make, process: Process) -> None:
    group = make(memory={"limit": 24 * MIB, "swap": 24 * MIB})
    watch = group.oom_fd()
    try:
        hog = process(group, PYTHON, "-S", "-c", HOG, str(64 * MIB))
        assert hog.wait(60) == -signal.SIGKILL
        assert select.select([watch], [], [], 5)[0]
        assert group.oom_events() == 1
    finally:
        os.close(watch)
    assert process(group, PYTHON, "-S", "-c", HOG, str(4 * MIB)).wait(60) == 0


def test_forks_are_bounded(make: Make, process: Process) -> None:
    group = make(pids={"limit": 3})
    _out, err = process(group, "sh", "-c", "for i in 1 2 3 4 5 6; do sleep 3 & done; wait").communicate(timeout=30)
    assert b"fork" in err.lower()
    assert int(read(group, "pids.events").split()[1]) >= 1


def test_frozen_processes_stand_still_and_die(make: Make, process: Process) -> None:
    group = make()
    counter = process(group, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; done")
    assert counter.stdout is not None
    counter.stdout.readline()
    group.freeze()
    used = group.stats().cpu.total
    time.sleep(0.2)
    assert group.stats().cpu.total == used
    assert counter.pid in group.procs()
    group.thaw()
    counter.stdout.readline()
    group.freeze()
    group.kill()
    assert counter.wait(10) == -signal.SIGKILL


def test_device_nodes_are_guarded(make: Make, process: Process, tmp_path: Path) -> None:
    group = make(devices=[{"allow": False, "access": "rwm"},
                          {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}])
    tries = "for node in null zero; do : </dev/$node && echo $node; done"
    assert process(group, "sh", "-c", tries).communicate(timeout=30)[0] == b"null\n"
    group.update({"devices": [{"allow": True, "type": "c", "access": "rwm"}]})
    assert process(group, "sh", "-c", tries).communicate(timeout=30)[0] == b"null\nzero\n"
    assert b"not permitted" in process(group, "mknod", str(tmp_path / "disk"), "b", "254", "0").communicate(timeout=30)[1]


def test_what_is_used_is_told(make: Make, process: Process) -> None:
    group = make(memory={"limit": 64 * MIB}, cpu={"quota": 20_000, "period": 100_000})
    busy = process(group, PYTHON, "-S", "-c", "import time\nwhile time.process_time() < 0.2: pass")
    assert busy.wait(60) == 0
    seen = group.stats()
    assert (seen.version, seen.memory.limit, seen.pids.limit) == (2, 64 * MIB, None)
    assert seen.cpu.total > 200_000_000
    assert seen.cpu.throttled_periods > 0
    assert seen.memory.peak > MIB
    assert seen.pressure["cpu"].some.total > 0
    assert set(seen.pressure) == {"cpu", "memory", "io"}


def test_block_devices_are_slowed(make: Make, process: Process) -> None:
    device = Path("/sys/block/vda/dev").read_text().strip()
    major, minor = map(int, device.split(":"))
    group = make(blockIO={"throttleWriteBpsDevice": [{"major": major, "minor": minor, "rate": 4 * MIB}]})
    assert read(group, "io.max") == f"{device} rbps=max wbps={4 * MIB} riops=max wiops=max"
    begun = time.monotonic()
    command = ("dd", "if=/dev/zero", "of=/disk/slow", "bs=1M", "count=8", "oflag=direct")
    assert process(group, *command).wait(60) == 0
    assert time.monotonic() - begun > 1
    assert sum(io.value for io in group.stats().io_bytes if io.operation == "write") >= 8 * MIB


def test_a_group_inside_that_took_the_processes(make: Make, process: Process) -> None:
    """What an init in the container does: then new processes go where the others are."""
    group = make()
    inner = folder(group) / "init.scope"
    inner.mkdir()
    sleeper = process(group, "sleep", "60")
    for pid in group.procs():
        (inner / "cgroup.procs").write_text(str(pid))
    (folder(group) / "cgroup.subtree_control").write_text("+pids")
    later = process(group, "sleep", "60")
    assert {sleeper.pid, later.pid} <= set(group.procs())
    group.kill()
    assert (sleeper.wait(10), later.wait(10)) == (-signal.SIGKILL, -signal.SIGKILL)


def test_a_group_with_processes_is_not_made_again(groups: Cgroups, make: Make, within: str) -> None:
    group = make()
    with pytest.raises(CgroupError) as refused:
        groups.create(groups.place(within, "0"), {}, first=os.getpid())
    assert refused.value.errno == errno.EEXIST
    assert group.procs() != []


# --- systemd's own view ----------------------------------------------------------------------------------------------


def systemctl(*args: str) -> str:
    return subprocess.run(["systemctl", "--no-legend", "--plain", *args], capture_output=True, text=True, check=True).stdout


def shown(unit: str, *names: str) -> dict[str, str]:
    lines = systemctl("show", unit, *(f"--property={name}" for name in names)).splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("groups", ["systemd"], indirect=True)
def test_systemd_is_told_every_limit_it_has_a_word_for(make: Make) -> None:
    group = make(
        memory={"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB}, pids={"limit": 33},
        cpu={"shares": 2048, "quota": 25_000, "period": 50_000, "cpus": "1", "mems": "0"},
        unified={"memory.high": str(48 * MIB)})
    unit = Path(group.path).name
    assert shown(unit, "MemoryMax", "MemorySwapMax", "MemoryLow", "MemoryHigh", "TasksMax", "CPUQuotaPerSecUSec",
                 "CPUQuotaPeriodUSec", "AllowedCPUs", "AllowedMemoryNodes", "Delegate", "Slice") == {
        "MemoryMax": str(64 * MIB), "MemorySwapMax": str(32 * MIB), "MemoryLow": str(16 * MIB),
        "MemoryHigh": str(48 * MIB), "TasksMax": "33", "CPUQuotaPerSecUSec": "500ms", "CPUQuotaPeriodUSec": "50ms",
        "AllowedCPUs": "1", "AllowedMemoryNodes": "0", "Delegate": "yes", "Slice": Path(group.path).parent.name}
    # What systemd does not know it would undo now.
    group.update({"memory": {"limit": 32 * MIB}, "pids": {"limit": -1}})
    systemctl("daemon-reload")
    systemctl("set-property", "--runtime", unit, "CPUWeight=77")
    assert [read(group, name) for name in ("memory.max", "pids.max", "cpu.max", "cpu.weight", "memory.high")] == [
        str(32 * MIB), "max", "25000 50000", "77", str(48 * MIB)]


@pytest.mark.parametrize("groups", ["systemd"], indirect=True)
def test_device_rules_outlast_a_reload(make: Make, process: Process) -> None:
    group = make(devices=[{"allow": False, "access": "rwm"}])
    systemctl("daemon-reload")
    systemctl("set-property", "--runtime", Path(group.path).name, "CPUWeight=77")
    assert b"not permitted" in process(group, "sh", "-c", ": </dev/zero").communicate(timeout=30)[1]


@pytest.mark.parametrize("groups", ["systemd"], indirect=True)
def test_a_scope_is_gone_when_its_processes_are(groups: Cgroups, make: Make, within: str) -> None:
    """Whoever would have deleted it was killed; the name is free again."""
    group = make()
    group.kill()
    again = make_again(groups, within)
    assert again.path == group.path
    again.kill()
    again.delete()


def make_again(groups: Cgroups, within: str) -> Cgroup:
    with subprocess.Popen(["sleep", "600"]) as first:
        try:
            return groups.create(groups.place(within, "0"), {"pids": {"limit": 5}}, first=first.pid)
        finally:
            first.kill()
