"""Networks of users on a host of their own: made, joined, parted, isolated, known again, gone without a trace."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.linux.nftables import Nftables
from node.network.bridge import Bridge
from node.network.keeper import Keeper, KeeperGone
from node.network.model import (
    AddressInUse,
    EndpointSpec,
    InvalidNetwork,
    Joining,
    NetworkExists,
    NetworkForbidden,
    NetworkSpec,
    NetworkUnavailable,
    NoSuchNetwork,
    Pool,
    Sandbox,
)
from node.network.store import Networks
from node.state.networks import NetworkRows
from ocispec.errors import InvalidArgument, Unimplemented
from tests.node.network.place import Host, Servers, fetch, networks_of

pytestmark = pytest.mark.root

ONE, TWO = "c1" + "0" * 62, "c2" + "0" * 62
BACK = NetworkSpec("back", pools=(Pool("10.7.0.0/24", "10.7.0.1", "10.7.0.128/25", {"r": "10.7.0.129"}),))

Play = Callable[[Networks], Coroutine[Any, Any, None]]


def scene(host: Host, home: Path, play: Play) -> None:
    async def main() -> None:
        async with networks_of(home) as networks:
            await play(networks)

    host.node(main)


async def join(networks: Networks, container: str, *asked: EndpointSpec) -> Sandbox:
    return await networks.attach(Joining(container, container[:4], container[:4], asked[0].network, asked))


async def leave(networks: Networks, container: str, sandbox: Sandbox) -> None:
    await networks.release(container)
    await sandbox.close()


def test_a_network_is_made_joined_and_gone_without_a_trace(host: Host, servers: Servers, tmp_path: Path) -> None:
    before = host.links()

    async def play(networks: Networks) -> None:
        made = await networks.create(BACK)
        assert networks.inspect("back") == networks.inspect(made.id[:12]) == made
        with pytest.raises(NetworkExists):
            await networks.create(BACK)
        one = await join(networks, ONE, EndpointSpec("back"))
        two = await join(networks, TWO, EndpointSpec("back", ipv4="10.7.0.9", aliases=("www",)))
        assert [end.ip for end in (*one.endpoints, *two.endpoints)] == ["10.7.0.128", "10.7.0.9"]
        assert two.endpoints[0].dns_names == (TWO[:4], "www", TWO[:12])
        servers.tcp(str(two.netns_path), 80, "two")
        assert fetch(str(one.netns_path), "10.7.0.9", 80).startswith("two")
        with pytest.raises(NetworkForbidden, match="active endpoints"):
            await networks.remove("back")
        await leave(networks, TWO, two)
        with pytest.raises(AddressInUse):
            await join(networks, TWO, EndpointSpec("back", ipv4="10.7.0.128"))
        third = await join(networks, TWO, EndpointSpec("back"))
        assert third.endpoints[0].ip == "10.7.0.130", "the auxiliary address is nobody's"
        await leave(networks, TWO, third)
        await leave(networks, ONE, one)
        await networks.remove("back")
        with pytest.raises(NoSuchNetwork):
            networks.inspect("back")

    scene(host, tmp_path, play)
    assert host.links() == before
    assert "back" not in host.ruleset()
    assert host.tables() == ""


def test_networks_do_not_reach_each_other_and_an_internal_one_reaches_nothing(
    host: Host, servers: Servers, tmp_path: Path
) -> None:
    async def play(networks: Networks) -> None:
        await networks.create(BACK)
        await networks.create(NetworkSpec("front"))
        await networks.create(NetworkSpec("inner", internal=True))
        back = await join(networks, ONE, EndpointSpec("back"))
        servers.tcp(str(back.netns_path), 80, "back")
        inner = await join(networks, "c4" + "0" * 62, EndpointSpec("inner"))
        for name in ("front", "bridge", "inner"):
            other = await join(networks, TWO, EndpointSpec(name))
            with pytest.raises(OSError, match=r"timed out|unreachable"):
                fetch(str(other.netns_path), back.endpoints[0].ip, 80, 0.4)
            await leave(networks, TWO, other)
        assert inner.endpoints[0].gateway == ""
        with pytest.raises(OSError, match="unreachable"):
            fetch(str(inner.netns_path), "192.0.2.2", 80, 0.4)
        await leave(networks, ONE, back)
        await leave(networks, "c4" + "0" * 62, inner)

    scene(host, tmp_path, play)


def test_a_running_container_is_connected_and_disconnected(host: Host, servers: Servers, tmp_path: Path) -> None:
    """Its process is this one, in a thread that has entered the namespace: /proc/<tid>/ns/net is the container's."""

    async def play(networks: Networks) -> None:
        await networks.create(BACK)
        two = await join(networks, TWO, EndpointSpec("back"))
        servers.tcp(str(two.netns_path), 80, "two")
        one = await join(networks, ONE, EndpointSpec("bridge"))
        with Tenant(str(one.netns_path)) as pid:
            ends = await networks.connect(ONE, EndpointSpec("back", ipv4="10.7.0.9", gw_priority=1), pid)
            assert [end.network_name for end in ends] == ["back", "bridge"]
            assert ends[0].interface == "eth1"
            assert fetch(str(one.netns_path), two.endpoints[0].ip, 80).startswith("two")
            assert "default via 10.7.0.1 dev eth1" in routes(host, one)
            with pytest.raises(NetworkForbidden, match="already exists in network back"):
                await networks.connect(ONE, EndpointSpec("back"), pid)
            with pytest.raises(InvalidNetwork, match="private"):
                await networks.connect(ONE, EndpointSpec("none"), pid)
            ends = await networks.disconnect(ONE, networks.inspect("back").id, pid)
            assert [end.network_name for end in ends] == ["bridge"]
            assert f"default via {ends[0].gateway} dev eth0" in routes(host, one)
            with pytest.raises(OSError, match=r"timed out|unreachable"):
                fetch(str(one.netns_path), two.endpoints[0].ip, 80, 0.4)
        await leave(networks, ONE, one)
        await leave(networks, TWO, two)

    scene(host, tmp_path, play)


