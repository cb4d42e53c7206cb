"""A network as `docker network` reads and writes it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from node.api.types.fields import Fields
from node.containers.model import Container
from node.network.model import Network, NetworkSpec, Pool
from ocispec.errors import InvalidArgument, Unimplemented

Json = dict[str, Any]
Wanted = Callable[[Network], bool]


def parse_create(body: Fields) -> NetworkSpec:
    """Raises InvalidArgument, Unimplemented (of swarm)."""
    if body.flag("Ingress"):
        raise Unimplemented("Ingress is not supported: such networks are made by swarm alone")
    ipam = body.object("IPAM")
    ipv4 = body.optional_flag("EnableIPv4")
    return NetworkSpec(
        name=body.text("Name"),
        driver=_driver(body.text("Driver")),
        scope=body.text("Scope") or "local",
        pools=tuple(_pool(entry) for entry in ipam.objects("Config")),
        ipam_driver=ipam.text("Driver") or "default",
        ipam_options=ipam.mapping("Options"),
        ipv4=True if ipv4 is None else ipv4,
        ipv6=body.flag("EnableIPv6"),
        internal=body.flag("Internal"),
        attachable=body.flag("Attachable"),
        config_only=body.flag("ConfigOnly"),
        config_from=body.object("ConfigFrom").text("Network"),
        options=body.mapping("Options"),
        labels=body.mapping("Labels"),
    )


def _driver(text: str) -> str:
    return "bridge" if text in ("", "default") else text


def _pool(entry: Fields) -> Pool:
    return Pool(
        entry.text("Subnet"), entry.text("Gateway"), entry.text("IPRange"), entry.mapping("AuxiliaryAddresses")
    )


def network(value: Network) -> Json:
    spec = value.spec
    return {
        "Name": spec.name,
        "Id": value.id,
        "Created": value.created,
        "Scope": "local",
        "Driver": spec.driver,
        "EnableIPv4": spec.ipv4,
        "EnableIPv6": spec.ipv6,
        "IPAM": {
            "Driver": spec.ipam_driver,
            "Options": None if value.builtin else dict(spec.ipam_options),
            "Config": [_shown(pool) for pool in spec.pools] or None,
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": spec.config_from},
        "ConfigOnly": spec.config_only,
        "Containers": {},
        "Options": dict(spec.options),
        "Labels": dict(spec.labels),
    }


def _shown(pool: Pool) -> Json:
    document: Json = {"Subnet": pool.subnet}
    if pool.ip_range:
        document["IPRange"] = pool.ip_range
    if pool.gateway:
        document["Gateway"] = pool.gateway
    if pool.aux:
        document["AuxiliaryAddresses"] = dict(pool.aux)
    return document


def containers(attached: Sequence[Container], network_id: str) -> Json:
    return {
        container.id: {
            "Name": container.name,
            "EndpointID": end.endpoint_id,
            "MacAddress": end.mac,
            "IPv4Address": f"{end.ip}/{end.prefix}" if end.ip else "",
            "IPv6Address": f"{end.ip6}/{end.prefix6}" if end.ip6 else "",
        }
        for container in attached
        for end in container.network.endpoints
        if end.network_id == network_id
    }


def matcher(filters: Mapping[str, Sequence[str]], used: Collection[str]) -> Wanted:
    """All filters match; of one filter's values any, of labels all. Raises InvalidArgument."""
    for value in filters.get("type", ()):
        if value not in ("custom", "builtin"):
            raise InvalidArgument(f"invalid filter: 'type'='{value[:50]}'")
    dangling = _dangling(filters.get("dangling", ()))
    labels = labels_match(filters.get("label", ()), ())
    checks: Mapping[str, Callable[[Network, str], bool]] = {
        "name": lambda item, value: _found(value, item.name),
        "id": lambda item, value: _found(value, item.id),
        "driver": lambda item, value: item.driver == value,
        "scope": lambda _item, value: value == "local",
        "type": lambda item, value: (value == "builtin") == item.builtin,
    }

    def wanted(item: Network) -> bool:
        if dangling is not None and dangling == (item.builtin or item.id in used):
            return False
        return labels(item) and all(
            any(check(item, value) for value in filters[name]) for name, check in checks.items() if filters.get(name)
        )

    return wanted


def labels_match(wanted: Sequence[str], unwanted: Sequence[str]) -> Wanted:
    def has(item: Network, text: str) -> bool:
        key, equals, value = text.partition("=")
        return key in item.labels and (not equals or item.labels[key] == value)

    return lambda item: all(has(item, text) for text in wanted) and not any(has(item, text) for text in unwanted)


def _dangling(values: Sequence[str]) -> bool | None:
    if not values:
        return None
    value = values[0].lower()
    if len(values) > 1 or value not in ("true", "1", "false", "0"):
        raise InvalidArgument("invalid filter 'dangling=" + str(list(values))[:80] + "'")
    return value in ("true", "1")


def _found(pattern: str, text: str) -> bool:
    """A part of the text, or with ^ and $ its beginning and end. Docker takes a regular expression; one of a client's
    making could hold the daemon up for ever."""
    start, end = pattern.startswith("^"), pattern.endswith("$")
    plain = pattern.removeprefix("^").removesuffix("$").removeprefix("/")
    if start and end:
        return text == plain
    if start:
        return text.startswith(plain)
    return text.endswith(plain) if end else plain in text
