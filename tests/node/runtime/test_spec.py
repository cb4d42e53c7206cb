"""config.json: what is understood, and that the rest is refused by name."""

import copy
from typing import Any

import pytest

from node.runtime import rootfs, spec
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
    assert config.process.capabilities is None and config.seccomp is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"hooks": {"prestart": [{"path": "/x"}]}}, "hooks is not supported yet"),
    ({"ociVersion": "2.0.0"}, "ociVersion '2.0.0' is not supported"),
    ({"windows": {"x": 1}}, "windows is not supported yet"),
    ({"linux__intelRdt": {"closID": "x"}}, "linux.intelRdt is not supported yet"),
    ({"linux__uidMappings": [{"containerID": 0}]}, "linux.uidMappings: 0 ids from 0 and from 0 are no ids"),
    ({"linux__uidMappings": [{"size": 1}]}, "uidMappings and gidMappings go together"),
    ({"linux__uidMappings": [{"size": 1}], "linux__gidMappings": [{"size": 1}]}, "has no user namespace"),
    ({"linux__mountLabel": "x"}, "linux.mountLabel is not supported yet"),
    ({"linux__personality": {"domain": "LINUX32"}}, "linux.personality is not supported yet"),
    ({"linux__namespaces": [{"type": "mount"}, {"type": "user"}]}, "a new user namespace needs linux.uidMappings"),
    ({"linux__namespaces": [{"type": "mount"}, {"type": "time"}]}, "a time namespace is not supported yet"),
    ({"linux__namespaces": [{"type": "pid"}]}, "needs a new mount namespace"),
    ({"linux__namespaces": [{"type": "mount"}, {"type": "mount"}]}, "names mount twice"),
    ({"linux__cgroupsPath": ""}, "cgroupsPath is missing"),
    ({"linux__rootfsPropagation": "sideways"}, "rootfsPropagation"),
    ({"linux__devices": [{"type": "x", "path": "/dev/x"}]}, "unknown type 'x'"),
    ({"linux__sysctl": {"kernel.core_pattern": "|x"}}, "would change the host"),
    ({"linux__sysctl": {"net.ipv4.ip_forward": "1"}}, "no network namespace"),
    ({"hostname": "x", "linux__namespaces": [{"type": "mount"}]}, "hostname"),
    ({"domainname": "x", "linux__namespaces": [{"type": "mount"}, {"type": "uts", "path": "/proc/1/ns/uts"}]}, "uts"),
    ({"process__apparmorProfile": "docker-default"}, "process.apparmorProfile is not supported yet"),
    ({"process__selinuxLabel": "x"}, "process.selinuxLabel is not supported yet"),
    ({"process__args": []}, "process.args is empty"),
    ({"process__args": ["a\0b"]}, "not a list of strings"),
    ({"process__cwd": "tmp"}, "not absolute"),
    ({"process__env": ["NAME"]}, "is not NAME=VALUE"),
    ({"process__env": ["=x"]}, "is not NAME=VALUE"),
    ({"process__capabilities": {"bounding": ["CAP_EVERYTHING"]}}, "unknown capability 'CAP_EVERYTHING'"),
    ({"process__user": {"uid": "root"}}, "uid is not a whole number"),
    ({"process__user": {"uid": True}}, "uid is not a whole number"),
    ({"mounts": [{"destination": "/x/..", "type": "tmpfs"}]}, "the root itself"),
    ({"mounts": [{"destination": "x", "type": "tmpfs"}]}, "not absolute"),
    ({"mounts": [{"destination": "/x", "uidMappings": [{"size": 9}]}]}, "uidMappings and gidMappings go together"),
    ({"root": None}, "root is not an object"),
    ({"process": []}, "process is not an object"),
    ({"mounts": {}}, "mounts is not a list"),
])
def test_what_is_not_done_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parse(**changes)
    assert message in str(refused.value)


def plan(kind: str, *options: str, source: str = "/src") -> rootfs.Step:
    mount = {"destination": "/x", "type": kind, "source": source, "options": list(options)}
    return rootfs.plan(parse(mounts=[mount]))[0]


def test_a_bind_and_its_attributes() -> None:
    step = plan("bind", "rbind", "ro", "nosuid", "rslave")
    assert (step.kind, step.recursive, step.propagation) == ("bind", True, "rslave")
    assert step.attributes == rootfs.ATTRIBUTES["ro"] | rootfs.ATTRIBUTES["nosuid"]
    assert plan("none", "bind").kind == "bind"


def test_recursive_attributes_and_opposites() -> None:
    assert plan("bind", "rro").recursive_attributes == rootfs.ATTRIBUTES["ro"]
    step = plan("bind", "nodev", "dev")
    assert (step.attributes, step.clear) == (0, rootfs.ATTRIBUTES["nodev"])


def test_what_is_no_attribute_goes_to_the_file_system() -> None:
    step = plan("tmpfs", "noexec", "mode=1777", "size=1m", "sync")
    assert step.data == (("mode", "1777"), ("size", "1m"), ("sync", None))


@pytest.mark.parametrize(("kind", "options", "source", "message"), [
    ("bind", ("size=1",), "/src", "a bind has no option 'size'"),
    ("nfs", (), "host:/x", "type 'nfs' is not supported"),
    ("bind", (), "", "a bind needs a source"),
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
