"""Limited rights: every operation, and what a hostile body may not reach."""

import json
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any
from unittest import mock

import pytest
from aiohttp.test_utils import make_mocked_request

from node.access.callers import Caller
from node.access.rules import Access, Level, NotAllowed, Rights
from node.api.call import Call
from node.api.guard import operations as ops
from node.api.guard.guard import Guard
from node.api.guard.owned import LABEL
from node.api.routes import Groups, routes
from node.api.version import NEWEST
from node.network.subnets import Route
from node.volumes.errors import NoSuchVolume
from ocispec.errors import NotFound

MINE, OTHER = {LABEL: "shop"}, {LABEL: "bank"}


class Things:
    def __init__(self) -> None:
        self.containers = {"mine": ("1" * 64, MINE), "theirs": ("2" * 64, OTHER), "admins": ("3" * 64, {})}
        self.networks = {"net": ("4" * 64, MINE), "othernet": ("5" * 64, OTHER)}
        self.volumes: dict[str, Mapping[str, str]] = {"data": MINE, "otherdata": OTHER}

    async def container(self, name: str) -> tuple[str, Mapping[str, str]]:
        if name not in self.containers:
            raise NotFound(f"No such container: {name}")
        return self.containers[name]

    async def network(self, name: str) -> tuple[str, Mapping[str, str]]:
        if name not in self.networks:
            raise NotFound(f"network {name} not found")
        return self.networks[name]

    async def volume(self, name: str) -> Mapping[str, str]:
        if name not in self.volumes:
            raise NoSuchVolume(name)
        return self.volumes[name]

    async def claim_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self.volumes.setdefault(name, labels)

    async def container_of_exec(self, exec_id: str) -> str:
        return {"myexec": "mine", "theirexec": "theirs"}[exec_id]


class Fixed(Access):
    """Everybody has these rights."""

    def __init__(self, rights: Rights) -> None:
        super().__init__(None)
        self._fixed = rights

    def rights_of(self, _caller: Caller) -> Rights:
        return self._fixed


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.fixture
def shop(things: Things) -> Guard:
    return Guard(Fixed(Rights(Level.PROJECT, "shop", frozenset({"/srv/shop"}))), things)


@pytest.fixture
def reader(things: Things) -> Guard:
    return Guard(Fixed(Rights(Level.READ)), things)


def call(body: Any = None, query: str = "", **path: str) -> Call:
    request = make_mocked_request("POST", f"/x?{query}", headers={"Content-Type": "application/json"})
    request._read_bytes = b"" if body is None else json.dumps(body).encode()
    return Call(request, NEWEST, path)


async def admit(guard: Guard, operation: str, body: Any = None, query: str = "", **path: str) -> Call:
    return await guard.admit(Caller(4711), operation, call(body, query, **path))


def table() -> set[str]:
    return {route.operation for route in routes(Groups(*[mock.MagicMock()] * len(Groups.__dataclass_fields__)))}


def test_the_sets_name_operations_that_exist() -> None:
    assert table() >= ops.READ | ops.PROJECT


@pytest.mark.parametrize("operation", sorted(table() - ops.READ))
async def test_who_may_read_changes_nothing(reader: Guard, operation: str) -> None:
    with pytest.raises(NotAllowed, match=f"{operation} is not allowed with rights to read"):
        await admit(reader, operation, id="mine", name="data")


@pytest.mark.parametrize("operation", sorted(table() - ops.PROJECT))
async def test_a_project_has_no_operation_that_was_not_thought_of(shop: Guard, operation: str) -> None:
    with pytest.raises(NotAllowed):
        await admit(shop, operation, id="mine", name="data")


@pytest.mark.parametrize("operation", sorted(ops.OF_CONTAINER))
async def test_another_projects_container_does_not_exist(shop: Guard, operation: str) -> None:
    for name in ("theirs", "admins", "nobody"):
        with pytest.raises(NotFound, match=f"No such container: {name}"):
            await admit(shop, operation, id=name)
    # The handler gets the id: a name that changes hands meanwhile leads nowhere else.
    assert (await admit(shop, operation, id="mine")).path["id"] == "1" * 64


async def test_execs_networks_and_volumes_of_others_do_not_exist(shop: Guard) -> None:
    await admit(shop, "ExecStart", id="myexec")
    await admit(shop, "NetworkDelete", id="net")
    await admit(shop, "VolumeDelete", name="data")
    with pytest.raises(NotFound, match="No such exec instance: theirexec"):
        await admit(shop, "ExecStart", id="theirexec")
    with pytest.raises(NotFound, match="network othernet not found"):
        await admit(shop, "NetworkInspect", id="othernet")
    with pytest.raises(NotFound, match="no such volume"):
        await admit(shop, "VolumeInspect", name="otherdata")
    with pytest.raises(NotFound, match="no such volume"):
        await admit(shop, "VolumeCreate", {"Name": "otherdata"})
    with pytest.raises(NotFound, match="No such container: theirs"):
        await admit(shop, "NetworkConnect", {"Container": "theirs"}, id="net")


