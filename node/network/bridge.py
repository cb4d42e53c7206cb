"""The kernel's part of a bridge network: the bridge, and interfaces on it. Everything here blocks."""

import contextlib
import errno
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from node.linux.conntrack import Conntrack
from node.linux.netlink import Netlink
from node.network.addresses import mac_of, random_mac
from node.network.model import ANY, Endpoint, Network, Pool, PortBinding
from node.network.namespace import entered, no_ipv6, sysctl
from node.network.options import BridgeOptions

ROUTER = IPv6Address("fe80::1")
"""Every bridge's own link-local address, as Docker gives it."""


class Bridge:
    """One bridge of this node. Raises OSError in the kernel's words."""

    def __init__(self, name: str, network: Network, options: BridgeOptions) -> None:
        self.name = name
        self.options = options
        self._network = network
        self._index = 0

    def prepare(self, *, ours: bool) -> None:
        """Make the bridge, or take over the one that an earlier daemon left.

        `ours`: one that is there is this node's. Raises FileExistsError where it is somebody else's: it would be
        changed, and removed when this node stops.
        """
        with Netlink() as host:
            try:
                host.add_bridge(self.name, self._mac())
            except FileExistsError:
                if not ours or host.link(self.name).kind != "bridge":
                    raise FileExistsError(errno.EEXIST, f"the interface {self.name} is there already and is not this "
                                                        "node's: name another one with --bridge") from None
            self._index = host.index(self.name)
            # Before it is up. On a network without IPv6, containers would reach the host and each other by link-local
            # addresses past every rule, and could become its router (CVE-2020-13401).
            if self._network.spec.ipv6:
                _no_router(self.name)
            else:
                no_ipv6(self.name)
            if self.options.mtu != 1500:
                host.set_mtu(self._index, self.options.mtu)
            host.set_up(self._index)
            for pool in self._network.spec.pools:
                self._add_gateway(host, pool)
        sysctl(f"net/ipv4/conf/{self.name}/route_localnet", "1")

    def _add_gateway(self, host: Netlink, pool: Pool) -> None:
        subnet, gateway = ip_network(pool.subnet), ip_address(pool.gateway)
        options, internal = self.options, self._network.spec.internal
        mode = options.gateway4 if gateway.version == 4 else options.gateway6
        if (gateway.version == 4 and options.inhibit_ipv4) or (internal and mode == "isolated"):
            return
        with contextlib.suppress(FileExistsError):
            if isinstance(subnet, IPv6Network):
                host.add_address(self._index, gateway, subnet.prefixlen)
                host.add_address(self._index, ROUTER, 64)
            else:
                host.add_address(self._index, gateway, subnet.prefixlen, subnet.broadcast_address)

    def remove(self) -> None:
        with Netlink() as host:
            _ignore_absent(host, self.name)

    def plug(self, host: Netlink, netns: int, inside: Netlink, end: Endpoint, *, hairpin: bool = False) -> int:
        """`end.interface` in the namespace, up, with its addresses; gives its index.

        `hairpin`: the container has published ports and may ask for them itself. Where br_netfilter is loaded (Docker
        and Kubernetes do) such a packet is translated on the bridge, and would have to leave by the port it came from.
        Not for the others: they would hear their own broadcasts.
        """
        try:
            self._add_pair(host, end, netns)
        except FileExistsError:
            # A namespace of before is still being taken apart: the kernel does that when it likes.
            _ignore_absent(host, end.host_interface)
            self._add_pair(host, end, netns)
        if hairpin:
            host.set_hairpin(end.host_interface)
        if not self.options.icc:
            host.set_isolated(end.host_interface)
        return address_interface(netns, inside, end)

    def _add_pair(self, host: Netlink, end: Endpoint, netns: int) -> None:
        host.add_veth(end.host_interface, master=self._index, peer=end.interface, peer_mac=end.mac, peer_netns=netns,
                      mtu=self.options.mtu)

    def allow_hairpin(self, end: Endpoint) -> None:
        """Its container has published ports from now on."""
        with Netlink() as host:
            host.set_hairpin(end.host_interface)

    def unplug(self, end: Endpoint) -> None:
        """The host's end goes with its namespace; where that lives on, it goes now."""
        with Netlink() as host:
            _ignore_absent(host, end.host_interface)

    def sweep(self, known: Iterable[str]) -> None:
        """Remove the ports of this bridge that belong to nobody: a daemon died between making and recording one."""
        kept = set(known)
        with Netlink() as host:
            for link in host.links():
                if link.master == self._index and link.kind == "veth" and link.name not in kept:
                    _ignore_absent(host, link.name)

    def _mac(self) -> str:
        gateway = self._network.gateway
        return mac_of(IPv4Address(gateway)) if gateway else random_mac()


def address_interface(netns: int, inside: Netlink, end: Endpoint) -> int:
    """Give `end.interface` its addresses and set it up; gives its index."""
    index = inside.index(end.interface)
    if end.ip6:
        with entered(netns):
            _no_router(end.interface)
            sysctl(f"net/ipv6/conf/{end.interface}/disable_ipv6", "0")
    if end.ip:
        subnet = ip_network(f"{end.ip}/{end.prefix}", strict=False)
        inside.add_address(index, IPv4Address(end.ip), end.prefix, IPv4Address(int(subnet.broadcast_address)))
    if end.ip6:
        inside.add_address(index, IPv6Address(end.ip6), end.prefix6)
    inside.set_up(index)
    return index


def forget_udp(published: Iterable[PortBinding]) -> None:
    """Flows to these ports meet the rules anew, as they are now."""
    ports = [port for port in published if port.proto == "udp" and ":" not in port.host_ip]
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
    """Of the endpoint of a record that does not say: written when a container had one network."""
    return f"veth{container_id[:11]}"


def _no_router(interface: str) -> None:
    """No container announces itself as the router of others, or of the host (CVE-2020-13401)."""
    sysctl(f"net/ipv6/conf/{interface}/accept_ra", "0")
