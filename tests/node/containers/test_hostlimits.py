"""What a host cannot do is left out with Docker's warning; what it does not permit is refused before anything is made."""

import os

import pytest

from node.containers.errors import InvalidSpec
from node.containers.hostlimits import HostLimits, numbers
from node.containers.initprogram import UnusableInit, find_init, is_static
from node.containers.model import CreateSpec, DeviceRate, Resources, Ulimit

EVERYTHING = HostLimits()


def test_a_host_that_can_all_of_it_changes_nothing():
    wanted = Resources(memory=1 << 26, memory_swap=1 << 27, cpu_shares=5, blkio_weight=10, pids_limit=3)
    assert EVERYTHING.adapt(wanted) == (wanted, ())


@pytest.mark.parametrize(
    ("missing", "wanted", "left", "words"),
    [
        ("swap", Resources(memory=9, memory_swap=20), Resources(memory=9), "Memory limited without swap."),
        ("memory", Resources(memory=9, memory_swap=20), Resources(), "memory limit capabilities"),
        ("memory", Resources(memory_reservation=9), Resources(), "memory soft limit"),
        ("swappiness", Resources(memory_swappiness=0), Resources(), "Memory swappiness discarded."),
        ("pids", Resources(pids_limit=3), Resources(), "PIDs limit discarded."),
        ("cpu_shares", Resources(cpu_shares=3), Resources(), "Shares discarded."),
        ("cpu_quota", Resources(cpu_quota=3000), Resources(), "Quota discarded."),
        ("cpuset", Resources(cpuset_cpus="0"), Resources(), "Cpuset discarded."),
        ("blkio_weight", Resources(blkio_weight=10), Resources(), "Block I/O weight or"),
        ("blkio_throttle", Resources(write_iops=(DeviceRate("/dev/x", 1),)), Resources(), "IOPS write limit discarded."),
        ("kernel_tcp", Resources(kernel_memory_tcp=9), Resources(), "kernel memory TCP"),
    ],
)  # fmt: skip
def test_what_the_host_lacks_is_discarded_with_dockers_warning(missing, wanted, left, words):
    host = HostLimits(frozenset(EVERYTHING.features) - {missing})
    adapted, warnings = host.adapt(wanted)
    assert adapted == left
    assert len(warnings) == 1
    assert words in warnings[0]


def test_what_nobody_would_want_left_out_is_refused():
    host = HostLimits(frozenset())
    with pytest.raises(InvalidSpec, match="NanoCPUs can not be set"):
        host.adapt(Resources(nano_cpus=1))
    with pytest.raises(InvalidSpec, match="CPU real-time scheduler"):
        host.adapt(Resources(cpu_rt_runtime=1))


def test_processors_and_ulimits_that_are_not_there():
    host = HostLimits(processors="0-1,4", memory_nodes="0", ceilings={"nofile": 1000})
    assert host.adapt(Resources(cpuset_cpus="0,4", cpuset_mems="0"))[1] == ()
    with pytest.raises(InvalidSpec, match="Requested CPUs are not available - requested 0-2, available: 0-1,4"):
        host.adapt(Resources(cpuset_cpus="0-2"))
    with pytest.raises(InvalidSpec, match="Requested memory nodes are not available"):
        host.adapt(Resources(cpuset_mems="1"))
    host.adapt(Resources(ulimits=(Ulimit("nofile", 10, 1000), Ulimit("core", -1, -1))))
    for limit in (Ulimit("nofile", 10, 1001), Ulimit("nofile", -1, -1)):
        with pytest.raises(InvalidSpec, match="this host permits no more than 1000"):
            host.adapt(Resources(ulimits=(limit,)))
    assert list(numbers("0-2,4")) == [0, 1, 2, 4]


def test_no_limit_on_memory_while_nothing_is_killed_is_warned_about():
    _, warnings = EVERYTHING.adapt(Resources(oom_kill_disable=True))
    assert warnings[0].startswith("OOM killer is disabled for the container, but no memory limit is set")


def test_this_host_is_read():
    host = HostLimits.of_this_host(frozenset({"memory"}))
    assert set(numbers(host.processors)) >= os.sched_getaffinity(0)
    assert all(ceiling >= 0 for ceiling in host.ceilings.values())


def test_only_a_static_program_can_be_init(tmp_path):
    with pytest.raises(UnusableInit):
        find_init("docker-init")
    with pytest.raises(UnusableInit):
        find_init("/bin/sh")
    script = tmp_path / "init"
    for content in (b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\2\1" + b"\xff" * 60):
        script.write_bytes(content)
        script.chmod(0o755)
        assert not is_static(script)


async def test_init_is_refused_where_there_is_no_program_for_it(node):
    with pytest.raises(InvalidSpec, match="docker-init"):
        await node.containers.create(CreateSpec("alpine", init=True))


async def test_a_cgroup_parent_is_where_the_container_goes(node):
    created = await node.containers.create(CreateSpec("alpine", cgroup_parent="/a/b/"))
    assert node.freezer.place(created.id) == f"a/b/{created.id}"
    plain = await node.containers.create(CreateSpec("alpine"))
    assert node.freezer.place(plain.id) == f"seawall-test/{plain.id}"
    for path in ("../a", "/", "a/../../b"):
        with pytest.raises(InvalidSpec, match="invalid cgroup parent"):
            await node.containers.create(CreateSpec("alpine", cgroup_parent=path))
