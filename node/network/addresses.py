"""Addresses of one subnet, given and taken back.

They live in memory: an address is held by a running container, whose record names it, so a daemon that starts again
learns them from those it takes over (`claim`).
"""

from ipaddress import IPv4Address, IPv4Network

from node.network.model import NoFreeAddress


class Addresses:
    """The first host address is the gateway's."""

    def __init__(self, subnet: IPv4Network) -> None:
        self.subnet = subnet
        self.gateway = subnet.network_address + 1
        self._taken: set[int] = {int(self.gateway)}
        self._last = int(self.gateway)

    def take(self) -> IPv4Address:
        """The next free one after the last given, so that a freed address rests as long as others are free: its
        neighbours and clients may still believe in the old owner. Raises NoFreeAddress."""
        first, last = int(self.subnet.network_address) + 1, int(self.subnet.broadcast_address) - 1
        if len(self._taken) > last - first:
            raise NoFreeAddress(f"no available IPv4 addresses on this network's address pool: {self.subnet}")
        candidate = self._last
        while True:
            candidate = candidate + 1 if candidate < last else first
            if candidate not in self._taken:
                self._taken.add(candidate)
                self._last = candidate
                return IPv4Address(candidate)

    def claim(self, address: IPv4Address) -> None:
        """Note that a running container has it."""
        self._taken.add(int(address))

    def give_back(self, address: IPv4Address) -> None:
        if address != self.gateway:
            self._taken.discard(int(address))


def mac_of(address: IPv4Address) -> str:
    """02:42 and the address, as Docker does: no two containers of a bridge can collide."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)
