"""config.json says what was asked, no more and no less, and Docker's defaults where nothing was."""

import json
import os
from dataclasses import replace

import pytest

from node.containers.bundle.config import Joins, Surroundings, config, exec_process
from node.containers.bundle.security import MASKED, READONLY
from node.containers.bundle.users import ProcessUser, UnknownUser
from node.containers.errors import InvalidSpec
from node.containers.model import (
    Container,
    CreateSpec,
    Device,
    ExecSpec,
    MountPoint,
    Namespaces,
    NetworkSpec,
    Resources,
    Security,
    Ulimit,
)
from node.linux import seccomp
from node.linux.capabilities import ALL, DEFAULT

SEAWALL = Security(isolation="seawall")
PASSWD = {"/etc/passwd": b"web:x:5:6::/home/web:\n"}
AROUND = Surroundings("seawall-1/abc", "/proc/7/fd/9", Joins(), "/usr/bin/docker-init", PASSWD.get)


def made(mounts=(), around=AROUND, **values):
    spec = replace(CreateSpec("alpine", env=("A=1",), hostname="box"), **{"security": SEAWALL, **values})
    container = Container(
        "abc", "n", "t", "alpine", "sha256:x", spec, "sh", ("-c", "x"), tuple(mounts), directory="/c/abc"
    )
    result = config(container, around)
    json.dumps(result)
    return result


def destinations(result):
    return [mount["destination"] for mount in result["mounts"]]


def mount_at(result, destination):
    return next(mount for mount in result["mounts"] if mount["destination"] == destination)


def test_the_default_container_is_confined():
    result = made()
    process, linux = result["process"], result["linux"]
    assert process["args"] == ["sh", "-c", "x"]
    assert process["cwd"] == "/"
    assert process["noNewPrivileges"] is True
    assert set(process["capabilities"]["bounding"]) == set(DEFAULT)
    assert process["capabilities"]["effective"] == process["capabilities"]["bounding"]
    assert "inheritable" not in process["capabilities"]
    assert "ambient" not in process["capabilities"]
    assert [space["type"] for space in linux["namespaces"]] == ["mount", "pid", "network", "uts", "ipc", "cgroup"]
    assert set(MASKED) <= set(linux["maskedPaths"])
    assert linux["readonlyPaths"] == list(READONLY)
    assert linux["cgroupsPath"] == "seawall-1/abc"
    assert linux["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert seccomp.compile_profile(linux["seccomp"])
    assert linux["resources"]["devices"][0] == {"allow": False, "type": "a", "access": "rwm"}
    assert "memory" not in linux["resources"]
    assert result["root"] == {"path": "rootfs", "readonly": False}
    assert result["hostname"] == "box"


def test_the_environment_is_dockers():
    env = made(tty=True)["process"]["env"]
    assert env[0].startswith("PATH=/usr/local/sbin:")
    assert env[1:] == ["HOSTNAME=box", "TERM=xterm", "A=1", "HOME=/root"]
    assert made(env=("HOME=/x", "PATH=/y"))["process"]["env"] == ["PATH=/y", "HOSTNAME=box", "HOME=/x"]


def test_another_user_holds_no_capabilities():
    process = made(user="web")["process"]
    assert (process["user"]["uid"], process["user"]["gid"]) == (5, 6)
    assert process["capabilities"]["effective"] == []
    assert process["capabilities"]["permitted"] == []
    assert set(process["capabilities"]["bounding"]) == set(DEFAULT)
    with pytest.raises(UnknownUser):
        made(user="nobody")


def test_capabilities_added_and_dropped():
    def bounding(add=(), drop=()):
        return set(made(security=replace(SEAWALL, cap_add=add, cap_drop=drop))["process"]["capabilities"]["bounding"])

    assert bounding(("net_admin",), ("CAP_CHOWN",)) == set(DEFAULT) - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"}
    assert bounding((), ("ALL",)) == set()
    assert bounding(("KILL",), ("all",)) == {"CAP_KILL"}
    everything = bounding(("ALL",))
    assert everything <= set(ALL)
    assert "CAP_SYS_ADMIN" in everything
    assert bounding(("ALL",), ("SYS_ADMIN",)) == everything - {"CAP_SYS_ADMIN"}


def test_privileged_means_all_of_it():
    result = made(security=replace(SEAWALL, privileged=True))
    assert "seccomp" not in result["linux"]
    assert result["linux"]["maskedPaths"] == []
    assert result["linux"]["readonlyPaths"] == []
    assert result["process"]["noNewPrivileges"] is False
    assert result["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "rw" in mount_at(result, "/sys")["options"]
    assert {"/dev/null", "/dev/zero"} <= {device["path"] for device in result["linux"]["devices"]}
    assert not any(device["path"].startswith("/dev/pts") for device in result["linux"]["devices"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), True),
        (("no-new-privileges",), True),
        (("no-new-privileges:true",), True),
        (("no-new-privileges=false",), False),
        (("no-new-privileges:0",), False),
    ],
)
def test_no_new_privileges(options, expected):
    assert made(security=replace(SEAWALL, security_opt=options))["process"]["noNewPrivileges"] is expected


