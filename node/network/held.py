"""A network in the daemon's memory: what it is, its part of the kernel, its addresses and rules."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

from node.linux.netlink import Netlink
from node.network.addresses import Address, Addresses
from node.network.bridge import Bridge
from node.network.macvlan import Macvlan
from node.network.model import Endpoint, EndpointSpec, InvalidNetwork, Network, NetworkSpec, NoFreeAddress, Pool
from node.network.options import BridgeOptions, bridge_options
from node.network.rules import NetworkRules


class Driver(Protocol):
    """The kernel's part of a network (Bridge, Macvlan). Every method blocks and raises OSError."""

    @property
    def name(self) -> str: ...
    def prepare(self, *, ours: bool) -> None: ...
    def remove(self) -> None: ...
    def plug(self, host: Netlink, netns: int, inside: Netlink, end: Endpoint, *, hairpin: bool = False) -> int: ...
    def unplug(self, end: Endpoint) -> None: ...


@dataclass(frozen=True, slots=True)
class Held:
    """`driver` is None where containers have nothing of their own: host, none, configuration only."""

    network: Network
    driver: Driver | None = None
    pools: tuple[Addresses, ...] = ()
    rules: NetworkRules | None = None

    @property
    def bridge(self) -> Bridge | None:
        return self.driver if isinstance(self.driver, Bridge) else None

    @property
    def options(self) -> BridgeOptions:
        return self.bridge.options if self.bridge else BridgeOptions()

    @property
    def publishes(self) -> bool:
        """Whether ports of its containers are translated."""
        return self.bridge is not None and not self.network.spec.internal and self.options.gateway4 != "routed"

    def take(self, asked: EndpointSpec) -> tuple[Address | None, Address | None]:
        """An IPv4 and an IPv6 address. Raises NoFreeAddress, AddressInUse, InvalidArgument."""
        first = self._take(4, asked.ipv4)
        try:
            return first, self._take(6, asked.ipv6)
        except BaseException:
            if first:
                self.give_back(str(first))
            raise

    def _take(self, version: int, text: str) -> Address | None:
        pools = [pool for pool in self.pools if pool.subnet.version == version]
        if text:
            pool = next((pool for pool in pools if ip_address(text) in pool.subnet), None)
            if pool is None:
                raise InvalidNetwork(f"no configured subnet contains IP address {text}")
            return pool.claim(text)
        for pool in pools[:-1]:
            try:
                return pool.take()
            except NoFreeAddress:
                continue
        return pools[-1].take() if pools else None

    def pool_of(self, address: Address | None) -> Addresses | None:
        return next((pool for pool in self.pools if address is not None and address in pool.subnet), None)

    def note(self, end: Endpoint) -> None:
        """A running container has these addresses."""
        for text in filter(None, (end.ip, end.ip6)):
            if pool := self.pool_of(ip_address(text)):
                pool.note(text)

    def give_back(self, *addresses: str) -> None:
        for text in filter(None, addresses):
            if pool := self.pool_of(ip_address(text)):
                pool.give_back(text)


def hold(network: Network, bridge_name: str = "") -> Held:
    """The parts of a network that is defined; nothing is made yet."""
    spec = network.spec
    if spec.config_only or spec.driver in ("host", "null"):
        return Held(network)
    pools = tuple(_addresses(pool) for pool in spec.pools)
    if spec.driver != "bridge":
        return Held(network, Macvlan(network), pools)
    options = bridge_options(spec.options)
    bridge = Bridge(bridge_name or options.name or f"sw-{network.id[:12]}", network, options)
    modes = {4: options.gateway4, 6: options.gateway6}
    rules = NetworkRules(
        network.id[:12],
        bridge.name,
        tuple(pool.subnet for pool in spec.pools),
        spec.internal,
        options.masquerade,
        options.source,
        tuple(version for version, mode in modes.items() if mode in ("routed", "nat-unprotected")),
    )
    return Held(network, bridge, pools, rules)


def _addresses(pool: Pool) -> Addresses:
    within = ip_network(pool.ip_range) if pool.ip_range else None
    reserved = [ip_address(address) for address in pool.aux.values()]
    return Addresses(ip_network(pool.subnet), ip_address(pool.gateway), within, reserved)


def encode(network: Network) -> str:
    return json.dumps(asdict(replace(network, spec=replace(network.spec, pools=())))
                      | {"pools": [asdict(pool) for pool in network.spec.pools]})


def decode(text: str) -> Network:
    """Fields that are missing or unknown are another version's."""
    document = json.loads(text)
    pools = tuple(Pool(**_known(Pool, pool)) for pool in document.pop("pools"))
    spec = NetworkSpec(**{**_known(NetworkSpec, document["spec"]), "pools": pools})
    return Network(**{**_known(Network, document), "spec": spec})


def _known(kind: Any, document: dict[str, Any]) -> dict[str, Any]:
    names: Iterable[str] = {field.name for field in fields(kind)}
    return {name: value for name, value in document.items() if name in names}
