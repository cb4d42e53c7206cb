"""EndpointSettings: what a container asks of a network, and what it got."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from node.api.types.fields import Fields
from node.containers.connecting import connected
from node.containers.model import Container, NetworkSpec
from node.network.model import BUILTIN, Endpoint, EndpointSpec
from ocispec.errors import InvalidArgument, Unimplemented

Json = dict[str, Any]


def parse_endpoint(network: str, given: Fields) -> EndpointSpec:
    """What it got (NetworkID, IPAddress, …), which clients send back as they read it, is not looked at."""
    ipam = given.object("IPAMConfig")
    return EndpointSpec(
        network,
        aliases=given.texts("Aliases"),
        ipv4=ipam.text("IPv4Address"),
        ipv6=ipam.text("IPv6Address"),
        link_local=ipam.texts("LinkLocalIPs"),
        mac=given.text("MacAddress"),
        links=given.texts("Links"),
        driver_opts=given.mapping("DriverOpts"),
        gw_priority=given.number("GwPriority"),
    )


def parse_endpoints(networking: Fields, network: NetworkSpec, *, several: bool) -> NetworkSpec:
    """`network` with what NetworkingConfig asks, the network of NetworkMode first."""
    given = networking.object_map("EndpointsConfig")
    if len(given) > 1 and not several:
        raise InvalidArgument(f"Container cannot be connected to network endpoints: {', '.join(sorted(given))}")
    main = _real(network.mode)
    if network.mode.startswith("container:"):
        if any(_real(name) != main and not settings.empty for name, settings in given.items()):
            raise InvalidArgument("conflicting options: a container's network and network endpoints")
        return network
    ends = {_real(name): parse_endpoint(_real(name), settings) for name, settings in given.items()}
    # Older clients repeat the default network where they mean another mode.
    if main in ("host", "none"):
        ends = {name: end for name, end in ends.items() if name == main}
    first = ends.pop(main, EndpointSpec(main))
    if network.mac_address and first.mac and network.mac_address != first.mac:
        raise InvalidArgument("invalid config: the container-wide MAC address must match the endpoint-specific MAC "
                              "address for the main network, or be left empty")
    if network.mac_address:
        first = replace(first, mac=network.mac_address)
    if network.links and main not in BUILTIN:
        # On a network with names of its own a link is one that this container alone knows.
        first, network = replace(first, links=(*first.links, *network.links)), replace(network, links=())
    for end in (first, *ends.values()):
        if end.link_local:
            raise Unimplemented("NetworkingConfig.EndpointsConfig: LinkLocalIPs is not supported yet")
    return replace(network, endpoints=(first, *ends.values()), mac_address="")


def _real(name: str) -> str:
    return "bridge" if name == "default" else name


def endpoints(container: Container, *, short_id: bool = False) -> Mapping[str, Json]:
    """NetworkSettings.Networks, by name. `short_id`: before API 1.45 it was among the aliases."""
    by_id = {end.network_id: end for end in container.network.endpoints}
    by_name = {end.network_name: end for end in container.network.endpoints}
    shown: dict[str, Json] = {}
    for asked in connected(container):
        end = by_id.get(asked.network_id) or by_name.get(asked.network) or Endpoint()
        shown[end.network_name or asked.network] = _endpoint(asked, end, container, short_id=short_id)
    return dict(sorted(shown.items()))


def _endpoint(asked: EndpointSpec, end: Endpoint, container: Container, *, short_id: bool) -> Json:
    ipam: Json = {name: value for name, value in (
        ("IPv4Address", asked.ipv4), ("IPv6Address", asked.ipv6), ("LinkLocalIPs", list(asked.link_local))) if value}
    aliases = [*asked.aliases]
    if short_id and asked.network not in ("bridge", "host", "none"):
        aliases.append(container.id[:12])
    return {
        "IPAMConfig": ipam or None,
        "Links": list(asked.links) or None,
        "Aliases": aliases or None,
        "MacAddress": end.mac or asked.mac,
        "DriverOpts": dict(asked.driver_opts) or None,
        "GwPriority": asked.gw_priority,
        "NetworkID": end.network_id or asked.network_id,
        "EndpointID": end.endpoint_id,
        "Gateway": end.gateway,
        "IPAddress": end.ip,
        "IPPrefixLen": end.prefix,
        "IPv6Gateway": end.gateway6,
        "GlobalIPv6Address": end.ip6,
        "GlobalIPv6PrefixLen": end.prefix6,
        "DNSNames": list(end.dns_names) or None,
    }
