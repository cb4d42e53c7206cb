"""The host does not become a router between its other interfaces because containers need one."""

from pathlib import Path

import pytest

from node.network.model import NetworkSpec
from tests.node.network.place import HOST, NEIGHBOUR, Host, Place, Servers, attach, fetch, networks_of

pytestmark = pytest.mark.root
ONE = "c1" + "0" * 62


@pytest.fixture
def beyond(host: Host, servers: Servers) -> Place:
    """A machine on another wire of the host."""
    other = Place()
    host.ip(f"link add dmz type veth peer name dmz netns {other.path}")
    for line in ("addr add 198.51.100.1/24 dev dmz", "link set dmz up"):
        host.ip(line)
    for line in ("addr add 198.51.100.2/24 dev dmz", "link set dmz up", "route add default via 198.51.100.1"):
        other.ip(line)
    host.neighbour.ip(f"route add 198.51.100.0/24 via {HOST}")
    servers.tcp(other.path, 80, "beyond")
    return other


def reached(host: Host) -> bool:
    try:
        return fetch(host.neighbour.path, "198.51.100.2", 80, 0.5) == f"beyond {NEIGHBOUR}"
    except OSError:
        return False


def forwards(host: Host) -> bool:
    return bool(host.run(Path("/proc/sys/net/ipv4/ip_forward").read_text).strip() == "1")


def test_a_host_that_did_not_forward_does_so_for_containers_alone(
    host: Host, servers: Servers, beyond: Place, tmp_path: Path
) -> None:
    host.sysctl("net/ipv4/ip_forward", "0")

    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            assert forwards(host) and not reached(host)
            sandbox = await attach(networks, ONE, mode="bridge", published=[])
            assert fetch(str(sandbox.netns_path), "198.51.100.2", 80).startswith("beyond")
            # What comes later has its own reasons.
            host.ip("link add virbr0 type bridge")
            await networks.release(ONE)
            await sandbox.close()
            host.ip("link del virbr0")

    host.node(main)
    assert not forwards(host)
    assert "fence" not in host.ruleset()


def test_what_the_host_did_before_it_goes_on_doing(host: Host, beyond: Place, tmp_path: Path) -> None:
    host.sysctl("net/ipv4/ip_forward", "1")

    async def main() -> None:
        async with networks_of(tmp_path):
            assert reached(host)

    host.node(main)
    assert forwards(host) and reached(host)


def test_the_fence_is_there_again_after_a_restart_and_forwarding_stays_for_who_came_since(
    host: Host, beyond: Place, tmp_path: Path
) -> None:
    host.sysctl("net/ipv4/ip_forward", "0")

    async def first() -> None:
        async with networks_of(tmp_path) as networks:
            await attach(networks, ONE, mode="bridge", published=[])

    async def second() -> None:
        async with networks_of(tmp_path):
            assert not reached(host)
            host.ip("link add virbr0 type bridge")

    host.node(first)
    host.shell("nft", "flush", "ruleset")
    host.node(second)
    assert forwards(host)
    host.ip("link del virbr0")


def test_ipv6_is_forwarded_only_once_a_network_wants_it(host: Host, tmp_path: Path) -> None:
    switch = Path("/proc/sys/net/ipv6/conf/all/forwarding")
    host.sysctl("net/ipv6/conf/all/forwarding", "0")

    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            assert host.run(switch.read_text).strip() == "0"
            await networks.create(NetworkSpec("six", ipv6=True))
            assert host.run(switch.read_text).strip() == "1"
            assert "table ip6 " in host.tables()
            await networks.remove("six")

    host.node(main)
    assert host.run(switch.read_text).strip() == "0"
