"""What is left, kept or refused: failures half way, callers that leave, restarts, crashes, and what is not ours."""

import asyncio
import os
import re
import signal
import socket
import threading
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from node.linux.nftables import Nftables
from node.network import published
from node.network.bridge import Bridge
from node.network.model import Endpoint, InvalidSubnet, Joining, NetworkUnavailable, PortBinding, PortInUse
from node.network.published import Target
from node.network.store import Networks
from ocispec.errors import InvalidArgument
from tests.node.network.place import HOST, NEIGHBOUR, Host, Servers, ask, attach, fetch, in_namespace, networks_of

pytestmark = pytest.mark.root

ONE, TWO = "c1" + "0" * 62, "c2" + "0" * 62
WEB = PortBinding("tcp", 80, "", 18080)


def elements(host: Host) -> set[str]:
    """What is published, as `key : address . port`."""
    return {part.strip() for body in re.findall(r"elements = \{([^}]*)\}", host.ruleset())
            for part in body.split(",") if " : " in part and '"' not in part}


@pytest.mark.parametrize("address", ["localhost", "127.1", "0", "1.2.3.4\n", "1.2.3.4 }; flush ruleset;", "::ffff:x",
                                     "300.1.1.1", "0x7f.1"])
def test_a_host_address_that_is_none_is_refused_and_never_looked_up(host: Host, tmp_path: Path, address: str) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            with pytest.raises(InvalidArgument, match="invalid IP address"):
                await attach(networks, ONE, mode="bridge", published=[PortBinding("tcp", 80, address, 18080)])
            assert networks.idle

    host.node(main)


def test_a_thousand_ports_of_one_container(host: Host, servers: Servers, tmp_path: Path) -> None:
    wanted = [PortBinding("tcp", 80, "", port) for port in range(20000, 21000)]

    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=wanted)
            servers.tcp(str(sandbox.netns_path), 80, "web")
            assert len(sandbox.ports) == 2000 and len(sandbox.fds) == 1
            assert {fetch(host.neighbour.path, HOST, port) for port in (20000, 20500, 20999)} == {f"web {NEIGHBOUR}"}
            with pytest.raises(PortInUse):
                await attach(networks, TWO, mode="bridge", published=[PortBinding("tcp", 1, HOST, 20999)])
            await networks.release(ONE)
            await sandbox.close()
            assert elements(host) == set()

    host.node(main)


def test_a_range_gives_the_first_free_port_and_one_without_a_number_the_same_for_both_families(
    host: Host, tmp_path: Path
) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            taken = host.run(socket.create_server, ("0.0.0.0", 18080))
            with taken:
                sandbox = await attach(networks, ONE, mode="bridge", published=[
                    PortBinding("tcp", 80, "", 18080, 18082), PortBinding("tcp", 81, "", 18080, 18082),
                    PortBinding("tcp", 82), PortBinding("sctp", 83, "", 18080)])
            found = [(port.container_port, port.host_ip, port.host_port) for port in sandbox.ports]
            assert found[:4] == [(80, "0.0.0.0", 18081), (80, "::", 18081), (81, "0.0.0.0", 18082), (81, "::", 18082)]
            assert found[4][2] == found[5][2] > 0
            assert found[6:] == [(83, "0.0.0.0", 18080), (83, "::", 18080)]
            with pytest.raises(PortInUse):
                await attach(networks, TWO, mode="bridge", published=[PortBinding("tcp", 80, "", 18081, 18082)])
            await networks.release(ONE)
            await sandbox.close()

    host.node(main)


def test_ports_of_a_living_container_change_and_connections_go_on(host: Host, servers: Servers, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[WEB])
            servers.tcp(str(sandbox.netns_path), 80, "web")
            before = sandbox.ports
            after = await networks.republish(ONE, [WEB, PortBinding("tcp", 80, "", 18090)], os.getpid())
            assert after[:len(before)] == before
            for port in (18080, 18090):
                assert fetch(host.neighbour.path, HOST, port) == f"web {NEIGHBOUR}"
            with host.run(socket.create_server, ("0.0.0.0", 18099)), pytest.raises(PortInUse):
                await networks.republish(ONE, [PortBinding("tcp", 80, "", 18099)], os.getpid())
            assert fetch(host.neighbour.path, HOST, 18090).startswith("web")  # as it was
            after = await networks.republish(ONE, [PortBinding("tcp", 80, "", 18090)], os.getpid())
            assert {port.host_port for port in after} == {18090}
            with pytest.raises(OSError, match="refused"):
                fetch(host.neighbour.path, HOST, 18080)
            with host.run(socket.create_server, ("0.0.0.0", 18080)):  # given back
                pass
            assert await networks.republish(ONE, [], os.getpid()) == ()
            assert elements(host) == set()
            await networks.release(ONE)
            await sandbox.close()

    host.node(main)


