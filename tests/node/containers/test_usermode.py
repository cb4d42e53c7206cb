"""Which containers have ids of their own, and what their records and config.json say of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from node.containers import usermode
from node.containers.bundle.ownids import OwnIds
from node.containers.errors import InvalidSpec
from node.containers.idmap import exchange
from node.containers.model import CreateSpec, Namespaces, NetworkSpec, Resources, Security
from node.containers.mountspec import MountSpec
from node.linux.idmapped import Part
from node.userns.ranges import SIZE, IdRange
from tests.conftest import Until
from tests.node.containers.conftest import Node
from tests.node.containers.fakes import FakeSpaces

SPEC = CreateSpec("alpine")
HOSTS = [
    {"namespaces": Namespaces(user="host")},
    {"security": Security(privileged=True)},
    {"network": NetworkSpec("host")},
    {"namespaces": Namespaces(pid="host")},
    {"namespaces": Namespaces(ipc="host")},
]
TOLD = [
    ({"security": Security(cap_add=("sys_time", "NET_ADMIN"))}, "capability SYS_TIME works there alone"),
    ({"security": Security(cap_add=("CAP_MKNOD",))}, "capability MKNOD"),
    ({"security": Security(cap_add=("ALL",))}, "--cap-add ALL"),
    ({"mounts": (MountSpec("bind", "/x", "/x", propagation="rshared"),)}, "shared propagation"),
    ({"user": "1000680000"}, "user or group 1000680000 is not among"),
    ({"security": Security(group_add=("99000000",))}, "user or group 99000000"),
]
OWN = [
    {},
    {"namespaces": Namespaces(uts="host", cgroup="host")},
    {"security": Security(cap_add=("NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "NET_RAW"))},
    {"mounts": (MountSpec("bind", "/x", "/x", propagation="rslave"),)},
    {"user": "65534:65535"},
    {"network": NetworkSpec("container:other")},
]


@pytest.mark.parametrize("values", OWN)
def test_ids_of_its_own(values) -> None:
    assert usermode.choose(replace(SPEC, **values), default=True) == usermode.Mode(own=True)


@pytest.mark.parametrize("values", HOSTS)
def test_the_hosts_ids_where_nobody_expects_others(values) -> None:
    assert usermode.choose(replace(SPEC, **values), default=True) == usermode.Mode(own=False)


@pytest.mark.parametrize(("values", "words"), TOLD)
def test_the_hosts_ids_and_the_user_is_told(values, words) -> None:
    mode = usermode.choose(replace(SPEC, **values), default=True)
    assert not mode.own and words in mode.told
    assert usermode.choose(replace(SPEC, **values), default=False) == usermode.Mode(own=False)
    with pytest.raises(InvalidSpec, match=f"--userns private.*{words}"):
        usermode.choose(replace(SPEC, **values, namespaces=Namespaces(user="private")), default=True)


@pytest.mark.parametrize("values", HOSTS[1:3])
def test_what_contradicts_itself_is_refused(values) -> None:
    with pytest.raises(InvalidSpec, match="conflicting options: --userns auto and --"):
        usermode.choose(replace(SPEC, **values, namespaces=Namespaces(user="auto")), default=False)


def test_larger_ranges_for_users_that_need_them() -> None:
    for values in ({"user": "100000"}, {"user": "5:70000"}, {"security": Security(group_add=("65536",))}):
        mode = usermode.choose(replace(SPEC, **values), default=True)
        assert (mode, mode.word) == (usermode.Mode(True, 2 * SIZE), "auto:size=131072")
        assert usermode.choose(replace(SPEC, **values, namespaces=Namespaces(user="private")), default=False) == mode
        with pytest.raises(InvalidSpec, match="is not among the 65536 ids"):
            usermode.choose(replace(SPEC, **values, namespaces=Namespaces(user="auto:size=65536")), default=True)


def test_larger_ranges_by_name() -> None:
    assert usermode.parse("auto:size=65537") == usermode.Mode(True, 2 * SIZE)
    spec = replace(SPEC, user="100000", namespaces=Namespaces(user="auto:size=131072"))
    assert usermode.choose(spec, default=False) == usermode.Mode(True, 2 * SIZE)


@pytest.mark.parametrize("text", ["keep-id", "auto:size=", "auto:size=10", "auto:size=-1", "container:x", "PRIVATE", "nomap"])
def test_modes_that_are_none(text) -> None:
    with pytest.raises(InvalidSpec, match="userns|USER mode"):
        usermode.parse(text)


# -- config.json

OWN_IDS = OwnIds("/proc/1/fd/9", IdRange(100_000))
BIND = {"destination": "/d", "type": "bind", "source": "/s", "options": ["rbind", "rprivate"]}


def test_binds_have_the_containers_ids() -> None:
    assert OWN_IDS.bind(BIND, recursive=True) == [{**BIND, "options": ["rbind", "rprivate", "ridmap"]}]
    single = {**BIND, "options": ["bind", "ro"]}
    assert OWN_IDS.bind(single, recursive=False) == [{**single, "options": ["bind", "ro", "idmap"]}]


def test_a_bind_with_kernel_file_systems_below_is_taken_apart() -> None:
    found = [Part("/", "ext4", True), Part("/proc", "proc", False), Part("/home", "ext4", True),
             Part("/dev", "devtmpfs", False), Part("/proc/sys/fs/binfmt_misc", "binfmt_misc", False),
             Part("/dev/shm", "tmpfs", True)]  # fmt: skip
    own = replace(OWN_IDS, parts=lambda _source, _recursive: found)
    mounts = own.bind({**BIND, "source": "/", "options": ["rbind", "rro"]}, recursive=True)
    assert [(mount["source"], mount["destination"], mount["options"]) for mount in mounts] == [
        ("/", "/d", ["bind", "rro", "idmap"]),
        ("/proc", "/d/proc", ["rbind", "rro"]),
        ("/home", "/d/home", ["bind", "rro", "idmap"]),
        ("/dev", "/d/dev", ["bind", "rro"]),
        ("/dev/shm", "/d/dev/shm", ["bind", "rro", "idmap"]),
    ]


def test_a_bind_of_the_kernels_own_stays_as_it_is() -> None:
    own = replace(OWN_IDS, parts=lambda _source, _recursive: [Part("/sys", "sysfs", False),
                                                              Part("/sys/fs/cgroup", "cgroup2", False)])
    assert own.bind({**BIND, "source": "/sys"}, recursive=True) == [{**BIND, "source": "/sys"}]


def test_a_mapping_of_the_users_is_carried_on_to_the_host() -> None:
    swapped = exchange((1000, 1000), (0, 0))
    assert swapped is not None
    mapped = OWN_IDS.outside(swapped)
    assert mapped.uids[:3] == ((0, 101_000, 1), (1, 100_001, 999), (1000, 100_000, 1))
    assert all(seen + count <= 100_000 + SIZE for _, seen, count in mapped.uids)


# -- a node


@pytest.fixture
def spaces(cold_node: Node) -> FakeSpaces:
    cold_node.spaces = FakeSpaces()
    return cold_node.spaces


def written(node: Node, container_id: str) -> dict:
    return json.loads((node.home / "containers" / container_id / "config.json").read_text())


async def test_a_start_takes_a_range_and_gives_it_to_the_monitor(
    cold_node: Node, spaces: FakeSpaces, until: Until
) -> None:
    async with cold_node.opened() as node:
        made = await node.run(resources=Resources(sysctls={"net.core.somaxconn": "9", "kernel.msgmax": "8192"}))
        linux = written(node, made)["linux"]
        assert linux["namespaces"][0]["type"] == "user" and linux["namespaces"][0]["path"].endswith("/fd/70")
        assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": 100_000, "size": SIZE}]
        assert linux["sysctl"] == {"kernel.msgmax": "8192"}
        assert node.networks.joined[-1].netns == 71
        assert node.networks.joined[-1].sysctls == {"net.core.somaxconn": "9"}
        assert 72 in node.launcher.last.request.fds
        assert spaces.open == []
        assert (await node.containers.get("box")).spec.namespaces.user == "private"
        assert node.tenants.inside(100_033) == 33
        node.launcher.last.end(0)
        await until(lambda: node.tenants.inside(100_033) == 100_033)


async def test_a_failed_start_keeps_no_range(cold_node: Node, spaces: FakeSpaces) -> None:
    async with cold_node.opened() as node:
        node.launcher.failure = OSError("no")
        with pytest.raises(Exception, match="no"):
            await node.run()
        assert spaces.open == [] and node.tenants.inside(100_000) == 100_000


async def test_without_any_the_record_is_as_dockers(node: Node) -> None:
    made = await node.run()
    assert (await node.containers.get("box")).spec.namespaces.user == ""
    assert written(node, made)["linux"]["namespaces"][0] == {"type": "mount"}
    with pytest.raises(InvalidSpec, match="--userns private: this test has none"):
        await node.containers.create(replace(SPEC, namespaces=Namespaces(user="private")))


async def test_dockers_baseline_has_none(cold_node: Node, spaces: FakeSpaces) -> None:
    async with cold_node.opened() as node:
        await node.run(security=Security(isolation="docker"))
        assert (await node.containers.get("box")).spec.namespaces.user == ""
        assert spaces.open == []


async def test_a_volume_that_cannot_be_mapped(cold_node: Node, spaces: FakeSpaces, tmp_path: Path) -> None:
    cold_node.volumes.origins["remote"] = ("nfs", "server:/x")
    (tmp_path / "volumes" / "remote").mkdir(parents=True)
    mount = MountSpec("volume", "/data", "remote")
    async with cold_node.opened() as node:
        made = await node.containers.create(replace(SPEC, name="box", mounts=(mount,)))
        assert made.warnings[-1] == ("The container has the host's user namespace: the file system of volume remote, nfs, "
                                     "has no id-mapped mounts")
        assert (await node.containers.get("box")).spec.namespaces.user == "host"
        with pytest.raises(InvalidSpec, match="conflicting options: --userns private: the file system of volume remote"):
            await node.containers.create(replace(SPEC, mounts=(mount,), namespaces=Namespaces(user="private")))
        assert node.volumes.claims == []
