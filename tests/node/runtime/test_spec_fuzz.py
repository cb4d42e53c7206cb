"""config.json from an enemy: whatever it says it is understood or refused, and what is refused leaves nothing behind."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.containers.launcher import LauncherFailed
from node.containers.monitor import StartFailed
from node.runtime import mountplan, spec
from node.runtime.fields import InvalidConfig
from tests.node.runtime.conftest import Boxes

WHOLE: dict[str, Any] = {
    "ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": True}, "hostname": "h", "domainname": "d",
    "annotations": {"a": "b"},
    "process": {
        "args": ["sh"], "cwd": "/", "env": ["A=b"], "terminal": True, "consoleSize": {"height": 1, "width": 2},
        "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 18}, "noNewPrivileges": True,
        "capabilities": {"bounding": ["CAP_CHOWN"], "ambient": []}, "oomScoreAdj": 5,
        "rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 2}],
        "scheduler": {"policy": "SCHED_BATCH", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3}, "execCPUAffinity": {"initial": "0-1", "final": "0"},
    },
    "hooks": {"poststop": [{"path": "/x", "args": ["x"], "env": ["A=b"], "timeout": 5}]},
    "mounts": [{"destination": "/x", "type": "tmpfs", "source": "y", "options": ["ro", "size=1m"]},
               {"destination": "/y", "type": "bind", "source": "/y", "options": ["rbind", "ridmap", "rro"]}],
    "linux": {
        "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "user"}, {"type": "network", "path": "/n"},
                       {"type": "time"}],
        "uidMappings": [{"containerID": 0, "hostID": 5, "size": 9}],
        "gidMappings": [{"containerID": 0, "hostID": 5, "size": 9}],
        "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 2}},
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "fileMode": 438, "uid": 0, "gid": 0}],
        "cgroupsPath": "a/b", "resources": {"pids": {"limit": 4}}, "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}, "rootfsPropagation": "slave", "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"], "personality": {"domain": "LINUX"}, "mountLabel": "",
    },
}  # fmt: skip

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([-1, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**40]),
    st.floats(allow_nan=False), st.text(max_size=20),
    st.sampled_from(["", "\0", "\ud800", "/", "..", "/../..", "rshared", "x=\0", "a" * 5000]),
    st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers()), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here] if here else []
    if isinstance(value, dict):
        found += [path for key, below in value.items() for path in paths(below, (*here, key))]
    elif isinstance(value, list):
        found += [path for number, below in enumerate(value) for path in paths(below, (*here, number))]
    return found


def put(document: Any, path: tuple[Any, ...], value: Any, *, away: bool) -> None:
    try:
        for step in path[:-1]:
            document = document[step]
        if away and isinstance(document, dict):
            del document[path[-1]]
        else:
            document[path[-1]] = value
    except (KeyError, IndexError, TypeError, AttributeError):
        return  # another change has taken it away


def understood(document: Any) -> bool:
    """Whether it is; anything but InvalidConfig fails the test."""
    try:
        config = spec.parse(document, "/bundle")
        mountplan.plan(config)
    except InvalidConfig as error:
        assert str(error) and len(str(error)) < 6000
        return False
    return True


def test_the_whole_configuration_is_understood() -> None:
    assert understood(copy.deepcopy(WHOLE))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(paths(WHOLE)), VALUES, st.booleans()), min_size=1, max_size=4))
def test_any_change_is_understood_or_refused(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    document = copy.deepcopy(WHOLE)
    for path, value, away in changes:
        put(document, path, value, away=away)
    understood(document)


@settings(max_examples=80, deadline=None)
@given(VALUES)
def test_any_document_is_refused(document: Any) -> None:
    assert not understood(document)


@pytest.mark.root
@pytest.mark.parametrize("changes", [
    {("root", "path"): "config.json"},
    {("linux", "cgroupsPath"): "../../../escaped"},
    {("linux", "resources"): {"pids": {"limit": "many"}}},
    {("linux", "resources"): {"cpu": {"quota": -(1 << 70)}}},
    {("linux", "seccomp"): {"defaultAction": "SCMP_ACT_GUESS"}},
    {("linux", "seccomp"): {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "x"}]}},
    {("linux", "devices"): [{"path": "/proc/x", "type": "c", "major": 1, "minor": 1}]},
    {("linux", "devices"): [{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 1}]},
    {("linux", "namespaces"): [{"type": "mount"}, {"type": "network", "path": "/etc/passwd"}]},
    {("linux", "namespaces"): [{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/uts"}]},
    {("linux", "namespaces"): [{"type": "mount"}, {"type": "user", "path": "/nowhere"}]},
    {("linux", "uidMappings"): [{"containerID": 0, "hostID": 0, "size": 1}]},
    {("linux", "maskedPaths"): ["/" + "a/" * 3000]},
    {("linux", "sysctl"): {"net.ipv4.nothing": "1"}},
    {("mounts",): [{"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]}]},
    {("mounts",): [{"destination": "/" + "d" * 300, "type": "tmpfs", "source": "x", "options": []}]},
    {("mounts",): [{"destination": "/etc/passwd/x", "type": "tmpfs", "source": "x", "options": []}]},
    {("mounts",): [{"destination": "/x", "type": "overlay", "source": "o", "options": ["lowerdir=/nowhere"]}]},
    {("process", "cwd"): "/etc/passwd/x"},
    {("process", "args"): ["/nowhere"]},
    {("process", "user"): {"uid": 1 << 40}},
    {("process", "scheduler"): {"policy": "SCHED_FIFO", "priority": 0}},
    {("hostname",): "\ud800"},
])  # fmt: skip
async def test_what_fails_late_leaves_nothing_behind(boxes: Boxes, changes: dict[tuple[str, ...], Any]) -> None:
    """The fixture looks for mounts, processes, cgroups and descriptors."""
    box = boxes("true")
    for path, value in changes.items():
        put(box.config, path, value, away=False)
    json.dumps(box.config)
    with pytest.raises((StartFailed, LauncherFailed)) as refused:
        monitor = await box.create()
        await monitor.start()
    assert "the launcher died" not in str(refused.value)
    assert not Path("/sys/fs/cgroup/pids/escaped").exists()
