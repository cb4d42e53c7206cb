"""The kernel's part: the bridge, and a namespace with an interface on it. Everything here blocks."""

import contextlib
import errno
import os
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

from node.linux import syscalls
from node.linux.conntrack import Conntrack
from node.linux.netlink import Netlink
from node.network.addresses import mac_of
from node.network.model import ANY, InvalidSubnet, PortBinding

MTU = 1500
POOLS = ((IPv4Network("172.16.0.0/12"), 16), (IPv4Network("192.168.0.0/16"), 20))
"""Where a subnet is looked for, and the prefix length it gets."""

WIDE = 8
"""Shorter prefixes are a default route in pieces (a VPN's 0.0.0.0/1 and 128.0.0.0/1): they overlap everything."""


class Route(NamedTuple):
    destination: IPv4Network
    interface: str


class Bridge:
    """One bridge of this node. Raises OSError in the kernel's words."""

    def __init__(self, name: str, subnet: IPv4Network, gateway: IPv4Address) -> None:
        self.name = name
        self._subnet = subnet
        self._gateway = gateway
        self._index = 0

    def prepare(self, *, ours: bool) -> None:
        """Make the bridge, or take over the one that an earlier daemon left.

        `ours`: one that is there is this node's. Raises FileExistsError where it is somebody else's: it would be
        changed, and removed when this node stops.
        """
        with Netlink() as host:
            try:
                host.add_bridge(self.name, mac_of(self._gateway))
            except FileExistsError:
                if not ours or host.link(self.name).kind != "bridge":
                    raise FileExistsError(errno.EEXIST, f"the interface {self.name} is there already and is not this "
                                                        "node's: name another one with --bridge") from None
            self._index = host.index(self.name)
            # Before it is up. The network is IPv4 only: with IPv6, containers would reach the host and each other by
            # link-local addresses past every rule, and could become its router (CVE-2020-13401).
            _no_ipv6(self.name)
            host.set_up(self._index)
            with contextlib.suppress(FileExistsError):
                host.add_address(self._index, self._gateway, self._subnet.prefixlen, self._subnet.broadcast_address)
        _sysctl("net/ipv4/ip_forward", "1")
        _sysctl(f"net/ipv4/conf/{self.name}/route_localnet", "1")

    def remove(self) -> None:
        with Netlink() as host:
            _ignore_absent(host, self.name)

    def connect(self, container_id: str, address: IPv4Address, *, hairpin: bool = False) -> int:
        """A new namespace with lo and eth0 up, at `address`, the gateway its default route; gives its descriptor.

        `hairpin`: the container has published ports and may ask for them itself. Where br_netfilter is loaded (Docker
        and Kubernetes do) such a packet is translated on the bridge, and would have to leave by the port it came from.
        Not for the others: they would hear their own broadcasts.
        """
        netns, inside = new_namespace()
        try:
            with inside, Netlink() as host:
                try:
                    self._add_pair(host, container_id, address, netns)
                except FileExistsError:
                    # A namespace of before is still being taken apart: the kernel does that when it likes.
                    _ignore_absent(host, veth_name(container_id))
                    self._add_pair(host, container_id, address, netns)
                if hairpin:
                    host.set_hairpin(veth_name(container_id))
                index = inside.index("eth0")
                inside.add_address(index, address, self._subnet.prefixlen, self._subnet.broadcast_address)
                inside.set_up(index)
                inside.add_default_route(self._gateway)
        except BaseException:
            os.close(netns)
            raise
        return netns

    def _add_pair(self, host: Netlink, container_id: str, address: IPv4Address, netns: int) -> None:
        host.add_veth(veth_name(container_id), master=self._index, peer="eth0", peer_mac=mac_of(address),
                      peer_netns=netns, mtu=MTU)

    def disconnect(self, container_id: str) -> None:
        """The host's end goes with its namespace; where another container still holds that, it goes now."""
        with Netlink() as host:
            _ignore_absent(host, veth_name(container_id))


def forget_udp(published: Iterable[PortBinding]) -> None:
    """Flows to these ports meet the rules anew, as they are now."""
    ports = [port for port in published if port.proto == "udp"]
    if not ports:
        return
    with Netlink() as host, Conntrack() as connections:
        every = host.addresses()
        for port in ports:
            connections.forget_udp(every if port.host_ip == ANY else [IPv4Address(port.host_ip)], port.host_port)


def exists(name: str) -> bool:
    """Whether the host has an interface of that name."""
    with Netlink() as host:
        try:
            host.link(name)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
    return True


def _ignore_absent(host: Netlink, name: str) -> None:
    try:
        host.delete(name)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def veth_name(container_id: str) -> str:
    return f"veth{container_id[:11]}"


def new_namespace() -> tuple[int, Netlink]:
    """A network namespace with lo up: its descriptor, and a netlink socket inside it.

    This thread enters the new namespace and comes back; the namespace lives by its descriptor.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _no_ipv6("default")  # of the interfaces to come; lo keeps ::1
            inside = Netlink()
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
    inside.set_up(1)
    return netns, inside


def choose_subnet(wanted: str, remembered: str, bridge: str) -> IPv4Network:
    """The one that the settings name, the one of last time, or the first that no route of the host overlaps.

    Raises InvalidSubnet. What is remembered counts only while nobody else has taken it: the bridge goes when the node
    stops, and another node, a VPN or another engine may have come meanwhile.
    """
    routes = [route for route in _routes() if route.interface != bridge]
    if wanted:
        return _wanted(wanted, routes)
    if remembered and _free(IPv4Network(remembered), routes):
        return IPv4Network(remembered)
    for pool, prefix in POOLS:
        for candidate in pool.subnets(new_prefix=prefix):
            if _free(candidate, routes):
                return candidate
    raise InvalidSubnet("every subnet of " + " and ".join(str(pool) for pool, _ in POOLS)
                        + " overlaps a route of this host: name a free one with --bridge-subnet")


def _wanted(text: str, routes: list[Route]) -> IPv4Network:
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError as error:
        raise InvalidSubnet(f"--bridge-subnet {text!r}: {error}") from error
    if not 8 <= subnet.prefixlen <= 29:
        raise InvalidSubnet(f"--bridge-subnet {text!r}: want a prefix of /8 to /29")
    for route in routes:
        # A wider route gives way to the bridge's, as its owner must mean; a narrower or equal one would be cut off.
        if route.destination.subnet_of(subnet):
            raise InvalidSubnet(f"--bridge-subnet {text!r}: this host reaches {route.destination} through "
                                f"{route.interface}")
    return subnet


def _free(subnet: IPv4Network, routes: list[Route]) -> bool:
    return not any(subnet.overlaps(route.destination) for route in routes if route.destination.prefixlen >= WIDE)


def _routes() -> list[Route]:
    """The main routing table, the default route aside (proc(5), /proc/pid/net/route)."""
    routes = []
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(word)[::-1], "big") for word in (fields[1], fields[7]))
        if mask:
            routes.append(Route(IPv4Network((address, mask.bit_count())), fields[0]))
    return routes


def _no_ipv6(interface: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        _sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")


def _sysctl(path: str, value: str) -> None:
    """Written only where it differs: a read-only /proc/sys that is right already is no error."""
    file = Path("/proc/sys", path)
    if file.read_text().strip() != value:
        file.write_text(value)
