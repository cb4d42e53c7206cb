"""Version 1 groups on this host's kernel: what is written is read back, limits bite, nobody survives a kill."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.linux import cgroups
from node.linux.cgroups import files
from node.linux.cgroups.files import CgroupError

pytestmark = pytest.mark.root
PARENT = f"seawall-test-{os.getpid()}"
ROOT = Path("/sys/fs/cgroup")
MIB = 1 << 20


@pytest.fixture
def manager() -> Any:
    try:
        found = cgroups.detect()
    except CgroupError as error:
        pytest.skip(f"no cgroups here: {error}")
    if found.version != 1:
        pytest.skip("this host has cgroup version 2 only")
    return found


@pytest.fixture
def make(manager: Any) -> Iterator[Callable[..., Any]]:
    made = []

    def create(resources: dict[str, Any], name: str = "a") -> Any:
        group = manager.create(f"{PARENT}/{name}", resources)
        made.append(group)
        return group

    yield create
    for group in made:
        group.kill()
        group.delete()
    manager.prune(PARENT)
    assert not list(ROOT.glob(f"*/{PARENT}*"))


def child(group: Any, program: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", f"import os, sys; sys.stdin.read(1)\n{program}"],
                               stdin=subprocess.PIPE)
    group.add(process.pid)
    assert process.stdin is not None
    process.stdin.write(b"g")
    process.stdin.close()
    return process


def value(controller: str, name: str, group: str = "a") -> str:
    return files.read(f"{ROOT}/{controller}/{PARENT}/{group}", name)


def test_what_is_written_is_read_back(make: Callable[..., Any]) -> None:
    group = make({
        "memory": {"limit": 32 * MIB, "swap": 64 * MIB, "reservation": 16 * MIB, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 20}, "hugepageLimits": [{"pageSize": "2EB", "limit": 0}]})
    assert group.warnings == ["this host does not support the limit: hugepages 2EB"]
    assert value("memory", "memory.limit_in_bytes") == str(32 * MIB)
    assert value("memory", "memory.memsw.limit_in_bytes") == str(64 * MIB)
    assert value("memory", "memory.soft_limit_in_bytes") == str(16 * MIB)
    assert value("cpu", "cpu.shares") == "512"
    assert value("cpu", "cpu.cfs_quota_us") == "50000"
    assert value("cpuset", "cpuset.cpus") == "0"
    assert value("pids", "pids.max") == "20"


@pytest.mark.parametrize(("limit", "swap"), [(64, 128), (8, 16), (8, 64), (40, -1)])
def test_memory_and_swap_change_in_either_direction(make: Callable[..., Any], limit: int, swap: int) -> None:
    group = make({"memory": {"limit": 32 * MIB, "swap": 48 * MIB}})
    group.update({"memory": {"limit": limit * MIB, "swap": swap * MIB if swap > 0 else swap}})
    assert value("memory", "memory.limit_in_bytes") == str(limit * MIB)
    assert int(value("memory", "memory.memsw.limit_in_bytes")) == (swap * MIB if swap > 0 else (1 << 63) - 4096)


def test_cpu_bandwidth_can_be_set_again(make: Callable[..., Any]) -> None:
    group = make({"cpu": {"quota": 50000, "period": 100000, "burst": 40000}})
    group.update({"cpu": {"quota": 2000, "period": 1000}})
    assert (value("cpu", "cpu.cfs_quota_us"), value("cpu", "cpu.cfs_period_us")) == ("2000", "1000")


def test_the_kernels_refusal_is_named_and_nothing_is_left(manager: Any, make: Callable[..., Any]) -> None:
    with pytest.raises(CgroupError, match="cpuset cpus 4095: the kernel refused it"):
        manager.create(f"{PARENT}/b", {"cpu": {"cpus": "4095"}})
    assert not list(ROOT.glob(f"*/{PARENT}*"))


@pytest.mark.parametrize("path", ["", "/", "../a", "a/../../b", "a\nb", "."])
def test_a_path_cannot_leave_the_hierarchy(manager: Any, path: str) -> None:
    with pytest.raises(CgroupError, match="is not a cgroup path"):
        manager.create(path, {})


def test_a_group_in_use_is_not_taken_over(manager: Any, make: Callable[..., Any]) -> None:
    process = child(make({}), "os.read(os.pipe()[0], 1)")
    with pytest.raises(CgroupError, match="has processes"):
        manager.create(f"{PARENT}/a", {})
    process.kill()
    process.wait()


def test_a_memory_limit_kills_and_is_noticed(make: Callable[..., Any]) -> None:
    group = make({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    fd = group.oom_fd()
    try:
        assert group.oom_events() == 0
        process = child(group, "bytearray(64 << 20)")
        assert select.select([fd], [], [], 10)[0]
        assert process.wait(10) == -9
        assert group.oom_events() == 1
        assert group.stats().memory.limit == 16 * MIB
        assert group.stats().memory.peak == 16 * MIB
    finally:
        os.close(fd)


def test_a_pids_limit_refuses_forks(make: Callable[..., Any]) -> None:
    program = "try: os.fork()\nexcept BlockingIOError: os._exit(7)"
    assert child(make({"pids": {"limit": 1}}), program).wait(10) == 7


def test_devices_not_allowed_cannot_be_opened(make: Callable[..., Any]) -> None:
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
             {"allow": True, "type": "c", "access": "m"}, {"allow": False, "type": "c", "major": 10, "minor": 229}]
    program = ("os.open('/dev/null', os.O_RDWR)\n"
               "try: os.open('/dev/zero', os.O_RDONLY)\nexcept PermissionError: os._exit(7)")
    assert child(make({"devices": rules}), program).wait(10) == 7
    assert value("devices", "devices.list").splitlines() == ["c 1:3 rw", "c *:* m"]


def test_join_puts_the_calling_process_into_every_hierarchy(make: Callable[..., Any]) -> None:
    group = make({})
    source = (f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})\n"
              f"from node.linux import cgroups\ncgroups.detect().open({group.path!r}).join()\n"
              "print(open('/proc/self/cgroup').read())")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", source], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("0::")]
    assert lines
    assert all(line.endswith(f":/{group.path}") for line in lines)


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_reaches_everybody_also_the_frozen(make: Callable[..., Any], *, frozen: bool) -> None:
    group = make({})
    processes = [child(group, "os.fork(); os.fork(); os.read(os.pipe()[0], 1)") for _ in range(3)]
    deadline = time.monotonic() + 10
    while len(group.procs()) < 12:
        assert time.monotonic() < deadline
    if frozen:
        group.freeze()
        assert value("freezer", "freezer.state") == "FROZEN"
    group.kill()
    assert group.procs() == []
    assert [process.wait(10) for process in processes] == [-9, -9, -9]


def test_kill_outruns_a_fork_bomb(make: Callable[..., Any]) -> None:
    group = make({"pids": {"limit": 60}})
    process = child(group, "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
                           "while True:\n  try: os.fork()\n  except BlockingIOError: pass")
    while len(group.procs()) < 30:
        assert process.poll() is None
    group.kill()
    assert group.procs() == []
    process.wait(10)


def test_delete_takes_inner_groups_along(make: Callable[..., Any]) -> None:
    group = make({})
    (ROOT / "memory" / group.path / "inner" / "most").mkdir(parents=True)
    group.delete()
    group.delete()
    assert not (ROOT / "memory" / group.path).exists()


def test_what_only_the_tree_beside_limits_is_limited_there(manager: Any, make: Callable[..., Any]) -> None:
    """Hybrid: version 1 holds most controllers and version 2 the rest."""
    if not (ROOT / "unified" / "cgroup.controllers").exists() or "hugetlb" not in manager.features():
        pytest.skip("this host has no version 2 tree with huge pages beside version 1")
    if any(path.name == "hugetlb" for path in ROOT.iterdir()):
        pytest.skip("version 1 holds the huge pages of this host")
    plain = make({"pids": {"limit": 5}}, "plain")
    assert not (ROOT / "unified" / plain.path).exists(), "nobody pays for what nobody asked for"
    group = make({"pids": {"limit": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}, "huge")
    folder = ROOT / "unified" / group.path
    assert (folder / "hugetlb.2MB.max").read_text().strip() == str(4 * MIB)
    assert group.warnings == []
    process = child(group, "import time; time.sleep(30)")
    assert str(process.pid) in (folder / "cgroup.procs").read_text().split()
    assert manager.open(group.path).update({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}) == []
    assert (folder / "hugetlb.2MB.max").read_text().strip() == "0"
    group.kill()
    process.wait()
    group.delete()
    assert not folder.exists()
    with pytest.raises(CgroupError):
        make({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}], "cpu": {"cpus": "4000"}}, "broken")
    assert not (ROOT / "unified" / PARENT / "broken").exists()
