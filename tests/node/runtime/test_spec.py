"""config.json: what is understood, and that the rest is refused by name."""

import copy
from typing import Any

import pytest

from node.runtime import mountplan, spec
from node.runtime.record import record
from node.runtime.spec import InvalidConfig

CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "process": {"args": ["sh"], "cwd": "/"},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}], "cgroupsPath": "a/b"},
}


def parse(**changes: Any) -> spec.Config:
    document = copy.deepcopy(CONFIG)
    for path, value in changes.items():
        item, names = document, path.split("__")
        for name in names[:-1]:
            item = item.setdefault(name, {})
        item[names[-1]] = value
    return spec.parse(document, "/bundle")


def test_the_least_that_is_a_container() -> None:
    config = parse()
    assert (config.root, config.process.args, config.namespaces) == ("/bundle/rootfs", ("sh",), {"mount": "", "uts": ""})
    assert not any(config.process.capabilities.values()) and config.seccomp is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"hooks": {"prestart": [{"path": "x"}]}}, "hooks.prestart[0].path is not absolute"),
    ({"hooks": {"preparty": []}}, "hooks.preparty"),
    ({"hooks": []}, "hooks is not an object"),
    ({"hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, "timeout is not above zero"),
    ({"ociVersion": "1.x"}, "ociVersion '1.x' is not supported"),
    ({"ociVersion": "2.0.0"}, "ociVersion '2.0.0' is not supported"),
    ({"windows": {"x": 1}}, "windows is another platform's"),
    ({"linux__intelRdt": {"closID": "x"}}, "linux.intelRdt is not supported: "),
    ({"linux__uidMappings": [{"containerID": 0}]}, "linux.uidMappings: 0 ids from 0 and from 0 are no ids"),
    ({"linux__uidMappings": [{"size": 1}]}, "uidMappings and gidMappings go together"),
    ({"linux__uidMappings": [{"size": 1}], "linux__gidMappings": [{"size": 1}]}, "has no user namespace"),
    ({"linux__netDevices": {"eth0": {}}}, "linux.netDevices is not supported: "),
    ({"linux__memoryPolicy": {"mode": "MPOL_BIND"}}, "linux.memoryPolicy is not supported: "),
    ({"linux__personality": {"domain": "LINUX64"}}, "linux.personality.domain: unknown 'LINUX64'"),
    ({"linux__personality": {"domain": "LINUX", "flags": ["x"]}}, "linux.personality.flags: none are defined"),
    ({"linux__timeOffsets": {"boottime": {"secs": 1}}}, "linux.timeOffsets need a new time namespace"),
    ({"linux__timeOffsets": {"realtime": {"secs": 1}}}, "linux.timeOffsets: unknown 'realtime'"),
    ({"linux__namespaces": [{"type": "mount"}, {"type": "net"}]}, "unknown type 'net'"),
    ({"linux__namespaces": [{"type": "mount"}, {"type": "ipc", "path": "x"}]}, "path of ipc is not absolute"),
    ({"linux__namespaces": [{"type": "mount", "path": "/x"}, {"type": "user", "path": "/y"}]},
     "needs a new mount namespace"),
    ({"linux__maskedPaths": ["x"]}, "linux.maskedPaths: 'x' is not absolute"),
    ({"linux__devices": [{"type": "c", "path": "/dev/x", "major": 1}]}, "minor is not a whole number"),
    ({"linux__devices": [{"type": "c", "path": "dev/x", "major": 1, "minor": 1}]}, "path is not absolute"),
    ({"linux__devices": [{"type": "p", "path": "/dev/x", "fileMode": -1}]}, "fileMode is out of range"),
    ({"linux__sysctl": {"net.ipv4.ip_forward": 1}}, "is not a string"),
    ({"annotations": {"": "x"}}, "annotations"),
    ({"annotations": {"x": 1}}, "annotations"),
    ({"root__readonly": "no"}, "root.readonly is neither true nor false"),
    ({"root__path": ""}, "root.path is missing"),
    ({"hostname": "x" * 65}, "more than 64 bytes"),
    ({"linux__namespaces": [{"type": "mount"}, {"type": "user"}], "linux__uidMappings": [
        {"containerID": 0, "hostID": 9, "size": 5}, {"containerID": 4, "hostID": 99, "size": 5}],
      "linux__gidMappings": [{"size": 1}]}, "id 4 is mapped twice"),
    ({"linux__namespaces": [{"type": "mount"}, {"type": "user"}]}, "a new user namespace needs linux.uidMappings"),
    ({"linux__namespaces": [{"type": "mount"}, {"type": "mount"}]}, "names mount twice"),
    ({"linux__cgroupsPath": ""}, "cgroupsPath is missing"),
    ({"linux__rootfsPropagation": "sideways"}, "rootfsPropagation"),
    ({"linux__devices": [{"type": "x", "path": "/dev/x"}]}, "unknown type 'x'"),
    ({"linux__sysctl": {"kernel.core_pattern": "|x"}}, "would change the host"),
    ({"linux__sysctl": {"net.ipv4.ip_forward": "1"}}, "no network namespace"),
    ({"hostname": "x", "linux__namespaces": [{"type": "mount"}]}, "hostname"),
    ({"domainname": "x", "linux__namespaces": [{"type": "mount"}]}, "needs a uts namespace"),
    ({"process__rlimits": [{"type": "RLIMIT_FOO"}]}, "process.rlimits[].type: unknown 'RLIMIT_FOO'"),
    ({"process__rlimits": [{"type": "RLIMIT_CPU"}, {"type": "RLIMIT_CPU"}]}, "names RLIMIT_CPU twice"),
    ({"process__rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}, "the soft limit of RLIMIT_CPU is above"),
    ({"process__oomScoreAdj": 1001}, "oomScoreAdj is out of range"),
    ({"process__scheduler": {"policy": "SCHED_FAST"}}, "process.scheduler.policy: unknown 'SCHED_FAST'"),
    ({"process__scheduler": {"policy": "SCHED_FIFO", "nice": 1}}, "nice is of SCHED_OTHER"),
    ({"process__scheduler": {"policy": "SCHED_OTHER", "priority": 1}}, "priority is of SCHED_FIFO"),
    ({"process__scheduler": {"policy": "SCHED_RR", "deadline": 1}}, "are of SCHED_DEADLINE"),
    ({"process__ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 8}}, "priority is out of range"),
    ({"process__execCPUAffinity": {"initial": "3-1"}}, "names no CPUs"),
    ({"process__execCPUAffinity": {"final": "x"}}, "names no CPUs"),
    ({"process__commandLine": "dir"}, "Windows"),
    ({"process__noNewPrivileges": 1}, "noNewPrivileges is neither true nor false"),
    ({"process__user": {"uid": -1}}, "uid is out of range"),
    ({"process__user": {"umask": 0o1000}}, "umask is out of range"),
    ({"process__args": ["a\ud800"]}, "args is not text"),
    ({"process__args": []}, "process.args is empty"),
    ({"process__args": ["a\0b"]}, "not a list of strings"),
    ({"process__cwd": "tmp"}, "not absolute"),
    ({"process__env": ["NAME"]}, "is not NAME=VALUE"),
    ({"process__env": ["=x"]}, "is not NAME=VALUE"),
    ({"process__user": {"uid": "root"}}, "uid is not a whole number"),
    ({"process__user": {"uid": True}}, "uid is not a whole number"),
    ({"mounts": [{"destination": "/x/..", "type": "tmpfs"}]}, "the root itself"),
    ({"mounts": [{"type": "tmpfs"}]}, "mounts[].destination is missing"),
    ({"mounts": [{"destination": "/x", "uidMappings": [{"size": 9}]}]}, "uidMappings and gidMappings go together"),
    ({"root": None}, "root is not an object"),
    ({"process": []}, "process is not an object"),
    ({"mounts": {}}, "mounts is not a list"),
])
def test_what_is_not_done_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parse(**changes)
    assert message in str(refused.value)


def plan(kind: str, *options: str, source: str = "/src") -> mountplan.Step:
    mount = {"destination": "/x", "type": kind, "source": source, "options": list(options)}
    return mountplan.plan(parse(mounts=[mount]))[0]


RO, NODEV, NOATIME = (mountplan.ATTRIBUTES["ro"], mountplan.ATTRIBUTES["nodev"], 0x10)
ATIME = 0x70


def test_a_bind_and_its_attributes() -> None:
    step = plan("bind", "rbind", "ro", "nodev", "rslave", "async", "silent", "x-gvfs-hide")
    assert (step.kind, step.recursive, step.propagation) == ("bind", True, ("rslave",))
    assert (step.attributes, step.data) == (RO | NODEV, ())
    assert plan("none", "bind").kind == "bind"
    assert parse(mounts=[{"destination": "x", "type": "bind", "source": "y"}]).mounts[0].destination == "/x"
    assert plan("bind", source="y") and parse(
        mounts=[{"destination": "x", "type": "bind", "source": "y"}]).mounts[0].source == "/bundle/y"


@pytest.mark.parametrize(("options", "set_", "clear", "set_below", "clear_below"), [
    (("rro",), 0, 0, RO, 0),
    (("rro", "rrw"), 0, 0, 0, RO),
    (("rrw", "rro"), 0, 0, RO, 0),
    (("nodev", "dev"), 0, NODEV, 0, 0),
    (("dev", "nodev"), NODEV, 0, 0, 0),
    (("noatime",), NOATIME, ATIME, 0, 0),
    (("noatime", "relatime"), 0, ATIME, 0, 0),
    (("rnoatime", "rstrictatime"), 0, 0, 0x20, ATIME),
    (("rw", "rnodev", "rrelatime"), 0, RO, NODEV, ATIME),
])
def test_attributes_their_opposites_and_those_below(
    options: tuple[str, ...], set_: int, clear: int, set_below: int, clear_below: int
) -> None:
    step = plan("bind", *options)
    assert (step.attributes, step.clear) == (set_, clear)
    assert (step.recursive_attributes, step.recursive_clear) == (set_below, clear_below)


def test_what_is_no_attribute_goes_to_the_file_system() -> None:
    step = plan("tmpfs", "noexec", "mode=1777", "size=1m", "sync", "tmpcopyup")
    assert step.data == (("mode", "1777"), ("size", "1m"), ("sync", None)) and step.copy_up


@pytest.mark.parametrize(("kind", "options", "source", "message"), [
    ("bind", ("discard=1",), "/src", "a bind has no option 'discard'"),
    ("bind", ("sync",), "/src", "a bind has no option 'sync'"),
    ("", (), "host:/x", "type '' is not supported"),
    ("bind", (), "", "a bind needs a source"),
    ("bind", ("tmpcopyup",), "/src", "tmpcopyup is of tmpfs"),
    ("bind", ("X-mount.subdir=a", "rshared"), "/src", "a part cannot be shared"),
    ("bind", ("idmap",), "/src", "no user namespace"),
])
def test_mounts_that_are_not_done(kind: str, options: tuple[str, ...], source: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        plan(kind, *options, source=source)


def test_records_are_frozen_values() -> None:
    @record
    class Point:
        x: int
        y: int = 2

    assert Point(1) == Point(1, y=2) != Point(3)
    assert repr(Point(1)) == "Point(x=1, y=2)"
    with pytest.raises(AttributeError):
        Point(1).x = 2
    for wrong in ((), (1, 2, 3)):
        with pytest.raises(TypeError):
            Point(*wrong)
    with pytest.raises(TypeError):
        Point(1, z=3)
