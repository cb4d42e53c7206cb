"""A network as `docker network` reads it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from node.api.parts import Network
from node.containers.model import ZERO_TIME, Container

Json = dict[str, Any]


def network(value: Network) -> Json:
    pool = [{"Subnet": value.subnet, "Gateway": value.gateway}] if value.subnet else None
    return {
        "Name": value.name,
        "Id": value.id,
        "Created": ZERO_TIME,
        "Scope": "local",
        "Driver": value.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": pool},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def containers(attached: Sequence[Container]) -> Json:
    return {
        container.id: {
            "Name": container.name,
            "EndpointID": container.network.primary.endpoint_id,
            "MacAddress": container.network.primary.mac,
            "IPv4Address": f"{container.network.primary.ip}/{container.network.primary.prefix}",
            "IPv6Address": "",
        }
        for container in attached
    }


def matches(document: Json, filters: Mapping[str, Sequence[str]]) -> bool:
    """These networks are built in: none has labels, none is dangling, none is custom."""
    checks: Mapping[str, Callable[[str], bool]] = {
        "name": lambda value: value in document["Name"],
        "id": document["Id"].startswith,
        "driver": lambda value: document["Driver"] == value,
        "scope": lambda value: value == "local",
        "type": lambda value: value == "builtin",
        "label": lambda _value: False,
        "dangling": lambda value: value.lower() in ("false", "0"),
    }
    return all(any(checks[name](value) for value in values) for name, values in filters.items() if values)