def test_a_seccomp_profile_of_dockers_form():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "includes": {}, "excludes": {}},
            {"name": "chmod", "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["chown"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "99.0"}},
        ],
    }
    option = f"seccomp={json.dumps(profile)}"
    assert [
        rule["names"] for rule in made(security=replace(SEAWALL, security_opt=(option,)))["linux"]["seccomp"]["syscalls"]
    ] == [["mkdir"]]
    assert "seccomp" not in made(security=replace(SEAWALL, security_opt=("seccomp=unconfined",)))["linux"]


HOSTILE = [
    "[]", "null", '{"defaultAction":5}', '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":5}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[5]}',
    '{"defaultAction":"SCMP_ACT_ALLOW","archMap":7}',
    '{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":5}]}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":5}}]}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":5}]}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}',
    '{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}', "[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("profile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_seccomp_profiles_are_refused(profile):
    with pytest.raises(InvalidSpec, match="Decoding seccomp profile failed"):
        made(security=replace(SEAWALL, security_opt=(f"seccomp={profile}",)))


def test_limits():
    limits = Resources(memory=10**8, nano_cpus=5 * 10**8, pids_limit=7, cpuset_cpus="0", memory_reservation=10**7)
    resources = made(resources=limits)["linux"]["resources"]
    assert resources["memory"] == {"limit": 10**8, "swap": 2 * 10**8, "reservation": 10**7}
    assert resources["cpu"] == {"quota": 50_000, "period": 100_000, "cpus": "0"}
    assert resources["pids"] == {"limit": 7}
    assert made(resources=Resources(memory=10**8, memory_swap=-1))["linux"]["resources"]["memory"]["swap"] == -1


def test_ulimits_and_oom_score():
    process = made(resources=Resources(ulimits=(Ulimit("nofile", 10, -1),), oom_score_adj=-5))["process"]
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 2**64 - 1}]
    assert process["oomScoreAdj"] == -5


def test_devices():
    result = made(
        resources=Resources(devices=(Device("/dev/null", "/dev/hole", "r"),), device_cgroup_rules=("b 8:* rw",))
    )
    node = result["linux"]["devices"][0]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/hole", "c", 1, 3)
    rules = result["linux"]["resources"]["devices"]
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"} in rules
    assert rules[-1] == {"allow": True, "type": "b", "major": 8, "access": "rw"}
    for path in ("/dev/not-there", "/etc"):
        with pytest.raises(InvalidSpec, match="error gathering device information"):
            made(resources=Resources(devices=(Device(path, "/dev/x"),)))


def test_user_mounts_come_last_shallow_first_and_replace_defaults():
    result = made(
        [
            MountPoint("bind", "/a/b/c", "/src", read_only=True),
            MountPoint("tmpfs", "/dev/shm", options=("size=1m",)),
            MountPoint("bind", "/a", "/src2", propagation="rslave"),
            MountPoint("bind", "/etc/hosts", "/my/hosts"),
        ]
    )
    where = destinations(result)
    assert len(set(where)) == len(where)
    assert where[:2] == ["/dev", "/proc"]
    assert where.index("/a") < where.index("/a/b/c")
    assert mount_at(result, "/dev/shm")["options"] == ["size=1m"]
    assert mount_at(result, "/etc/hosts")["source"] == "/my/hosts"
    assert mount_at(result, "/etc/hostname")["source"] == "/c/abc/hostname"
    assert "rro" in mount_at(result, "/a/b/c")["options"]
    assert result["linux"]["rootfsPropagation"] == "slave"


def test_namespaces_of_the_host_and_of_others():
    shared = replace(AROUND, netns_path=None)
    result = made(around=shared, namespaces=Namespaces("host", "host", "host", "host"), network=NetworkSpec("host"))
    assert [space["type"] for space in result["linux"]["namespaces"]] == ["mount"]
    assert "hostname" not in result
    assert result["linux"]["sysctl"] == {}
    assert mount_at(result, "/dev/shm")["source"] == "/dev/shm"
    joined = made(around=replace(AROUND, joins=Joins(pid=8, ipc=9)), namespaces=Namespaces("container:x"))
    assert {"type": "pid", "path": "/proc/8/ns/pid"} in joined["linux"]["namespaces"]
    assert {"type": "ipc", "path": "/proc/9/ns/ipc"} in joined["linux"]["namespaces"]
    assert {"type": "ipc"} not in joined["linux"]["namespaces"]
    assert mount_at(joined, "/dev/shm")["source"] == "/proc/9/root/dev/shm"


def test_an_exec_is_confined_like_its_container():
    spec = CreateSpec("alpine", env=("A=1",), hostname="box", workdir="/srv", security=replace(SEAWALL, cap_drop=("ALL",)))
    container = Container("abc", "n", "t", "alpine", "sha256:x", spec, "sh", ())
    user = ProcessUser(0, 0, (), "/root")
    process = exec_process(container, ExecSpec(("id",), env=("B=2",)), user)
    assert process["cwd"] == "/srv"
    assert process["capabilities"]["bounding"] == []
    assert process["noNewPrivileges"] is True
    assert process["env"][-3:] == ["A=1", "B=2", "HOME=/root"]
    privileged = exec_process(container, ExecSpec(("id",), privileged=True, workdir="/w"), user)
    assert len(privileged["capabilities"]["effective"]) > 30
    assert privileged["cwd"] == "/w"


def test_thermal_throttle_is_masked_where_it_is():
    masked = made()["linux"]["maskedPaths"]
    path = "/sys/devices/system/cpu/cpu0/thermal_throttle"
    assert (path in masked) == os.path.exists(path)
