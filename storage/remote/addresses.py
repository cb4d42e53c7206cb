"""Which addresses a connection may go to.

A name is checked where it has become an address, at the very socket that is about to connect (aiohttp's
`socket_factory`): a name that resolves to something else a moment later, an address written in a redirect, and a
token service named by a challenge all pass here (server-side request forgery: Quay's CVE-2026-32591, -2377).
"""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOBODY = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48")))
"""Special purposes (RFC 6890, 4291, 2765, 8215) that `is_global` knows only in newer releases of Python, if at all:
the last three are further IPv6 forms of an IPv4 address."""

_CLOUDS = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "fd00:ec2::254")))
"""Where clouds tell a machine its secrets, beside link-local addresses."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_6TO4 = ipaddress.ip_network("2002::/16")


class AddressRefused(OSError):
    """The name leads to an address that this registry may not be asked at. Without errno: no system call failed."""


def is_public(address: Address) -> bool:
    """Whether it is somebody on the internet: not private, shared, loopback, link-local, multicast or reserved, nor
    an IPv6 form of such an IPv4 address."""
    inner = _inside(address)
    if inner is not None:
        return is_public(inner)
    special = address in _CLOUDS or any(address in network for network in _NOBODY)
    return address.is_global and not address.is_multicast and not special


def is_usable(address: Address) -> bool:
    """Whether any registry may live there. Link-local is where clouds keep their machines' secrets (169.254.169.254),
    mostly, and no registry does."""
    inner = _inside(address)
    if inner is not None:
        return is_usable(inner)
    return not (address.is_link_local or address.is_multicast or address.is_unspecified or address in _CLOUDS)


def _inside(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return ipaddress.IPv4Address((int(address) >> 80) & 0xFFFFFFFF) if address in _6TO4 else None


MakeSocket = Callable[[int, int, int], socket.socket]
"""Of family, kind and protocol."""


def plain_sockets(make: MakeSocket) -> Callable[[Any], socket.socket]:
    """A socket factory for aiohttp's connector."""
    return lambda info: make(*info[:3])


def guarded_sockets(make: MakeSocket = socket.socket, *, allow_private: bool) -> Callable[[Any], socket.socket]:
    """A socket factory for aiohttp's connector. Link-local addresses are refused even with `allow_private`."""
    allowed = is_usable if allow_private else is_public

    def guarded(info: Any) -> socket.socket:
        family, kind, protocol, _, where = info
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        if not allowed(address):
            raise AddressRefused(f"{address} is not a public address: refused")
        return make(family, kind, protocol)

    return guarded
