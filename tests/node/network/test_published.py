"""The host's firewall governs published ports: its own rules, in its own tables, on real packets."""

import socket
from collections.abc import Iterator

import pytest

from node.linux.nftables import Nftables
from node.network import published
from node.network.front import Front
from node.network.model import PortBinding
from node.network.published import Target
from tests.node.network.place import HOST, NEIGHBOUR, Host, Place, Servers, ask, fetch, in_namespace

pytestmark = pytest.mark.root
TABLE = "t_ports"
INSIDE, INSIDE6, HOST6, NEIGHBOUR6 = "172.30.0.2", "fd30::2", "2001:db8::1", "2001:db8::2"


def rules(host: Host, text: str) -> None:
    host.run(lambda: Nftables().run(text))


def firewall(host: Host, policy: str, *lines: str) -> None:
    """An administrator's own, as they write them."""
    chain = "\n".join((f"type filter hook input priority filter; policy {policy}", *lines))
    rules(host, f"table inet admin {{\nchain in {{\n{chain}\n}}\n}}\n")


@pytest.fixture
def container(host: Host, servers: Servers) -> Iterator[Place]:
    """On a bridge of the host, serving TCP and UDP 80, with nothing published yet."""
    made = Place()
    for line in ("link add br0 type bridge", "link set br0 up", "addr add 172.30.0.1/16 dev br0",
                 "addr add fd30::1/64 dev br0 nodad", f"addr add {HOST6}/64 dev lan nodad",
                 f"link add v1 master br0 type veth peer name eth0 netns {made.path}", "link set v1 up"):  # fmt: skip
        host.ip(line)
    made.sysctl("net/ipv6/conf/all/disable_ipv6", "0")
    host.neighbour.sysctl("net/ipv6/conf/all/disable_ipv6", "0")
    for line in (f"addr add {INSIDE}/16 dev eth0", "link set eth0 up", "route add default via 172.30.0.1",
                 f"addr add {INSIDE6}/64 dev eth0 nodad", "route add default via fd30::1"):  # fmt: skip
        made.ip(line)
    host.neighbour.ip(f"addr add {NEIGHBOUR6}/64 dev lan nodad")
    host.sysctl("net/ipv4/ip_forward", "1")
    host.sysctl("net/ipv6/conf/all/forwarding", "1")
    servers.tcp(made.path, 80, "web")
    servers._start(in_namespace(made.path, lambda: socket.create_server(("::", 81), family=socket.AF_INET6)),
                   servers._serve_tcp, "web")
    servers.udp(made.path, 80, "dns")
    yield made
    made.close()


@pytest.fixture
def governed(host: Host, container: Place) -> Front:
    front = Front("test")
    assert host.run(front.prepare)
    assert host.run(front.prepare)  # an earlier daemon's is taken over
    rules(host, published.tables(TABLE, ["br0"], front.names))
    ports = [PortBinding(proto, 80, "0.0.0.0", 8080) for proto in ("tcp", "udp")]
    rules(host, published.publish(TABLE, [Target(port, INSIDE) for port in ports]))
    rules(host, published.publish(TABLE, [Target(PortBinding("tcp", 81, "::", 8080), INSIDE6)]))
    return front


def reached(host: Host) -> bool:
    try:
        assert fetch(host.neighbour.path, HOST, 8080, 0.5) == f"web {NEIGHBOUR}"
        assert ask(host.neighbour.path, HOST, 8080, 0.5) == f"dns {NEIGHBOUR}"
    except OSError:
        return False
    return True


def test_without_a_firewall_ports_are_open_and_clients_known(host: Host, governed: Front) -> None:
    assert reached(host)
    assert fetch(host.neighbour.path, HOST6, 8080) == f"web {NEIGHBOUR6}"


def test_nftables_input_rules_decide(host: Host, governed: Front) -> None:
    firewall(host, "drop", "iif lo accept", "meta l4proto ipv6-icmp accept")
    assert not reached(host)
    with pytest.raises(OSError, match="timed out"):
        fetch(host.neighbour.path, HOST6, 8080, 0.5)
    rules(host, f"add rule inet admin in ip saddr {NEIGHBOUR} meta l4proto {{ tcp, udp }} th dport 8080 accept")
    assert reached(host)
    rules(host, f"add rule inet admin in ip6 saddr {NEIGHBOUR6} tcp dport 8080 accept")
    assert fetch(host.neighbour.path, HOST6, 8080).startswith("web")


def test_iptables_input_rules_decide(host: Host, governed: Front) -> None:
    host.shell("iptables", "-A", "INPUT", "-s", NEIGHBOUR, "-p", "tcp", "--dport", "8080", "-j", "REJECT", "--reject-with", "tcp-reset")
    with pytest.raises(ConnectionRefusedError):
        fetch(host.neighbour.path, HOST, 8080, 0.5)
    host.shell("iptables", "-F", "INPUT")
    assert reached(host)


def test_rules_see_the_hosts_port_and_the_way_in(host: Host, governed: Front) -> None:
    firewall(host, "accept", 'iifname "lan" tcp dport 80 drop', 'iifname "elsewhere" tcp dport 8080 drop')
    assert reached(host)  # neither the container's port nor another interface is meant


def test_an_accepted_connection_goes_on_by_the_short_way(host: Host, governed: Front) -> None:
    before = sent(host, governed.out)
    for _ in range(5):
        assert reached(host)
    assert 10 <= sent(host, governed.out) - before <= 15  # one packet a connection and flow, however long


def sent(host: Host, interface: str) -> int:
    lines = host.ip(f"-s link show dev {interface}").splitlines()
    return int(lines[5].split()[1])


def test_without_the_front_ports_are_open_whatever_the_firewall_says(host: Host, container: Place) -> None:
    rules(host, published.tables(TABLE, ["br0"], None))
    rules(host, published.publish(TABLE, [Target(PortBinding(proto, 80, "0.0.0.0", 8080), INSIDE)
                                          for proto in ("tcp", "udp")]))
    firewall(host, "drop")
    assert reached(host)


def test_a_hand_over_keeps_ports_and_drop_leaves_nothing(host: Host, governed: Front) -> None:
    rules(host, published.tables(TABLE, ["br0"], governed.names))
    assert reached(host)
    rules(host, published.exactly(TABLE, [Target(PortBinding("udp", 80, "0.0.0.0", 8080), INSIDE)]))
    with pytest.raises(OSError, match="refused"):
        fetch(host.neighbour.path, HOST, 8080, 0.5)
    assert ask(host.neighbour.path, HOST, 8080).startswith("dns")
    rules(host, published.drop_tables(TABLE))
    host.run(governed.remove)
    assert TABLE not in host.ruleset() and not {"swotest", "switest"} & host.links()


def test_a_strict_host_is_left_alone(host: Host) -> None:
    host.sysctl("net/ipv4/conf/all/rp_filter", "1")
    assert not host.run(Front("test").prepare)
    assert "swotest" not in host.links()
