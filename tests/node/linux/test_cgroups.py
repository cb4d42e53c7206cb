"""What needs no kernel: how hosts mount cgroups, limits read and refused, device rules, version 2 on a folder tree."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.linux.cgroups import InvalidResources
from node.linux.cgroups.device_program import program
from node.linux.cgroups.devices import read_rules, reduce_rules
from node.linux.cgroups.files import CgroupError
from node.linux.cgroups.hierarchies import detect, read_mounts
from node.linux.cgroups.resources import Resources
from node.linux.cgroups.stats import Pressure, Stall
from node.linux.cgroups.v2 import CgroupsV2
from node.linux.cgroups.v2_limits import weight_of_shares

LINE = "32 31 0:29 / {at} rw,relatime - {kind} {kind} rw{options}\n"


def mountinfo(*mounts: tuple[str, str, str]) -> str:
    return "garbage\n" + "".join(LINE.format(at=at, kind=kind, options=options) for at, kind, options in mounts)


def test_version_1_separate_and_together() -> None:
    text = mountinfo(("/sys/fs/cgroup/cpu,cpuacct", "cgroup", ",cpu,cpuacct"), ("/elsewhere/pids", "cgroup", ",pids"),
                     ("/sys/fs/cgroup/my\\040memory", "cgroup", ",memory"), ("/sys/fs/cgroup/again", "cgroup", ",memory"),
                     ("/sys/fs/cgroup/systemd", "cgroup", ",xattr,name=systemd"),
                     ("/sys/fs/cgroup/unified", "cgroup2", ""))
    first, second = read_mounts(text, "/sys/fs/cgroup")
    assert [(h.mountpoint.rpartition("/")[2], h.controllers) for h in first] == [
        ("cpu,cpuacct", ("cpu", "cpuacct")), ("my memory", ("memory",)), ("systemd", ("name=systemd",))]
    assert second == "/sys/fs/cgroup/unified"


@pytest.mark.parametrize(("mounts", "version"), [
    ([("{root}", "cgroup2", "")], 2),
    ([("{root}/systemd", "cgroup", ",name=systemd"), ("{root}/unified", "cgroup2", "")], 2),
    ([("{root}/pids", "cgroup", ",pids"), ("{root}/unified", "cgroup2", "")], 1),
])
def test_the_version_is_found(tmp_path: Path, mounts: list[tuple[str, str, str]], version: int) -> None:
    shown = tmp_path / "mountinfo"
    shown.write_text(mountinfo(*[(at.format(root=tmp_path), kind, options) for at, kind, options in mounts]))
    assert detect(str(tmp_path), mountinfo=str(shown)).version == version
    with pytest.raises(CgroupError, match="no cgroup hierarchy"):
        detect("/nowhere", mountinfo=str(shown))


@pytest.mark.parametrize(("resources", "says"), [
    ({"memory": {"limit": -2}}, "memory limit -2"),
    ({"memory": {"limit": True}}, "memory limit True"),
    ({"memory": {"swap": 5}}, "needs a memory limit"),
    ({"memory": {"limit": 10, "swap": 5}}, "is below the memory limit"),
    ({"memory": {"swappiness": 101}}, "swappiness 101"),
    ({"memory": []}, "memory must be an object"),
    ({"cpu": {"shares": 1}}, "cpu shares 1: the kernel takes"),
    ({"cpu": {"cpus": "0\n1"}}, "one line of text"),
    ({"pids": {"limit": "7"}}, "pids limit '7'"),
    ({"blockIO": {"weight": 9}}, "block io weight 9"),
    ({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}, "hugepage size"),
    ({"unified": {"../memory.max": "1"}}, "not a cgroup file"),
    ({"unified": {"cgroup.procs": "1"}}, "not a cgroup file"),
    ({"rdma": {"a b": {"hcaHandles": 1}}}, "rdma 'a b'"),
    ({"rdma": {"mlx": {}}}, "neither hcaHandles nor hcaObjects"),
    ({"rdma": {"mlx": {"hcaHandles": -1}}}, "rdma hcaHandles -1"),
    ({"devices": [{"allow": "yes"}]}, "allow: true or false"),
    ({"devices": [{"allow": True, "access": "rx"}]}, "device access"),
    ({"devices": [{"allow": True, "type": "p"}]}, "device type"),
    ({"devices": [{"allow": True, "major": 1 << 32}]}, "device major"),
])
def test_impossible_limits_are_named(resources: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidResources, match=says):
        Resources(resources)


# --- device rules ----------------------------------------------------------------------------------------------------

NUMBER = st.sampled_from([None, -1, 0, 1, 3, (1 << 31) + 1, (1 << 32) - 1])
ENTRY = st.fixed_dictionaries({"allow": st.booleans(), "type": st.sampled_from(["a", "b", "c", None]), "major": NUMBER,
                               "minor": NUMBER, "access": st.sampled_from(["r", "w", "m", "rw", "rm", "rwm", None])})
NODE = st.tuples(st.sampled_from(["b", "c"]), st.sampled_from([0, 1, 3, (1 << 31) + 1, (1 << 32) - 1]),
                 st.sampled_from([0, 1, 3, (1 << 31) + 1, (1 << 32) - 1]))


def last_match(entries: list[dict[str, Any]], node: tuple[str, int, int], access: str) -> bool:
    allowed = False
    for entry in entries:
        numbers = zip((entry["major"], entry["minor"]), node[1:], strict=True)
        if (entry["type"] in (None, "a", node[0]) and all(rule in (None, -1, is_) for rule, is_ in numbers)
                and access in (entry["access"] or "rwm")):
            allowed = entry["allow"]
    return allowed


def execute(code: bytes, node: tuple[str, int, int], access: int) -> bool:
    """The few eBPF instructions that the device program is made of."""
    context = struct.pack("=III", access << 16 | {"b": 1, "c": 2}[node[0]], node[1], node[2])
    registers, at = [0] * 10, 0
    while True:
        operation, both, offset, value = struct.unpack_from("=BBhI", code, at * 8)
        target, source, at = both & 15, both >> 4, at + 1
        if operation == 0x61:
            registers[target] = struct.unpack_from("=I", context, offset)[0]
        elif operation == 0xBF:
            registers[target] = registers[source]
        elif operation == 0xB7:
            registers[target] = value
        elif operation == 0x57:
            registers[target] &= value
        elif operation == 0x77:
            registers[target] >>= value
        elif operation == 0x05:
            at += offset
        elif operation == 0x56:
            at += offset if registers[target] & 0xFFFFFFFF != value else 0
        elif operation == 0x45:
            at += offset if registers[target] & value else 0
        else:
            assert operation == 0x95
            return registers[0] == 1


@given(st.lists(ENTRY, max_size=8), NODE, st.sets(st.sampled_from("rwm"), min_size=1))
def test_the_program_lets_the_last_matching_rule_decide(
    entries: list[dict[str, Any]], node: tuple[str, int, int], wanted: set[str]
) -> None:
    bits = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in wanted)
    expected = all(last_match(entries, node, letter) for letter in wanted)
    assert execute(program(read_rules(entries)), node, bits) == expected


@given(st.lists(ENTRY, max_size=6), NODE, st.sampled_from("rw"))
def test_version_1_means_the_same_or_refuses(entries: list[dict[str, Any]], node: tuple[str, int, int],
                                             access: str) -> None:
    try:
        default, exceptions = reduce_rules(read_rules(entries))
    except InvalidResources:
        return
    bit = {"r": 2, "w": 4}[access]
    listed = any(bits & bit and kind == node[0] and major in (None, node[1]) and minor in (None, node[2])
                 for (kind, major, minor), bits in exceptions.items())
    assert (not default if listed else default) == last_match(entries, node, access)


def test_version_1_refuses_a_hole_in_a_wildcard() -> None:
    rules = read_rules([{"allow": True, "type": "c", "major": 10, "access": "rw"},
                        {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rw"}])
    with pytest.raises(InvalidResources, match="narrower than the earlier"):
        reduce_rules(rules)


# --- version 2 on a tree of plain files ------------------------------------------------------------------------------

FILES = {"cgroup.procs": "", "memory.max": "max", "memory.swap.max": "max", "memory.low": "0", "memory.current": "4096",
         "cpu.weight": "100", "cpu.max": "max 100000", "pids.max": "max", "io.weight": "100", "io.max": "",
         "cgroup.controllers": "cpu memory pids io", "cgroup.subtree_control": "cpu memory pids io",
         "cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 1\n", "memory.events": "oom 3\noom_kill 2\nmax 9\n",
         "rdma.max": "", "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.25 total=12\n",
         "cpu.stat": "usage_usec 7\nuser_usec 4\nsystem_usec 3\n", "io.stat": "8:0 rbytes=5 wbytes=6 rios=1 wios=2\n"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in (tmp_path, tmp_path / "p", tmp_path / "p" / "a"):
        folder.mkdir(exist_ok=True)
        for name, text in FILES.items():
            (folder / name).write_text(text)
    return tmp_path


def test_limits_of_version_2(tree: Path) -> None:
    group = CgroupsV2(str(tree)).create("p/a", {
        "memory": {"limit": 1 << 20, "swap": 3 << 20, "reservation": 1 << 19, "swappiness": 3, "disableOOMKiller": True},
        "cpu": {"shares": 1024, "quota": 50000, "cpus": "0"}, "pids": {"limit": 9},
        "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 77}]},
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 9}}, "unified": {"memory.low": "77"}})

    def now(name: str) -> str:
        return (tree / "p" / "a" / name).read_text()

    assert (now("memory.swap.max")[:7], now("memory.max")[:7]) == (str(2 << 20), str(1 << 20))
    assert now("cpu.max").startswith("50000 100000")
    assert now("pids.max").startswith("9")
    assert now("io.max") == "8:0 rbps=77"
    assert now("rdma.max") == "mlx5_1 hca_handle=3 hca_object=9"
    assert now("memory.low").startswith("77")
    assert group.warnings == [f"this host does not support the limit: {name}"
                              for name in ("memory swappiness", "disable OOM killer", "cpuset cpus")]
    with pytest.raises(CgroupError, match="4096 bytes are in use"):
        group.update({"memory": {"limit": 100, "checkBeforeUpdate": True}})
    with pytest.raises(InvalidResources, match="no such cgroup file"):
        group.update({"unified": {"memory.magic": "1"}})


def test_looking_on_in_version_2(tree: Path) -> None:
    group = CgroupsV2(str(tree)).open("p/a")
    stats = group.stats()
    assert (stats.cpu.total, stats.cpu.user, stats.memory.usage, stats.memory.failures) == (7000, 4000, 4096, 9)
    assert [(io.operation, io.value) for io in stats.io_bytes] == [("read", 5), ("write", 6)]
    assert stats.memory.limit is None
    assert stats.pressure == {"cpu": Pressure(Stall((1.5, 0.0, 0.25), 12_000))}
    assert group.oom_events() == 2
    group.freeze()
    assert (tree / "p" / "a" / "cgroup.freeze").read_text() == "1"


def test_shares_become_weights_on_the_agreed_curve() -> None:
    assert [weight_of_shares(shares) for shares in (2, 1024, 262144)] == [1, 100, 10000]
    weights = [weight_of_shares(shares) for shares in range(2, 5000)]
    assert weights == sorted(weights)
