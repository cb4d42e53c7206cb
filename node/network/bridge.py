"""The kernel's part: the bridge, and a namespace with an interface on it. Everything here blocks."""

import contextlib
import errno
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from node.linux import syscalls
from node.linux.netlink import Netlink
from node.network.addresses import mac_of
from node.network.model import InvalidSubnet

MTU = 1500
POOL = IPv4Network("172.16.0.0/12")


class Bridge:
    """One bridge of this node. Raises OSError in the kernel's words."""

    def __init__(self, name: str, subnet: IPv4Network, gateway: IPv4Address) -> None:
        self.name = name
        self._subnet = subnet
        self._gateway = gateway
        self._index = 0

    def prepare(self) -> None:
        """Make the bridge, or take over the one that an earlier daemon left."""
        with Netlink() as host:
            with contextlib.suppress(FileExistsError):
                host.add_bridge(self.name, mac_of(self._gateway))
            self._index = host.index(self.name)
            host.set_up(self._index)
            with contextlib.suppress(FileExistsError):
                host.add_address(self._index, self._gateway, self._subnet.prefixlen, self._subnet.broadcast_address)
        _sysctl("net/ipv4/ip_forward", "1")
        _sysctl(f"net/ipv4/conf/{self.name}/route_localnet", "1")

    def remove(self) -> None:
        with Netlink() as host:
            _ignore_absent(host, self.name)

    def connect(self, container_id: str, address: IPv4Address) -> int:
        """A new namespace with lo and eth0 up, at `address`, the gateway its default route; gives its descriptor."""
        netns, inside = new_namespace()
        try:
            with inside, Netlink() as host:
                host.add_veth(veth_name(container_id), master=self._index, peer="eth0", peer_mac=mac_of(address),
                              peer_netns=netns, mtu=MTU)
                index = inside.index("eth0")
                inside.add_address(index, address, self._subnet.prefixlen, self._subnet.broadcast_address)
                inside.set_up(index)
                inside.add_default_route(self._gateway)
        except BaseException:
            os.close(netns)
            raise
        return netns

    def disconnect(self, container_id: str) -> None:
        """The host's end goes with its namespace; where another container still holds that, it goes now."""
        with Netlink() as host:
            _ignore_absent(host, veth_name(container_id))


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
            inside = Netlink()
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
    inside.set_up(1)
    return netns, inside


def choose_subnet(wanted: str, remembered: str) -> IPv4Network:
    """The one that the settings name, the one of last time, or the first /16 of POOL that no route of the host
    overlaps. Raises InvalidSubnet."""
    if wanted:
        try:
            subnet = IPv4Network(wanted, strict=False)
        except ValueError as error:
            raise InvalidSubnet(f"--bridge-subnet {wanted!r}: {error}") from error
        if not 8 <= subnet.prefixlen <= 29:
            raise InvalidSubnet(f"--bridge-subnet {wanted!r}: want a prefix of /8 to /29")
        return subnet
    if remembered:
        return IPv4Network(remembered)
    routes = _routes()
    for candidate in POOL.subnets(new_prefix=16):
        if not any(candidate.overlaps(route) for route in routes):
            return candidate
    raise InvalidSubnet(f"every /16 of {POOL} overlaps a route of this host: name a free one with --bridge-subnet")


def _routes() -> list[IPv4Network]:
    """Destinations of the host's routing table, the default route aside (proc(5), /proc/net/route)."""
    routes = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(word)[::-1], "big") for word in (fields[1], fields[7]))
        if mask:
            routes.append(IPv4Network((address, mask.bit_count())))
    return routes


def _sysctl(path: str, value: str) -> None:
    """Written only where it differs: a read-only /proc/sys that is right already is no error."""
    file = Path("/proc/sys", path)
    if file.read_text().strip() != value:
        file.write_text(value)
