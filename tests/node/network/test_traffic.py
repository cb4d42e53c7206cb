"""Who reaches whom: containers, the host, its neighbours, and what must not be reached."""

import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

from node.network.model import PortBinding, Sandbox
from node.network.store import Networks
from tests.node.network.place import HOST, NEIGHBOUR, Host, Servers, ask, attach, fetch, in_namespace, networks_of

pytestmark = pytest.mark.root

ONE, TWO = "c1" + "0" * 62, "c2" + "0" * 62


class Containers:
    """Attachments that are released at the end."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._made: list[tuple[str, Sandbox]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name, sandbox in self._made:
            await self._networks.release(name)
            await sandbox.close()

    async def start(self, name: str, *published: PortBinding) -> tuple[str, str]:
        """Its namespace and address."""
        sandbox = await attach(self._networks, name, mode="bridge", published=published)
        self._made.append((name, sandbox))
        assert sandbox.netns_path
        assert sandbox.endpoint
        return sandbox.netns_path, sandbox.endpoint.ip


def scene(host: Host, home: Path, play: Any) -> None:
    async def main() -> None:
        async with networks_of(home) as networks, Containers(networks) as containers:
            await play(networks, containers)

    host.node(main)
    assert host.links() == {"lan"}
    assert host.tables() == ""


def test_a_published_port_is_reached_from_everywhere_and_sees_who_asks(
    host: Host, servers: Servers, tmp_path: Path
) -> None:
    async def play(networks: Networks, containers: Containers) -> None:
        gateway = networks.list()[0].gateway
        one, one_ip = await containers.start(ONE, PortBinding("tcp", 80, "", 18080))
        two, _ = await containers.start(TWO)
        servers.tcp(one, 80, "web")
        assert fetch(host.neighbour.path, HOST, 18080) == f"web {NEIGHBOUR}"
        assert fetch(host.path, "127.0.0.1", 18080) == f"web {gateway}"
        assert fetch(host.path, HOST, 18080).startswith("web ")
        assert fetch(two, gateway, 18080) == f"web {gateway}"
        assert fetch(two, HOST, 18080) == f"web {gateway}"
        assert fetch(one, HOST, 18080) == f"web {gateway}"
        assert fetch(two, one_ip, 80).startswith("web ")

    scene(host, tmp_path, play)


def test_udp_is_published_too_and_answers_come_from_the_address_asked(
    host: Host, servers: Servers, tmp_path: Path
) -> None:
    async def play(networks: Networks, containers: Containers) -> None:
        one, _ = await containers.start(ONE, PortBinding("udp", 53, "", 15353), PortBinding("udp", 53, HOST, 15354))
        two, _ = await containers.start(TWO)
        servers.udp(one, 53, "dns")
        assert ask(host.neighbour.path, HOST, 15353) == f"dns {NEIGHBOUR}"
        assert ask(host.neighbour.path, HOST, 15354) == f"dns {NEIGHBOUR}"
        assert ask(host.path, "127.0.0.1", 15353).startswith("dns ")
        assert ask(two, networks.list()[0].gateway, 15353).startswith("dns ")
        with pytest.raises(OSError):
            ask(host.path, "127.0.0.1", 15354, within=0.3)

    scene(host, tmp_path, play)


def test_a_udp_client_that_never_stops_reaches_whoever_has_the_port(
    host: Host, servers: Servers, tmp_path: Path
) -> None:
    """It sends from one port, so all its packets are one flow, which the kernel would translate as its first."""
    published = PortBinding("udp", 53, "", 15353)

    def client() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((NEIGHBOUR, 40000))
        return sock

    def say(sock: socket.socket, within: float) -> str:
        sock.settimeout(within)
        sock.sendto(b"?", (HOST, 15353))
        try:
            return sock.recv(100).decode()
        except OSError:
            return ""

    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            with host.neighbour.run(client) as sock:
                assert say(sock, 0.1) == ""
                for name, answer in ((ONE, "one"), (TWO, "two")):
                    sandbox = await attach(networks, name, mode="bridge", published=[published])
                    servers.udp(str(sandbox.netns_path), 53, answer)
                    assert say(sock, 3).startswith(answer)
                    await networks.release(name)
                    await sandbox.close()
                    assert say(sock, 0.1) == ""

    host.node(main)


def test_containers_reach_outside_as_the_host(host: Host, servers: Servers, tmp_path: Path) -> None:
    async def play(_: Networks, containers: Containers) -> None:
        one, _ip = await containers.start(ONE)
        servers.tcp(host.neighbour.path, 80, "outside")
        assert fetch(one, NEIGHBOUR, 80) == f"outside {HOST}"

    scene(host, tmp_path, play)


def test_what_is_not_published_is_not_reached_even_with_a_route(host: Host, servers: Servers, tmp_path: Path) -> None:
    async def play(networks: Networks, containers: Containers) -> None:
        one, one_ip = await containers.start(ONE, PortBinding("tcp", 80, "", 18080))
        servers.tcp(one, 80, "web")
        servers.tcp(one, 81, "private")
        host.neighbour.ip(f"route add {networks.list()[0].subnet} via {HOST}")
        for port in (80, 81):
            with pytest.raises(TimeoutError):
                fetch(host.neighbour.path, one_ip, port, within=0.5)
        assert fetch(host.path, one_ip, 81).startswith("private ")

    scene(host, tmp_path, play)


def test_what_is_published_on_the_loopback_is_not_reached_by_a_neighbour(
    host: Host, servers: Servers, tmp_path: Path
) -> None:
    """A neighbour that routes 127.0.0.0/8 to us: translated in prerouting its packets would pass the kernel's check."""
    neighbour = host.neighbour
    neighbour.sysctl("net/ipv4/conf/all/route_localnet", "1")
    for line in ("route del local 127.0.0.0/8 dev lo table local", "route del local 127.0.0.1 dev lo table local",
                 f"route add 127.0.0.0/8 via {HOST} dev lan src {NEIGHBOUR}"):
        neighbour.ip(line)

    async def play(_: Networks, containers: Containers) -> None:
        one, _ip = await containers.start(ONE, PortBinding("udp", 53, "127.0.0.1", 15353))
        two, _ip = await containers.start(TWO)

        def receiver() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("", 53))
            sock.settimeout(5)
            return sock

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((NEIGHBOUR, 0))
                sock.sendto(b"from the neighbour", ("127.0.0.1", 15353))

        with in_namespace(one, receiver) as sock:
            for _ in range(3):
                neighbour.run(send)
            host.run(_send_local)
            # Whatever the neighbour sent is there before what the host sends after it.
            assert sock.recv(100) == b"from the host"
        # Nor by a container, which may make packets as it likes.
        with pytest.raises(OSError):
            ask(two, "127.0.0.1", 15353, within=0.3)

    scene(host, tmp_path, play)


