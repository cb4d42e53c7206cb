"""What `run`, `create` and `network connect` say of networks: flags into EndpointSettings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from node.cli import options as parse

Settings = dict[str, Any]
BUILTIN = ("", "default", "bridge", "host", "none")


def endpoint(
    *, aliases: Sequence[str] = (), ip: str | None = None, ip6: str | None = None, link_local: Sequence[str] = (),
    links: Sequence[str] = (), mac: str | None = None, driver_opts: Sequence[str] = (), priority: int = 0,
) -> Settings:  # fmt: skip
    ipam = {"IPv4Address": ip, "IPv6Address": ip6, "LinkLocalIPs": list(link_local)}
    document: Settings = {
        "IPAMConfig": {name: value for name, value in ipam.items() if value},
        "Aliases": list(aliases),
        "Links": list(links),
        "MacAddress": mac,
        "DriverOpts": parse.pairs(driver_opts),
        "GwPriority": priority,
    }
    return {name: value for name, value in document.items() if value}


def networking(flags: Mapping[str, Any]) -> tuple[str, dict[str, Settings], list[str]]:
    """NetworkMode, EndpointsConfig, and links of the default network."""
    wanted = [_network(text) for text in flags["network"]]
    names = [name for name, _ in wanted]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"network {name} is specified multiple times")
    mode = names[0] if names else "default"
    if len(names) > 1 and any(name in ("host", "none") or name.startswith("container:") for name in names):
        raise click.UsageError("conflicting options: cannot attach both user-defined and non-user-defined "
                               "network-modes")
    plain = endpoint(
        aliases=flags["network_alias"], ip=flags["ip"], ip6=flags["ip6"], link_local=flags["link_local_ip"],
        links=() if _shares_names(mode) else flags["link"], mac=flags["mac_address"],
    )  # fmt: skip
    first = wanted[0][1] if wanted else {}
    if twice := sorted(set(plain) & set(first)):
        raise click.UsageError(f"conflicting options: {', '.join(twice)} is given by --network and by a flag")
    ends = {name: settings for name, settings in wanted if settings or len(wanted) > 1}
    if plain:
        ends[mode] = {**first, **plain}
    return mode, ends, list(flags["link"]) if _shares_names(mode) else []


def _shares_names(mode: str) -> bool:
    """Links there are lines of /etc/hosts, not names of a network's own."""
    return mode in BUILTIN or mode.startswith("container:")


def _network(text: str) -> tuple[str, Settings]:
    """`NAME`, or `name=NAME,alias=…,ip=…`."""
    if "=" not in text:
        return text, {}
    lists: dict[str, list[str]] = {"alias": [], "driver-opt": [], "link-local-ip": []}
    name, single = "", dict[str, str]()
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise click.UsageError(f"invalid field {field}: want KEY=VALUE in --network {text}")
        if key == "name":
            name = value
        elif key in lists:
            lists[key].append(value)
        elif key in ("ip", "ip6", "mac-address", "gw-priority"):
            single[key] = value
        else:
            raise click.UsageError(f"invalid field key {key} in --network {text}")
    if not name:
        raise click.UsageError(f"--network {text} names no network: name=…")
    return name, endpoint(
        aliases=lists["alias"], ip=single.get("ip"), ip6=single.get("ip6"), link_local=lists["link-local-ip"],
        mac=single.get("mac-address"), driver_opts=lists["driver-opt"], priority=_number(single.get("gw-priority")),
    )  # fmt: skip


def _number(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        raise click.UsageError(f"invalid gw-priority {text}: not a whole number") from None


def network_options(many: Callable[..., Any], text: Callable[..., Any]) -> Sequence[Callable[[Any], Any]]:
    """The flags, for the table of `createbody`."""
    return (
        text("--ip", metavar="IP", help="IPv4 address on the network."),
        text("--ip6", metavar="IP", help="IPv6 address on the network."),
        many("--link", metavar="CONTAINER[:ALIAS]", help="A name for another container."),
        many("--link-local-ip", metavar="IP", help="A link-local address."),
        text("--mac-address", metavar="MAC", help="Of the container's interface."),
        many("--network", "--net", metavar="NETWORK",
             help="bridge, host, none, container:NAME or one of yours; also name=N,alias=A,ip=IP,…; repeatable."),
        many("--network-alias", "--net-alias", metavar="NAME", help="A further name on the network."),
    )  # fmt: skip
