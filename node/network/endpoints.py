"""What a container gets on a network: its endpoint, decided before anything is made."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from node.network.addresses import mac_of, random_mac
from node.network.held import Held
from node.network.model import Endpoint, EndpointSpec, InvalidNetwork, Joining, NetworkForbidden
from node.network.options import check_address, check_mac, interface_name
from ocispec.errors import Unimplemented

SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
ALONE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


def check_spec(held: Held, asked: EndpointSpec) -> None:
    """Whether this network gives what is asked. Raises InvalidNetwork, NetworkForbidden."""
    network = held.network
    if network.spec.config_only:
        raise NetworkForbidden(f"configuration network {network.name} cannot be used by containers")
    user_defined = not network.builtin
    if asked.aliases and not user_defined:
        raise InvalidNetwork("network-scoped alias is supported only for containers in user defined networks")
    if asked.ipv4 or asked.ipv6:
        if not user_defined:
            raise InvalidNetwork("user specified IP address is supported on user defined networks only")
        if not network.asked_subnet:
            raise InvalidNetwork("user specified IP address is supported only when connecting to networks with user "
                                 "configured subnets")
    if asked.ipv4:
        check_address(asked.ipv4, 4)
    if asked.ipv6:
        check_address(asked.ipv6, 6)
    if asked.link_local:
        raise Unimplemented("LinkLocalIPs of an endpoint is not supported yet")
    if asked.mac:
        check_mac(asked.mac)


def make(held: Held, asked: EndpointSpec, joining: Joining, used: Collection[str]) -> Endpoint:
    """Takes the addresses; whoever fails later gives them back. `used`: names of interfaces the container has."""
    check_spec(held, asked)
    name = interface_name(asked.driver_opts) or _next(held.options.prefix, used)
    if name in used or name == "lo":
        raise InvalidNetwork(f"the container has an interface {name} already")
    first, second = held.take(asked)
    endpoint_id = secrets.token_hex(32)
    network, pools = held.network, (held.pool_of(first), held.pool_of(second))
    mac = check_mac(asked.mac) if asked.mac else mac_of(first) if isinstance(first, IPv4Address) else random_mac()
    end = Endpoint(
        mac=mac, network_id=network.id, endpoint_id=endpoint_id, network_name=network.name, driver=network.driver,
        interface=name, host_interface=f"veth{endpoint_id[:11]}" if held.bridge else "", aliases=asked.aliases,
        links=asked.links, dns_names=_names(held, asked, joining), gw_priority=asked.gw_priority,
    )  # fmt: skip
    routed = not network.spec.internal
    if first and pools[0]:
        gateway = str(pools[0].gateway) if routed else ""
        end = replace(end, ip=str(first), prefix=pools[0].subnet.prefixlen, gateway=gateway)
    if second and pools[1]:
        gateway = str(pools[1].gateway) if routed else ""
        end = replace(end, ip6=str(second), prefix6=pools[1].subnet.prefixlen, gateway6=gateway)
    return end


def _names(held: Held, asked: EndpointSpec, joining: Joining) -> tuple[str, ...]:
    if held.network.builtin:
        return ()
    names = (joining.name, *asked.aliases, joining.container_id[:12], joining.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def _next(prefix: str, used: Collection[str]) -> str:
    number = 0
    while f"{prefix}{number}" in used:
        number += 1
    return f"{prefix}{number}"


def ordered(ends: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """The one that gets the default route first: by priority, then whoever has a gateway, then by name (as Docker)."""
    return tuple(sorted(ends, key=lambda end: (-end.gw_priority, not (end.gateway or end.gateway6), end.network_name)))