@pytest.mark.parametrize("host", [{}, {"UsernsMode": ""}, {"usernsmode": ""}, {"GroupAdd": ["3000000000"]}])
async def test_ids_of_the_hosts_are_had_by_no_other_way_either(things: Things, host: dict[str, Any]) -> None:
    """What does not go with ids of its own gives a container the host's, unless they were asked for."""
    rights = Fixed(Rights(Level.PROJECT, "shop"))
    for own_users, mode in ((True, "private"), (False, "")):
        admitted = await admit(Guard(rights, things, own_users=own_users), "ContainerCreate",
                               {"Image": "x", "User": "3000000000", "HostConfig": host})
        assert (await admitted.fields()).object("HostConfig").text("UsernsMode") == mode


@pytest.mark.parametrize("operation", sorted(ops.NARROWED))
async def test_lists_are_narrowed_whatever_is_asked(shop: Guard, operation: str) -> None:
    narrowed = await admit(shop, operation, query='filters={"label":{"seawall.project=bank":true},"name":["x"]}')
    assert json.loads(narrowed.text("filters")) == {
        "label": ["seawall.project=bank", "seawall.project=shop"], "name": ["x"],
    }  # fmt: skip
    assert json.loads((await admit(shop, operation)).text("filters")) == {"label": ["seawall.project=shop"]}


async def test_what_is_made_carries_the_label(shop: Guard) -> None:
    made = await admit(shop, "ContainerCreate", {"Image": "x", "labels": {"a": "b"}})
    assert (await made.fields()).mapping("Labels") == {"a": "b", LABEL: "shop"}
    with pytest.raises(NotAllowed, match="yours is 'shop'"):
        await admit(shop, "ContainerCreate", {"Image": "x", "Labels": {LABEL: "bank"}})
    with pytest.raises(NotAllowed, match="label seawall.secrets"):
        await admit(shop, "ContainerCreate", {"Image": "x", "Labels": {"seawall.secrets": "the-bank's"}})
    with pytest.raises(NotAllowed, match="yours is 'shop'"):
        await admit(shop, "ContainerUpdate", {"Labels": {LABEL: "bank"}}, id="mine")
    with pytest.raises(NotAllowed, match="PidsLimit: no more than 4096"):
        await admit(shop, "ContainerUpdate", {"PidsLimit": -1}, id="mine")
    await admit(shop, "ContainerUpdate", {"PidsLimit": 100}, id="mine")


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True}, {"privileged": True}, {"PRIVILEGED": True}, {"CapAdd": ["SYS_ADMIN"]},
        {"Devices": [{"PathOnHost": "/dev/sda"}]}, {"DeviceCgroupRules": ["a *:* rwm"]}, {"DeviceRequests": [{}]},
        {"PidMode": "host"}, {"IpcMode": "host"}, {"UTSMode": "host"}, {"UsernsMode": "host"},
        {"CgroupnsMode": "host"}, {"NetworkMode": "host"}, {"CgroupParent": "/"}, {"Runtime": "x"},
        {"SecurityOpt": ["seccomp=unconfined"]}, {"SecurityOpt": ["apparmor:unconfined"]},
        {"MaskedPaths": []}, {"ReadonlyPaths": []}, {"Binds": ["/:/host"]}, {"Binds": ["/srv/shop/../..:/host"]},
        {"Binds": ["/srv/shop/below:/host"]}, {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/e"}]},
        {"Mounts": [{"Type": "bind", "Source": "/srv/shop/a-link-to-etc/..", "Target": "/e"}]},
        {"Mounts": [{"Type": "bind", "Source": "/srv/shop/./a-link/../", "Target": "/e"}]},
        {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/e", "VolumeOptions": {"DriverConfig": {
            "Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}}}]},
        {"LogConfig": {"Type": "syslog"}}, {"OomScoreAdj": -1000}, {"VolumeDriver": "nfs"}, {"Links": ["theirs:x"]},
        {"Annotations": {"x": "y"}}, {"AFieldOfTheFuture": 1}, {"OomKillDisable": True}, {"Isolation": "docker"},
        {"PidsLimit": -1}, {"PidsLimit": 5000}, {"SecurityOpt": ["unmask=ALL"]},
    ],
)  # fmt: skip
async def test_no_body_reaches_the_host(shop: Guard, host: dict[str, Any]) -> None:
    with pytest.raises(NotAllowed):
        await admit(shop, "ContainerCreate", {"Image": "x", "HostConfig": host})


@pytest.mark.parametrize(
    "host",
    [
        {"NetworkMode": "container:theirs"}, {"PidMode": "container:admins"}, {"IpcMode": "container:theirs"},
        {"NetworkMode": "othernet"}, {"VolumesFrom": ["theirs:ro"]}, {"Binds": ["otherdata:/data"]},
        {"Mounts": [{"Type": "volume", "Source": "otherdata", "Target": "/data"}]},
    ],
)  # fmt: skip
async def test_no_body_reaches_another_project(shop: Guard, host: dict[str, Any]) -> None:
    with pytest.raises(NotFound):
        await admit(shop, "ContainerCreate", {"Image": "x", "HostConfig": host})


