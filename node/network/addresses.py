"""Addresses of one subnet, given and taken back.

They live in memory: an address is held by a running container, whose record names it, so a daemon that starts again
learns them from those it takes over (`note`).
"""

import secrets
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from node.network.model import AddressInUse, NoFreeAddress
from ocispec.errors import InvalidArgument

Address = IPv4Address | IPv6Address


class Addresses:
    """`within`: the part of the subnet that is given out unasked; all of it can be asked for by address."""

    def __init__(
        self,
        subnet: IPv4Network | IPv6Network,
        gateway: Address,
        within: IPv4Network | IPv6Network | None = None,
        reserved: Iterable[Address] = (),
    ) -> None:
        self.subnet = subnet
        self.gateway = gateway
        part = within or subnet
        # Of the whole subnet, the first and the last address are no host's (of IPv6 the first: RFC 4291, 2.6.1).
        lowest, highest = int(subnet.network_address) + 1, int(subnet.broadcast_address) - (subnet.version == 4)
        self._first = max(int(part.network_address), lowest)
        self._end = min(int(part.broadcast_address), highest)
        self._bounds = range(lowest, highest + 1)
        self._kept = {int(gateway), *(int(address) for address in reserved)}
        self._taken: set[int] = set(self._kept)
        self._last = self._first - 1

    def take(self) -> Address:
        """The next free one after the last given, so that a freed address rests as long as others are free: its
        neighbours and clients may still believe in the old owner. Raises NoFreeAddress."""
        candidate = self._last
        # One more than are taken is enough to meet a free one, if there is one.
        for _ in range(min(len(self._taken) + 1, self._end - self._first + 1)):
            candidate = candidate + 1 if self._first <= candidate + 1 <= self._end else self._first
            if candidate not in self._taken:
                self._taken.add(candidate)
                self._last = candidate
                return self._address(candidate)
        raise NoFreeAddress(
            f"no available IPv{self.subnet.version} addresses on this network's address pools: {self.subnet}"
        )

    def claim(self, text: str) -> Address:
        """This one. Raises AddressInUse, InvalidArgument."""
        try:
            value = int(type(self.gateway)(text))
        except ValueError as error:
            raise InvalidArgument(f"invalid IPv{self.subnet.version} address: {text[:50]!r}") from error
        if value not in self._bounds:
            raise InvalidArgument(f"no configured subnet contains IP address {text}")
        if value in self._taken:
            raise AddressInUse("Address already in use")
        self._taken.add(value)
        return self._address(value)

    def note(self, text: str) -> None:
        """A running container has it."""
        self._taken.add(int(type(self.gateway)(text)))

    def give_back(self, text: str) -> None:
        value = int(type(self.gateway)(text))
        if value not in self._kept:
            self._taken.discard(value)

    def _address(self, value: int) -> Address:
        return type(self.gateway)(value)


def mac_of(address: IPv4Address) -> str:
    """02:42 and the address, as Docker does: no two containers of a bridge can collide."""
    return _colons(b"\x02\x42" + address.packed)


def random_mac() -> str:
    return _colons(b"\x02\x42" + secrets.token_bytes(4))


def _colons(value: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in value)
