"""Which subnet a network gets: the one asked for, the one of last time, or the first that nobody has."""

import secrets
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import NamedTuple

from node.network.model import InvalidSubnet, NoFreeAddress

POOLS = (
    (IPv4Network("172.16.0.0/12"), 16), (IPv4Network("192.168.0.0/16"), 20), (IPv4Network("10.128.0.0/9"), 20),
)  # fmt: skip
"""Where a subnet is looked for, and the prefix length it gets. The last one ends the shortage after 32 networks."""

UNIQUE_LOCAL = IPv6Network("fd00::/8")

WIDE = 8
"""Shorter prefixes are a default route in pieces (a VPN's 0.0.0.0/1 and 128.0.0.0/1): they overlap everything."""

Subnet = IPv4Network | IPv6Network


class Route(NamedTuple):
    destination: IPv4Network
    interface: str


def choose_subnet(wanted: str, remembered: str, bridge: str) -> IPv4Network:
    """Of the default bridge: the one that the settings name, the one of last time, or the first that no route of the
    host overlaps.

    Raises InvalidSubnet. What is remembered counts only while nobody else has taken it: the bridge goes when the node
    stops, and another node, a VPN or another engine may have come meanwhile.
    """
    routes = [route for route in host_routes() if route.interface != bridge]
    if wanted:
        return _wanted(wanted, routes)
    if remembered and _free(IPv4Network(remembered), routes):
        return IPv4Network(remembered)
    try:
        return free_subnet((), routes)
    except NoFreeAddress as error:
        raise InvalidSubnet(f"{error.message}: name a free one with --bridge-subnet") from error


def free_subnet(taken: Iterable[Subnet], routes: "list[Route] | None" = None) -> IPv4Network:
    """The first that neither a network of ours nor a route of the host overlaps. Raises NoFreeAddress."""
    routes = host_routes() if routes is None else routes
    ours = [subnet for subnet in taken if isinstance(subnet, IPv4Network)]
    for pool, prefix in POOLS:
        near = [subnet for subnet in ours if subnet.overlaps(pool)]
        for candidate in pool.subnets(new_prefix=prefix):
            if not any(candidate.overlaps(subnet) for subnet in near) and _free(candidate, routes):
                return candidate
    raise NoFreeAddress("all predefined address pools have been fully subnetted: every subnet of "
                        + " and ".join(str(pool) for pool, _ in POOLS) + " overlaps a network or a route of this host")


def choosable(subnet: Subnet) -> bool:
    """Whether it is of the ranges that subnets are chosen from, and no route of the host overlaps it."""
    if isinstance(subnet, IPv6Network):
        return subnet.subnet_of(UNIQUE_LOCAL) and not any(subnet.overlaps(route) for route in _host_routes6())
    return any(subnet.subnet_of(pool) for pool, _ in POOLS) and _free(subnet, host_routes())


def local_ipv6() -> IPv6Network:
    """A unique local one (RFC 4193)."""
    return IPv6Network((b"\xfd" + secrets.token_bytes(5) + bytes(10), 64))


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


def host_routes() -> list[Route]:
    """The main routing table, the default route aside (proc(5), /proc/pid/net/route)."""
    routes = []
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(word)[::-1], "big") for word in (fields[1], fields[7]))
        if mask:
            routes.append(Route(IPv4Network((address, mask.bit_count())), fields[0]))
    return routes


def _host_routes6() -> list[IPv6Network]:
    """Those that are not wider than all unique local addresses together (proc(5), /proc/net/ipv6_route)."""
    try:
        lines = Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()
    except OSError:  # a kernel without IPv6
        return []
    found = (IPv6Network((bytes.fromhex(line.split()[0]), int(line.split()[1], 16))) for line in lines)
    return [route for route in found if route.prefixlen > WIDE]
