"""From what `docker network create` says to a network that can be: checked, and with a subnet and gateway each.

Raises InvalidNetwork (400), NetworkForbidden (403), NoSuchNetwork, Unimplemented, Unavailable.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from node.network.macvlan import driver_data
from node.network.model import BUILTIN, InvalidNetwork, Network, NetworkForbidden, NetworkSpec, NoSuchNetwork, Pool
from node.network.options import bridge_options
from node.network.subnets import Subnet, free_subnet, local_ipv6
from ocispec.errors import NotFound, Unavailable, Unimplemented

DRIVERS = ("bridge", "macvlan", "ipvlan")
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
NO_SWARM = ('This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
            "swarm and try again.")


class NoSuchDriver(NotFound):
    """Docker looks for a plugin of that name."""


def check(spec: NetworkSpec) -> None:
    """All that needs no look at other networks."""
    if not NAME.fullmatch(spec.name):
        raise InvalidNetwork(f"invalid network name {spec.name[:60]!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if spec.name in (*BUILTIN, "default"):
        raise NetworkForbidden(f"operation is not permitted on predefined {spec.name} network")
    if spec.driver in ("host", "null"):
        raise NetworkForbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.driver == "overlay" or spec.scope == "swarm":
        raise Unavailable(NO_SWARM)
    if spec.scope not in ("", "local"):
        raise InvalidNetwork(f"invalid network scope {spec.scope[:50]!r}")
    if spec.driver not in DRIVERS:
        raise NoSuchDriver(f"could not find plugin {spec.driver[:50]} in v1 plugin registry: plugin not found")
    if spec.ipam_driver != "default":
        raise Unimplemented(f"IPAM driver {spec.ipam_driver[:50]} is not supported yet")
    if not (spec.ipv4 or spec.ipv6):
        raise InvalidNetwork("IPv4 or IPv6 must be enabled")
    if spec.config_only and spec.config_from:
        raise InvalidNetwork("a configuration network cannot depend on another configuration network")
    if spec.driver == "bridge":
        _check_bridge(spec)
    else:
        driver_data(spec)


def _check_bridge(spec: NetworkSpec) -> None:
    options = bridge_options(spec.options)
    versions = [":" in pool.subnet for pool in spec.pools]
    if versions.count(True) > 1 or versions.count(False) > 1:
        raise NetworkForbidden("bridge driver doesn't support multiple subnets")
    if "isolated" in (options.gateway4, options.gateway6) and not spec.internal:
        raise InvalidNetwork("gateway mode 'isolated' can only be used for an internal network")


def with_configuration(spec: NetworkSpec, others: Sequence[Network]) -> NetworkSpec:
    """`--config-from`: what the other network was made to hold."""
    if not spec.config_from:
        return spec
    source = next((other.spec for other in others if spec.config_from in (other.name, other.id)), None)
    if source is None:
        raise NoSuchNetwork(spec.config_from)
    if not source.config_only:
        raise NetworkForbidden(f"{spec.config_from} is not a configuration only network")
    if spec.options or spec.pools or spec.internal:
        raise NetworkForbidden("user specified configurations are not supported if the network depends on a "
                               "configuration network")
    return replace(
        spec, pools=source.pools, ipam_options=source.ipam_options, ipv6=source.ipv6, ipv4=source.ipv4,
        internal=source.internal, options=source.options, labels={**source.labels, **spec.labels},
    )  # fmt: skip


def complete(spec: NetworkSpec, others: Sequence[Network]) -> NetworkSpec:
    """With subnets and gateways that no other network has."""
    if spec.config_only:
        for pool in spec.pools:
            _complete(pool)
        return spec
    taken: list[Subnet] = [ip_network(p.subnet) for o in others if not o.spec.config_only for p in o.spec.pools]
    pools = [_complete(pool) for pool in spec.pools if pool.subnet]
    for pool in pools:
        _check_free(ip_network(pool.subnet), taken)
        taken.append(ip_network(pool.subnet))
    if spec.ipv4 and not any(":" not in pool.subnet for pool in pools):
        asked = next((pool for pool in spec.pools if not pool.subnet and ":" not in pool.gateway), Pool())
        pools.insert(0, _complete(replace(asked, subnet=str(free_subnet(taken)))))
    if spec.ipv6 and not any(":" in pool.subnet for pool in pools):
        pools.append(_complete(Pool(str(local_ipv6()))))
    shown = [pool for pool in pools if (spec.ipv6 if ":" in pool.subnet else spec.ipv4)]
    return replace(spec, pools=tuple(shown))


def _check_free(subnet: Subnet, taken: Sequence[Subnet]) -> None:
    if any(subnet.version == other.version and subnet.overlaps(other) for other in taken):
        raise NetworkForbidden("invalid pool request: Pool overlaps with other one on this address space")


def _complete(pool: Pool) -> Pool:
    subnet = _subnet(pool.subnet)
    if subnet.num_addresses < 4:
        raise InvalidNetwork(f"invalid subnet {subnet}: it has no room for a gateway and a container")
    gateway = _inside(pool.gateway, subnet, "gateway address") if pool.gateway else str(subnet.network_address + 1)
    aux = {name: _inside(address, subnet, f"auxiliary address {name[:50]}") for name, address in pool.aux.items()}
    if pool.ip_range:
        part = _subnet(pool.ip_range)
        if part.version != subnet.version or not part.subnet_of(subnet):  # type: ignore[arg-type]
            raise InvalidNetwork(f"invalid ip-range {pool.ip_range}: it is not in subnet {subnet}")
    return replace(pool, subnet=str(subnet), gateway=gateway, aux=aux)


def _subnet(text: str) -> IPv4Network | IPv6Network:
    try:
        subnet = ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidNetwork(f"invalid subnet {text[:60]}: {str(error)[:100]}") from error
    if "/" not in text:
        raise InvalidNetwork(f"invalid subnet {text}: invalid CIDR block notation")
    if ip_address(text.partition("/")[0]) != subnet.network_address:
        raise InvalidNetwork(f"invalid subnet {text}: it should be {subnet}")
    return subnet


def _inside(text: str, subnet: Subnet, what: str) -> str:
    try:
        address = ip_address(text.partition("/")[0])
    except ValueError as error:
        raise InvalidNetwork(f"invalid {what} {text[:60]!r}") from error
    if address.version != subnet.version or address not in subnet:
        raise InvalidNetwork(f"invalid {what} {text}: it is not in subnet {subnet}")
    return str(address)