def test_ports_that_could_not_be_published_are_given_back(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(0, "refused")

    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[WEB])
            with monkeypatch.context() as broken:
                broken.setattr(Nftables, "run", refused)
                with pytest.raises(NetworkUnavailable):
                    await networks.republish(ONE, [WEB, PortBinding("tcp", 80, "", 18090)], os.getpid())
            with host.run(socket.create_server, ("0.0.0.0", 18090)):
                pass
            await networks.release(ONE)
            await sandbox.close()

    host.node(main)


def test_a_change_of_ports_that_no_record_knows_is_undone_by_the_next_daemon(host: Host, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[WEB])
            before = sandbox.ports
            await networks.republish(ONE, [WEB, PortBinding("tcp", 80, "", 18090)], os.getpid())
        async with networks_of(tmp_path) as networks:
            await networks.readopt(Joining(ONE, "one", "one", "bridge"), sandbox.endpoints, before, os.getpid())
            await networks.settle()
            with host.run(socket.create_server, ("0.0.0.0", 18090)):
                pass
            with pytest.raises(OSError, match="in use"):
                host.run(socket.create_server, ("0.0.0.0", 18080))
            await networks.release(ONE)
            await sandbox.close()

    host.node(main)


def test_ipv6_clients_reach_a_container_without_ipv6(host: Host, servers: Servers, tmp_path: Path) -> None:
    host.sysctl("net/ipv6/conf/all/disable_ipv6", "0")
    host.neighbour.sysctl("net/ipv6/conf/all/disable_ipv6", "0")
    host.ip("addr add 2001:db8::1/64 dev lan nodad")
    host.neighbour.ip("addr add 2001:db8::2/64 dev lan nodad")

    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[
                PortBinding(proto, 80, "", 18080) for proto in ("tcp", "udp")])
            servers.tcp(str(sandbox.netns_path), 80, "web")
            servers.udp(str(sandbox.netns_path), 80, "dns")
            for path, address in ((host.neighbour.path, "2001:db8::1"), (host.path, "::1")):
                assert (await asyncio.to_thread(fetch, path, address, 18080)).startswith("web")
                assert (await asyncio.to_thread(ask, path, address, 18080)).startswith("dns")
            await networks.release(ONE)
            await sandbox.close()

    host.node(main)


def test_a_killed_keeper_is_replaced_and_holds_the_ports_again(host: Host, servers: Servers, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[WEB])
            pid = int((await networks._care._keeper._request({"op": "hello"}))["pid"])
            os.kill(pid, signal.SIGKILL)
            deadline = asyncio.get_running_loop().time() + 10
            while asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.05)
                try:
                    host.run(socket.create_server, ("0.0.0.0", 18080)).close()
                except OSError:
                    break
            else:
                raise AssertionError("the port is free")
            await networks.release(ONE)
            await sandbox.close()

    host.node(main)


def test_the_same_port_may_be_published_by_tcp_and_udp_and_on_two_addresses(host: Host, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[
                PortBinding("tcp", 80, "127.0.0.1", 18080), PortBinding("tcp", 81, HOST, 18080),
                PortBinding("udp", 80, "", 18080)])
            assert len(elements(host)) == 3
            await networks.release(ONE)
            await sandbox.close()
            assert elements(host) == set()

    host.node(main)


