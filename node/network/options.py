"""The options of drivers (`docker network create -o`) and of endpoints (`--driver-opt`). Raises InvalidNetwork."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from node.network.model import InvalidNetwork
from ocispec.errors import Unimplemented

BRIDGE = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"
PREFIX = "com.docker.network.container_iface_prefix"
HOST_IPV4 = "com.docker.network.host_ipv4"
SYSCTLS = "com.docker.network.endpoint.sysctls"
IFNAME = "com.docker.network.endpoint.ifname"
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
"""Also keeps what goes into rules and messages to the kernel to what it can be."""

GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
TRUE, FALSE = ("1", "t", "true"), ("0", "f", "false")
DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    name: str = ""
    icc: bool = True
    """Containers of the network reach each other."""

    masquerade: bool = True
    mtu: int = DEFAULT_MTU
    host_binding: str = ""
    """Where ports are published that name no address."""

    inhibit_ipv4: bool = False
    """The host's end gets no address."""

    prefix: str = "eth"
    source: str = ""
    """What is masqueraded leaves from this address."""

    gateway4: str = "nat"
    gateway6: str = "nat"


def bridge_options(given: Mapping[str, str]) -> BridgeOptions:
    """What Docker does not know it keeps and ignores; so do we, since compose files carry notes there."""
    if given.get(f"{BRIDGE}trusted_host_interfaces"):
        raise Unimplemented(f"{BRIDGE}trusted_host_interfaces is not supported yet")
    return BridgeOptions(
        _interface(given, f"{BRIDGE}name", ""),
        _flag(given, f"{BRIDGE}enable_icc", default=True),
        _flag(given, f"{BRIDGE}enable_ip_masquerade", default=True),
        mtu_of(given) or DEFAULT_MTU,
        _ipv4(given, f"{BRIDGE}host_binding_ipv4"),
        _flag(given, f"{BRIDGE}inhibit_ipv4", default=False),
        _interface(given, PREFIX, "eth"),
        _ipv4(given, HOST_IPV4),
        _mode(given, f"{BRIDGE}gateway_mode_ipv4"),
        _mode(given, f"{BRIDGE}gateway_mode_ipv6"),
    )


def mtu_of(given: Mapping[str, str]) -> int:
    """0: the kernel's default."""
    text = given.get(MTU, "") or "0"
    if not text.isascii() or not text.isdigit() or not (int(text) == 0 or 68 <= int(text) <= 65535):
        raise InvalidNetwork(f"invalid value for option {MTU}: {text[:50]!r} is not an MTU (68 to 65535)")
    return int(text)


def endpoint_sysctls(given: Mapping[str, str], interface: str) -> list[tuple[str, str]]:
    """(path below /proc/sys, value). They name the interface IFNAME and can name no other."""
    wanted = []
    for entry in filter(None, given.get(SYSCTLS, "").split(",")):
        name, equals, value = entry.partition("=")
        parts = name.replace("/", ".").split(".")
        if (not equals or len(parts) != 5 or parts[0] != "net" or parts[1] not in ("ipv4", "ipv6", "mpls")
                or parts[3] != "IFNAME" or not re.fullmatch(r"[a-z_]+", parts[2])
                or not re.fullmatch(r"[a-z0-9_]+", parts[4]) or not re.fullmatch(r"-?[0-9A-Za-z:.]{1,64}", value)):
            raise InvalidNetwork(f"invalid sysctl in {SYSCTLS}: {entry[:80]!r} is not "
                                 "net.<ipv4|ipv6|mpls>.<group>.IFNAME.<name>=<value>")
        wanted.append(("/".join([*parts[:3], interface, parts[4]]), value))
    return wanted


def interface_name(given: Mapping[str, str]) -> str:
    """The one asked for; empty: the next of its kind."""
    return _interface(given, IFNAME, "")


def _interface(given: Mapping[str, str], key: str, default: str) -> str:
    text = given.get(key, "") or default
    if text and not INTERFACE.fullmatch(text):
        raise InvalidNetwork(f"invalid value for option {key}: {text[:50]!r} is no interface name")
    return text


def _flag(given: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = given.get(key, "").lower()
    if text and text not in (*TRUE, *FALSE):
        raise InvalidNetwork(f"invalid value for option {key}: {text[:50]!r} is neither true nor false")
    return text in TRUE if text else default


def _ipv4(given: Mapping[str, str], key: str) -> str:
    text = given.get(key, "")
    try:
        return str(IPv4Address(text)) if text else ""
    except ValueError as error:
        raise InvalidNetwork(f"invalid value for option {key}: {text[:50]!r} is no IPv4 address") from error


def _mode(given: Mapping[str, str], key: str) -> str:
    text = given.get(key, "") or "nat"
    if text not in GATEWAY_MODES:
        raise InvalidNetwork(f"unknown gateway mode {text[:50]!r} (nat, nat-unprotected, routed or isolated)")
    return text


def check_mac(text: str) -> str:
    """As the kernel prints it. Raises InvalidNetwork."""
    parts = text.replace("-", ":").lower().split(":")
    if len(parts) != 6 or not all(re.fullmatch(r"[0-9a-f]{2}", part) for part in parts):
        raise InvalidNetwork(f"invalid MAC address: {text[:50]!r}")
    if int(parts[0], 16) & 1:
        raise InvalidNetwork(f"invalid MAC address: {text} is a group's, not an interface's")
    return ":".join(parts)


def check_address(text: str, version: int) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version:
        raise InvalidNetwork(f"invalid IPv{version} address: {text[:50]}")
    return str(address)
