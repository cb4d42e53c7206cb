"""Forgetting flows, against the kernel's own table."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from node.linux.conntrack import Conntrack
from tests.conftest import WaitFor
from tests.node.network.place import HOST, NEIGHBOUR, Host

pytestmark = pytest.mark.root


@pytest.fixture
def place(wait_for: WaitFor) -> Iterator[Host]:
    host = Host()
    # Connections are tracked from the first rule that asks for them.
    host.shell("nft", "table ip t { chain c { type filter hook prerouting priority 0; ct state new accept; }; }")
    # From here on the neighbour knows the host's hardware address: what it sends is there when it is sent.
    send(host, 56)
    wait_for(lambda: flows(host, 56))
    yield host
    host.close()


def send(place: Host, *ports: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> None:
    def run() -> None:
        for number, port in enumerate(ports):
            with socket.socket(socket.AF_INET, kind) as sock:
                sock.settimeout(1)
                sock.bind((NEIGHBOUR, 20000 + number))  # a flow each
                if sock.connect_ex((HOST, port)) == 0:
                    sock.send(b"x")

    place.neighbour.run(run)


def flows(place: Host, port: int) -> int:
    """How many UDP flows go to that port."""
    with place.run(Conntrack) as connections:
        return len(connections._flows(port))


def tracked(place: Host) -> set[int]:
    return {port for port in (53, 54, 55) if flows(place, port)}


def test_flows_to_one_port_are_forgotten_and_no_others(place: Host) -> None:
    send(place, 53, 53, 54, 55)
    assert tracked(place) == {53, 54, 55}
    with place.run(Conntrack) as connections:
        assert connections.forget_udp([IPv4Address(HOST)], 53) == 2
        assert connections.forget_udp([IPv4Address(NEIGHBOUR)], 54) == 0  # sent to another address
        assert connections.forget_udp([IPv4Address(HOST)], 53) == 0
    assert tracked(place) == {54, 55}


def test_tcp_is_left_alone(place: Host) -> None:
    with place.run(lambda: socket.create_server((HOST, 53))):
        send(place, 53, kind=socket.SOCK_STREAM)
        with place.run(Conntrack) as connections:
            assert connections.forget_udp([IPv4Address(HOST)], 53) == 0


def test_many_flows(place: Host) -> None:
    send(place, *[53] * 2000)
    assert flows(place, 53) == 2000
    with place.run(Conntrack) as connections:
        assert connections.forget_udp([IPv4Address(HOST)], 53) == 2000
    assert tracked(place) == set()