async def test_networks_are_looked_at_in_both_places(shop: Guard) -> None:
    with pytest.raises(NotFound):
        await admit(shop, "ContainerCreate", {"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"othernet": {}}}})
    with pytest.raises(NotAllowed, match="DriverOpts"):
        await admit(shop, "ContainerCreate", {
            "Image": "x", "NetworkingConfig": {"EndpointsConfig": {"net": {"DriverOpts": {"x": "y"}}}}})  # fmt: skip


async def test_what_a_compose_file_usually_says_is_allowed(shop: Guard, things: Things) -> None:
    await admit(shop, "ContainerCreate", {
        "Image": "nginx", "Env": ["A=b"], "HostConfig": {
            "Binds": ["/srv/shop:/s:ro", "new:/n", "data:/d"], "Memory": 10000000, "NetworkMode": "net",
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "RestartPolicy": {"Name": "always"}, "Privileged": False,
            "CapAdd": None, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"], "MaskedPaths": None,
            "Devices": [], "LogConfig": {"Type": "", "Config": {}}, "PidMode": "container:mine",
        }, "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["web"]}}},
    })  # fmt: skip
    assert things.volumes["new"] == MINE


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("NetworkCreate", {"Name": "n", "Driver": "macvlan"}), ("NetworkCreate", {"Name": "n", "Options": {"x": "y"}}),
        ("VolumeCreate", {"Name": "v", "DriverOpts": {"device": "/"}}), ("VolumeCreate", {"Driver": "nfs"}),
    ],
)
async def test_networks_and_volumes_that_would_reach_the_host(shop: Guard, operation: str, body: Any) -> None:
    with pytest.raises(NotAllowed):
        await admit(shop, operation, body)


async def test_an_exec_gets_no_more_than_its_container(shop: Guard) -> None:
    with pytest.raises(NotAllowed, match="Privileged"):
        await admit(shop, "ContainerExec", {"Cmd": ["sh"], "privileged": True}, id="mine")


async def test_an_image_from_elsewhere_is_not_imported(shop: Guard) -> None:
    await admit(shop, "ImageCreate", query="fromImage=x")
    with pytest.raises(NotAllowed):
        await admit(shop, "ImageCreate", query="fromSrc=-&repo=x")


async def test_names_in_a_body_mean_what_they_meant_when_it_was_looked_at(shop: Guard) -> None:
    """A joined name or network is looked up again at each start: by then it may be another's, also as a prefix of its
    id (a container of ours called `a`, renamed before the start)."""
    made = await admit(shop, "ContainerCreate", {
        "Image": "x", "hostconfig": {"networkmode": "net", "PidMode": "container:mine", "volumesfrom": ["mine:ro"]},
        "networkingconfig": {"EndpointsConfig": {"net": {"Aliases": ["a"]}, "bridge": None}},
    })  # fmt: skip
    body = await made.fields()
    host = body.object("HostConfig")
    assert (host.text("NetworkMode"), host.text("PidMode")) == ("4" * 64, "container:" + "1" * 64)
    assert host.texts("VolumesFrom") == ("1" * 64 + ":ro",)
    ends = body.object("NetworkingConfig").object_map("EndpointsConfig")
    assert {name: end.texts("Aliases") for name, end in ends.items()} == {"4" * 64: ("a",), "bridge": ()}
    joined = await admit(shop, "NetworkConnect", {"container": "mine"}, id="net")
    assert (await joined.fields()).text("Container") == "1" * 64


@pytest.mark.parametrize("subnet", ["8.8.8.0/24", "10.0.0.0/8", "0.0.0.0/1", "127.1.0.0/16", "169.254.0.0/16", "2000::/3",
                                    "fe80::/64", "::/0", "nonsense"])  # fmt: skip
async def test_a_network_takes_no_addresses_away_from_the_host(shop: Guard, subnet: str) -> None:
    body = {"Name": "n", "ipam": {"config": [{"subnet": subnet}]}}
    with pytest.raises(NotAllowed, match="subnet"):
        await admit(shop, "NetworkCreate", body)


async def test_a_network_takes_no_route_of_the_host(shop: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    route = Route(IPv4Network("172.30.0.0/16"), "vpn0")
    monkeypatch.setattr("node.network.subnets.host_routes", lambda: [route])
    with pytest.raises(NotAllowed, match="subnet"):
        await admit(shop, "NetworkCreate", {"Name": "n", "IPAM": {"Config": [{"Subnet": "172.30.7.0/24"}]}})
    for subnet in ("172.31.7.0/24", "fd12:3456:789a::/64"):
        await admit(shop, "NetworkCreate", {"Name": "n", "IPAM": {"Config": [{"Subnet": subnet}]}})


async def test_the_default_log_driver_gets_no_address_from_a_project(shop: Guard) -> None:
    log = {"Type": "", "Config": {"syslog-address": "unix:///run/docker.sock"}}
    with pytest.raises(NotAllowed, match="LogConfig.Config"):
        await admit(shop, "ContainerCreate", {"Image": "x", "HostConfig": {"LogConfig": log}})