def test_a_caller_that_leaves_in_the_middle_leaves_nothing(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that makes the interface is held where it hurts: the caller is gone when it is done."""
    entered, go_on = threading.Event(), threading.Event()
    connect = Bridge.plug

    def slow(self: Bridge, *arguments: Any, **named: Any) -> int:
        entered.set()
        assert go_on.wait(10)
        return connect(self, *arguments, **named)

    async def main() -> None:
        async with networks_of(tmp_path, bridge_subnet="10.99.0.0/29") as networks:
            bridge = host.links()
            monkeypatch.setattr(Bridge, "plug", slow)
            task = asyncio.create_task(attach(networks, ONE, mode="bridge", published=[WEB]))
            while not entered.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert networks.idle
            assert host.links() == bridge
            assert elements(host) == set()
            # Port and every address can be had again.
            sandboxes = [await attach(networks, f"{n:064x}", mode="bridge", published=[WEB] if n == 0 else [])
                         for n in range(5)]
            for number, sandbox in enumerate(sandboxes):
                await sandbox.close()
                await networks.release(f"{number:064x}")

    host.node(main)
    assert host.links() == {"lan"}


def test_rules_that_the_kernel_refuses_leave_nothing_and_the_next_start_works(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            with monkeypatch.context() as patch:
                patch.setattr(published, "publish", lambda *_: "add element ip absent absent { 1 }\n")
                with pytest.raises(NetworkUnavailable, match="nftables refused the rules"):
                    await attach(networks, ONE, mode="bridge", published=[WEB])
            assert networks.idle
            # At once, while the kernel may still be taking the first namespace apart.
            sandbox = await attach(networks, ONE, mode="bridge", published=[WEB])
            await networks.release(ONE)
            await sandbox.close()

    host.node(main)


def test_release_never_fails_an_exit(host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[WEB])
            host.shell("nft", "flush", "ruleset")  # somebody's firewall script
            await networks.release(ONE)
            await networks.release(ONE)
            await sandbox.close()
            assert "stay: " in caplog.text

    host.node(main)


def test_ports_survive_a_restart_at_every_moment_and_nothing_else_does(
    host: Host, servers: Servers, tmp_path: Path
) -> None:
    place: dict[str, Any] = {}

    async def first() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[WEB])
            place.update(sandbox=sandbox, end=sandbox.endpoint, ports=sandbox.ports, ip=sandbox.endpoint and sandbox.endpoint.ip)
            servers.tcp(str(sandbox.netns_path), 80, "web")
            # Another's, that a killed daemon did not take back.
            table = networks._care._table
            await asyncio.to_thread(Nftables().run, published.publish(
                table, [Target(PortBinding("tcp", 1, "0.0.0.0", 9), "172.16.9.9")]))
            # The daemon stops, its container stays: nothing is removed.

    async def second() -> None:
        async with networks_of(tmp_path) as networks:
            assert fetch(host.neighbour.path, HOST, 18080).startswith("web")  # before anybody is taken over
            await networks.readopt(Joining(ONE, "one", "", "bridge"), [place["end"]], place["ports"], os.getpid())
            await networks.readopt(Joining(TWO, "two", "", "none"), [], [], os.getpid())
            await networks.settle()
            assert elements(host) == {f"18080 : {place['ip']} . 80"}
            assert fetch(host.neighbour.path, HOST, 18080).startswith("web")
            other = await attach(networks, TWO, mode="bridge", published=[])
            assert other.endpoint
            assert other.endpoint.ip != place["ip"]
            for name in (ONE, TWO):
                await networks.release(name)
            await other.close()
            await place["sandbox"].close()
            assert elements(host) == set()

    host.node(first)
    assert len(elements(host)) == 2
    host.node(second)
    assert host.links() == {"lan"}
    assert host.tables() == ""


def test_a_table_of_another_layout_is_replaced(host: Host, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            table = networks._care._table
        host.shell("nft", f"table ip {table} {{ map any_tcp {{ type ipv4_addr : ipv4_addr; }}; }}")
        async with networks_of(tmp_path):
            assert "dnat ip to tcp dport" in host.ruleset()

    host.node(main)
    assert host.tables() == ""


def test_the_rules_of_others_are_left_alone(host: Host, tmp_path: Path) -> None:
    host.shell("nft", "table ip other { chain forward { type filter hook forward priority 0; policy accept; }; }")
    before = host.ruleset()

    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[WEB])
            await networks.release(ONE)
            await sandbox.close()

    host.node(main)
    assert host.ruleset() == before


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_an_interface_of_somebody_else_is_neither_taken_nor_removed(host: Host, tmp_path: Path, kind: str) -> None:
    host.ip(f"link add br-theirs type {kind}")

    async def main() -> None:
        with pytest.raises(NetworkUnavailable, match="br-theirs is there already and is not this node's"):
            async with networks_of(tmp_path, bridge_name="br-theirs"):
                pass

    for _ in range(2):
        host.node(main)
    assert "br-theirs" in host.links()


def test_a_named_bridge_that_this_node_made_is_taken_over(host: Host, tmp_path: Path, container: int) -> None:
    async def first() -> None:
        async with networks_of(tmp_path, bridge_name="br-mine") as networks:
            await networks.readopt(Joining(ONE, "one", "", "bridge"), [Endpoint("172.16.0.9")], [], container)  # it stays

    async def second() -> None:
        async with networks_of(tmp_path, bridge_name="br-mine"):
            pass

    host.node(first)
    assert "br-mine" in host.links()
    host.node(second)
    assert host.links() == {"lan"}


def test_a_subnet_is_chosen_beside_the_hosts_routes(host: Host, tmp_path: Path) -> None:
    # A VPN's default route in halves overlaps everything and counts for nothing.
    for line in ("172.16.0.0/15", "172.18.7.0/24", "0.0.0.0/1", "128.0.0.0/1"):
        host.ip(f"route add {line} via 192.0.2.2")

    async def subnet() -> str:
        async with networks_of(tmp_path) as networks:
            return networks.list()[0].subnet

    assert host.node(subnet) == "172.19.0.0/16"
    host.ip("route add 172.16.0.0/12 via 192.0.2.2")
    assert host.node(subnet) == "192.168.0.0/20"
    host.ip("route add 192.168.0.0/16 via 192.0.2.2")
    assert host.node(subnet) == "10.128.0.0/20"
    host.ip("route add 10.128.0.0/9 via 192.0.2.2")
    with pytest.raises(InvalidSubnet, match="--bridge-subnet"):
        host.node(subnet)


def test_a_remembered_subnet_is_given_up_when_another_node_has_it(host: Host, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path / "a") as networks:
            first = networks.list()[0].subnet
        async with networks_of(tmp_path / "b") as other:
            assert other.list()[0].subnet == first
            async with networks_of(tmp_path / "a") as networks:
                assert networks.list()[0].subnet == "172.17.0.0/16"
        async with networks_of(tmp_path / "a") as networks:
            assert networks.list()[0].subnet == "172.17.0.0/16"

    host.node(main)


@pytest.mark.parametrize(("wanted", "message"), [
    ("192.0.2.0/24", "this host reaches 192.0.2.0/24 through lan"),
    ("192.0.0.0/16", "this host reaches 192.0.2.0/24 through lan"),
    ("10.0.0.0/30", "want a prefix of /8 to /29"),
    ("ten", "--bridge-subnet 'ten'"),
])
def test_a_subnet_that_would_cut_the_host_off_is_refused(
    host: Host, tmp_path: Path, wanted: str, message: str
) -> None:
    async def main() -> None:
        async with networks_of(tmp_path, bridge_subnet=wanted):
            pass

    with pytest.raises(InvalidSubnet, match=message):
        host.node(main)
    assert host.links() == {"lan"}


def test_a_subnet_inside_a_wider_route_is_the_users_choice(host: Host, tmp_path: Path) -> None:
    host.ip("route add 10.0.0.0/8 via 192.0.2.2")

    async def main() -> str:
        async with networks_of(tmp_path, bridge_subnet="10.77.0.0/16") as networks:
            return networks.list()[0].gateway

    assert host.node(main) == "10.77.0.1"


def test_many_start_and_stop_at_once(host: Host, tmp_path: Path) -> None:
    async def life(networks: Networks, number: int) -> str:
        name = f"{number:02x}" + "0" * 62
        sandbox = await attach(networks, name, mode="bridge", published=[PortBinding("tcp", 80, "", 0)])
        assert sandbox.endpoint
        await networks.release(name)
        await sandbox.close()
        return sandbox.endpoint.ip

    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            addresses = await asyncio.gather(*(life(networks, number) for number in range(20)))
            assert len(set(addresses)) == 20
            assert networks.idle

    host.node(main)
    assert host.links() == {"lan"}
    assert host.tables() == ""


def test_two_nodes_side_by_side(host: Host, servers: Servers, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path / "a") as a, networks_of(tmp_path / "b") as b:
            assert a.list()[0].subnet != b.list()[0].subnet
            assert a.list()[0].id != b.list()[0].id
            one = await attach(a, ONE, mode="bridge", published=[WEB])
            two = await attach(b, TWO, mode="bridge", published=[])
            assert one.endpoint
            with pytest.raises(PortInUse, match="address already in use"):
                await attach(b, ONE, mode="bridge", published=[WEB])
            servers.tcp(str(one.netns_path), 80, "web")
            # By what is published, and not past it.
            assert fetch(str(two.netns_path), HOST, 18080).startswith("web ")
            with pytest.raises(TimeoutError):
                fetch(str(two.netns_path), one.endpoint.ip, 80, within=0.5)
            for networks, name, sandbox in ((a, ONE, one), (b, TWO, two)):
                await networks.release(name)
                await sandbox.close()

    host.node(main)
    assert host.links() == {"lan"}
    assert host.tables() == ""


def test_a_joined_namespace_survives_its_maker_without_an_interface(host: Host, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            sandbox = await attach(networks, ONE, mode="bridge", published=[])
            joined = await attach(networks, TWO, mode=f"container:{ONE}", published=[WEB],
                                           other_netns=sandbox.netns_path)
            assert (joined.netns_path, joined.ports, joined.own) == (sandbox.netns_path, (), [])
            await networks.release(TWO)  # has nothing of its own
            assert IPv4Address(str(sandbox.endpoint and sandbox.endpoint.ip))
            await networks.release(ONE)
            inside = in_namespace(str(sandbox.netns_path), Path("/proc/thread-self/net/dev").read_text)
            assert "eth0" not in inside
            await sandbox.close()

    host.node(main)