def _send_local() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"from the host", ("127.0.0.1", 15353))


def test_a_container_does_not_reach_what_listens_on_the_hosts_loopback(
    host: Host, servers: Servers, tmp_path: Path
) -> None:
    async def play(networks: Networks, containers: Containers) -> None:
        one, _ = await containers.start(ONE)
        servers.udp(host.path, 8125, "host")
        gateway = networks.list()[0].gateway
        assert ask(one, gateway, 8125).startswith("host ")  # bound to every address; the control of the next
        in_namespace(one, Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text, "1")
        for line in ("route del local 127.0.0.0/8 dev lo table local", "route del local 127.0.0.1 dev lo table local",
                     f"route add 127.0.0.0/8 via {gateway}"):
            in_namespace(one, _ip, line)
        with pytest.raises(TimeoutError):
            ask(one, "127.0.0.1", 8125, within=0.5)

    scene(host, tmp_path, play)


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)


def test_the_network_has_no_ipv6(host: Host, tmp_path: Path) -> None:
    async def play(_: Networks, containers: Containers) -> None:
        one, _ip = await containers.start(ONE)
        (bridge,) = {name for name in host.links() if name.startswith("sw") and name[2] not in "oi"}
        with_ipv6 = host.run(Path("/proc/thread-self/net/if_inet6").read_text)
        assert "lan" in with_ipv6  # this kernel has it
        assert bridge not in with_ipv6
        inside = in_namespace(one, Path("/proc/thread-self/net/if_inet6").read_text)
        assert "eth0" not in inside
        assert "lo" in inside

    scene(host, tmp_path, play)
