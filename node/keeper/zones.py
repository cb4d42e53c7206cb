"""Who is called what: the names of running containers, by network. Pure data, no sockets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Membership:
    """A container's place on one network. `names` are answered to everybody on it, `links` (alias → name) to this
    container alone."""

    network_id: str
    network_name: str
    subnets: tuple[Subnet, ...] = ()
    names: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> "Membership":
        """Raises ValueError, KeyError or TypeError."""
        return cls(
            str(value["id"]),
            str(value["name"]),
            tuple(ip_network(text, strict=False) for text in value["subnets"]),
            tuple(str(name).lower() for name in value["names"]),
            tuple(ip_address(text) for text in value["addresses"]),
            {str(alias).lower(): str(name).lower() for alias, name in value["links"].items()},
        )


class Zones:
    """Names are lower case and without the dot at the end."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Membership, ...]] = {}
        self._named: dict[tuple[str, str], dict[str, Membership]] = {}
        self._addressed: dict[tuple[str, Address], Membership] = {}
        self._turn = 0

    def put(self, sandbox: str, places: tuple[Membership, ...]) -> None:
        self.drop(sandbox)
        self._places[sandbox] = places
        for place in places:
            for name in place.names:
                self._named.setdefault((place.network_id, name), {})[sandbox] = place
            for address in place.addresses:
                self._addressed[place.network_id, address] = place

    def drop(self, sandbox: str) -> None:
        for place in self._places.pop(sandbox, ()):
            for name in place.names:
                named = self._named.get((place.network_id, name), {})
                named.pop(sandbox, None)
                if not named:
                    self._named.pop((place.network_id, name), None)
            for address in place.addresses:
                if self._addressed.get((place.network_id, address)) is place:
                    del self._addressed[place.network_id, address]

    def addresses(self, sandbox: str, name: str) -> list[Address] | None:
        """All addresses of that name as this container sees it, each time another one first; None: nobody has it.

        The first of its networks that knows the name answers. `web.backend` asks the network `backend` alone.
        """
        found = self._find(sandbox, name)
        if found is None:
            return None
        self._turn += 1
        first = self._turn % len(found)
        return [address for place in found[first:] + found[:first] for address in place.addresses]

    def _find(self, sandbox: str, name: str) -> list[Membership] | None:
        places = self._places.get(sandbox, ())
        for place in places:
            wanted = place.links.get(name, name)
            if found := self._named.get((place.network_id, wanted)):
                return list(found.values())
        head, dot, network = name.rpartition(".")
        if not dot:
            return None
        for place in places:
            if place.network_name.lower() == network and (found := self._named.get((place.network_id, head))):
                return list(found.values())
        return None

    def name_of(self, sandbox: str, address: Address) -> str | None:
        """`<container>.<network>` of who has that address on one of this container's networks."""
        for place in self._places.get(sandbox, ()):
            found = self._addressed.get((place.network_id, address))
            if found is not None and found.names:
                return f"{found.names[0]}.{found.network_name}"
        return None

    def own(self, sandbox: str, address: Address) -> bool:
        """Whether the address belongs to a subnet that this node gives out: nobody else can know who has it."""
        return any(address in subnet for place in self._places.get(sandbox, ()) for subnet in place.subnets
                   if subnet.version == address.version)