def test_a_connect_that_fails_halfway_leaves_neither_interface_nor_address(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise KeeperGone("killed")

    async def play(networks: Networks) -> None:
        await networks.create(BACK)
        one = await join(networks, ONE, EndpointSpec("bridge"))
        before = host.links()
        with Tenant(str(one.netns_path)) as pid:
            with monkeypatch.context() as broken:
                broken.setattr(Keeper, "begin", gone)
                with pytest.raises(NetworkUnavailable, match="killed"):
                    await networks.connect(ONE, EndpointSpec("back", ipv4="10.7.0.9"), pid)
            assert "10.7.0" not in host.shell("nsenter", f"--net={one.netns_path}", "ip", "-o", "addr")
            assert host.links() == before
            assert f"default via {one.endpoints[0].gateway} dev eth0" in routes(host, one)
            await networks.connect(ONE, EndpointSpec("back", ipv4="10.7.0.9"), pid)
            with monkeypatch.context() as broken:
                broken.setattr(Keeper, "names", gone)
                ends = await networks.disconnect(ONE, networks.inspect("back").id, pid)
            assert [end.network_name for end in ends] == ["bridge"]
            await networks.connect(ONE, EndpointSpec("back", ipv4="10.7.0.9"), pid)
        await leave(networks, ONE, one)

    scene(host, tmp_path, play)


def test_a_network_is_whole_or_not_there(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(0, "refused")

    async def full(*_: object) -> None:
        raise RuntimeError("disk full")

    async def play(networks: Networks) -> None:
        before = host.links()
        for place, what in ((Nftables, "run"), (Bridge, "prepare")):
            with monkeypatch.context() as broken:
                broken.setattr(place, what, refused)
                with pytest.raises(NetworkUnavailable):
                    await networks.create(BACK)
            assert host.links() == before
        await networks.create(BACK)
        made = host.links()
        with monkeypatch.context() as broken:
            broken.setattr(NetworkRows, "remove", full)
            with pytest.raises(RuntimeError):
                await networks.remove("back")
        assert host.links() == made > before
        await networks.remove("back")
        assert host.links() == before

    scene(host, tmp_path, play)


def test_ipv6_and_an_isolated_network(host: Host, servers: Servers, tmp_path: Path) -> None:
    async def play(networks: Networks) -> None:
        options = {"com.docker.network.bridge.enable_icc": "false"}
        await networks.create(NetworkSpec("six", ipv6=True, pools=(Pool("fd07::/64"),)))
        await networks.create(NetworkSpec("apart", options=options))
        one = await join(networks, ONE, EndpointSpec("six"), EndpointSpec("apart"))
        two = await join(networks, TWO, EndpointSpec("six", ipv6="fd07::9"), EndpointSpec("apart"))
        by_name = {end.network_name: end for end in two.endpoints}
        assert (by_name["six"].ip6, by_name["six"].gateway6) == ("fd07::9", "fd07::1")
        servers.tcp(str(two.netns_path), 80, "two")
        assert fetch(str(one.netns_path), by_name["six"].ip, 80).startswith("two")
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            fetch(str(one.netns_path), by_name["apart"].ip, 80, 0.4)
        await leave(networks, ONE, one)
        await leave(networks, TWO, two)

    scene(host, tmp_path, play)


def test_the_next_daemon_knows_networks_and_who_is_on_them(host: Host, servers: Servers, tmp_path: Path) -> None:
    kept: list[Sandbox] = []

    async def first(networks: Networks) -> None:
        await networks.create(BACK)
        await networks.create(NetworkSpec("idle", labels={"a": "b"}))
        kept.append(await join(networks, ONE, EndpointSpec("back")))
        servers.tcp(str(kept[0].netns_path), 80, "one")
        # Killed between making an interface and recording it: settle takes it away.
        bridge = next(name for name in host.links() if name == f"sw-{networks.inspect('back').id[:12]}")
        host.ip("link add vethlost type veth peer name lostpeer")
        host.ip(f"link set vethlost master {bridge}")

    async def second(networks: Networks) -> None:
        assert networks.inspect("idle").labels == {"a": "b"}
        joining = Joining(ONE, "one", "one", "back", (EndpointSpec("back"),))
        await networks.readopt(joining, kept[0].endpoints, (), 0)
        await networks.settle()
        assert "vethlost" not in host.links()
        two = await join(networks, TWO, EndpointSpec("back"))
        assert two.endpoints[0].ip != kept[0].endpoints[0].ip
        assert fetch(str(two.netns_path), kept[0].endpoints[0].ip, 80).startswith("one")
        await leave(networks, TWO, two)
        await leave(networks, ONE, kept[0])
        await networks.remove("back")

    scene(host, tmp_path, first)
    scene(host, tmp_path, second)
    assert host.links() == {"lan"}


def test_macvlan_on_an_interface_of_the_host_and_on_none(host: Host, servers: Servers, tmp_path: Path) -> None:
    async def play(networks: Networks) -> None:
        await networks.create(NetworkSpec("lan", "macvlan", pools=(Pool("10.8.0.0/24"),), options={"parent": "lan"}))
        await networks.create(NetworkSpec("alone", "macvlan"))
        for name in ("lan", "alone"):
            one, two = await join(networks, ONE, EndpointSpec(name)), await join(networks, TWO, EndpointSpec(name))
            servers.tcp(str(two.netns_path), 80, name)
            assert fetch(str(one.netns_path), two.endpoints[0].ip, 80).startswith(name)
            await leave(networks, ONE, one)
            await leave(networks, TWO, two)
            await networks.remove(name)

    scene(host, tmp_path, play)
    assert host.links() == {"lan"}


def routes(host: Host, sandbox: Sandbox) -> str:
    return host.shell("nsenter", f"--net={sandbox.netns_path}", "ip", "route")


class Tenant:
    """A process in a container's namespace."""

    def __init__(self, netns: str) -> None:
        self._netns = netns

    def __enter__(self) -> int:
        self._process = subprocess.Popen(["nsenter", f"--net={self._netns}", "sleep", "60"])
        target = os.stat(self._netns).st_ino
        for _ in range(200):
            if os.stat(f"/proc/{self._process.pid}/ns/net").st_ino == target:
                break
            time.sleep(0.01)
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@pytest.mark.parametrize(("spec", "error", "message"), [
    (NetworkSpec("bridge"), NetworkForbidden, "predefined"),
    (NetworkSpec("a b"), InvalidArgument, "invalid network name"),
    (NetworkSpec("x", pools=(Pool("10.0.0.1/24"),)), InvalidNetwork, "it should be 10.0.0.0/24"),
    (NetworkSpec("x", pools=(Pool("10.0.0.0/24", "10.1.0.1"),)), InvalidNetwork, "not in subnet"),
    (NetworkSpec("x", pools=(Pool("10.0.0.0/24", "", "10.1.0.0/25"),)), InvalidNetwork, "ip-range"),
    (NetworkSpec("x", pools=(Pool("10.0.0.0/24"), Pool("10.1.0.0/24"))), NetworkForbidden, "multiple subnets"),
    (NetworkSpec("x", pools=(Pool("10.0.0.0/31"),)), InvalidNetwork, "no room"),
    (NetworkSpec("x", options={"com.docker.network.bridge.name": 'a"; flush ruleset'}), InvalidNetwork, "interface name"),
    (NetworkSpec("x", options={"com.docker.network.bridge.name": "lan"}), NetworkForbidden, "exists already"),
    (NetworkSpec("x", options={"com.docker.network.driver.mtu": "9x"}), InvalidNetwork, "MTU"),
    (NetworkSpec("x", "macvlan", options={"macvlan_mode": "odd"}), InvalidNetwork, "unknown macvlan mode"),
    (NetworkSpec("x", ipam_driver="dhcp"), Unimplemented, "IPAM driver"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing(
    host: Host, tmp_path: Path, spec: NetworkSpec, error: type[Exception], message: str
) -> None:
    async def play(networks: Networks) -> None:
        before = await asyncio.to_thread(host.links)
        with pytest.raises(error, match=message):
            await networks.create(spec)
        assert await asyncio.to_thread(host.links) == before
        assert len(networks.list()) == 3
        with pytest.raises(NetworkForbidden, match="overlaps"):
            await networks.create(replace(BACK, pools=(Pool(str(networks.list()[0].subnet)),)))

    scene(host, tmp_path, play)


def test_what_a_network_does_not_give_is_refused(host: Host, tmp_path: Path) -> None:
    async def play(networks: Networks) -> None:
        await networks.create(BACK)
        await networks.create(NetworkSpec("plain"))
        for asked, message in (
            (EndpointSpec("plain", ipv4="10.1.1.1"), "user configured subnets"),
            (EndpointSpec("bridge", ipv4="10.1.1.1"), "user defined networks only"),
            (EndpointSpec("bridge", aliases=("x",)), "network-scoped alias"),
            (EndpointSpec("back", ipv4="10.9.9.9"), "no configured subnet"),
            (EndpointSpec("back", mac="01:00:00:00:00:01"), "group"),
            (EndpointSpec("back", driver_opts={"com.docker.network.endpoint.sysctls": "net.ipv4.conf.eth0.x=1"}),
             "invalid sysctl"),
        ):  # fmt: skip
            with pytest.raises(InvalidArgument, match=message):
                await join(networks, ONE, asked)
        with pytest.raises(InvalidArgument, match="private"):
            await join(networks, ONE, EndpointSpec("none"), EndpointSpec("back"))
        assert networks.used() == set()

    scene(host, tmp_path, play)
