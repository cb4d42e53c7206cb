"""`seawall network ls`, `create`, `inspect`, `connect`, `disconnect`, `rm`, `prune`."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import click

from node.cli.inspect import show
from node.cli.networking import endpoint
from node.cli.options import pairs
from node.cli.output import FORMAT_HELP, Column, print_list, short_id
from node.cli.session import Session, each, parse_filters, session
from node.client import DaemonError

_COLUMNS = [Column("ID", "NETWORK ID"), Column("Name", "NAME"), Column("Driver", "DRIVER"), Column("Scope", "SCOPE")]


@click.command()
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only those that match.")
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@session
def ls(session: Session, filters: Sequence[str], format_text: str, no_trunc: bool, quiet: bool) -> None:
    """List networks."""
    found = session.client.json("GET", "/networks", {"filters": parse_filters(filters)})
    rows = [
        {
            "ID": short_id(network["Id"], whole=no_trunc),
            "Name": network["Name"],
            "Driver": network["Driver"],
            "Scope": network["Scope"],
            "IPv4": str(network["EnableIPv4"]).lower(),
            "IPv6": str(network["EnableIPv6"]).lower(),
            "Internal": str(network["Internal"]).lower(),
            "CreatedAt": network["Created"],
            "_labels": network["Labels"],
        }
        for network in sorted(found, key=lambda network: network["Name"])
    ]
    print_list(rows, _COLUMNS, format_text=format_text, quiet="ID" if quiet else "")


@click.command()
@click.option("-f", "--format", "format_text", default="", help=FORMAT_HELP)
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
@session
def inspect(session: Session, networks: Sequence[str], format_text: str) -> int:
    """Show everything known of networks."""
    return show(session, networks, ["network"], format_text)


@click.command()
@click.option("--attachable", is_flag=True, help="Noted; every container may attach on one node.")
@click.option("--aux-address", "aux", multiple=True, metavar="NAME=IP", help="An address that is given to nobody.")
@click.option("--config-from", default="", metavar="NETWORK", help="Take the configuration of that one.")
@click.option("--config-only", is_flag=True, help="Hold a configuration for others.")
@click.option("-d", "--driver", default="bridge", show_default=True, help="bridge, macvlan or ipvlan.")
@click.option("--gateway", "gateways", multiple=True, metavar="IP", help="The gateway of a subnet.")
@click.option("--ingress", is_flag=True, help="Of swarm: refused.")
@click.option("--internal", is_flag=True, help="No way out and none in.")
@click.option("--ip-range", "ranges", multiple=True, metavar="CIDR", help="Give out addresses of this part only.")
@click.option("--ipam-driver", default="default", show_default=True, help="Only default exists.")
@click.option("--ipam-opt", "ipam_options", multiple=True, metavar="KEY=VALUE", help="Of the IPAM driver.")
@click.option("--ipv4/--no-ipv4", default=True, show_default=True, help="IPv4 addresses.")
@click.option("--ipv6", is_flag=True, help="IPv6 addresses.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Metadata.")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Of the driver.")
@click.option("--scope", default="", metavar="SCOPE", help="local.")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="A subnet; else the first that is free.")
@click.argument("name", metavar="NETWORK")
@session
def create(session: Session, /, name: str, **flags: Any) -> None:
    """Create a network."""
    body = {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": flags["driver"],
        "Scope": flags["scope"],
        "EnableIPv4": flags["ipv4"],
        "EnableIPv6": flags["ipv6"],
        "IPAM": {"Driver": flags["ipam_driver"], "Options": pairs(flags["ipam_options"]), "Config": _pools(flags)},
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "Ingress": flags["ingress"],
        "ConfigOnly": flags["config_only"],
        "ConfigFrom": {"Network": flags["config_from"]} if flags["config_from"] else None,
        "Options": pairs(flags["options"]),
        "Labels": pairs(flags["labels"]),
    }
    click.echo(session.client.json("POST", "/networks/create", body=body)["Id"])


def _pools(flags: dict[str, Any]) -> list[dict[str, Any]]:
    """Each range, gateway and address goes to the subnet that holds it."""
    pools: list[dict[str, Any]] = [{"Subnet": subnet} for subnet in flags["subnets"]]
    if not pools:
        if flags["ranges"] or flags["aux"]:
            raise click.UsageError("every ip-range or aux-address must have a corresponding subnet")
        return [{"Gateway": gateway} for gateway in flags["gateways"]]
    for part in flags["ranges"]:
        _of(part.partition("/")[0], pools, f"ip-range {part}")["IPRange"] = part
    for gateway in flags["gateways"]:
        _of(gateway, pools, f"gateway {gateway}")["Gateway"] = gateway
    for label, address in pairs(flags["aux"]).items():
        _of(address, pools, f"aux-address {address}").setdefault("AuxiliaryAddresses", {})[label] = address
    return pools


def _of(address: str, pools: Sequence[dict[str, Any]], what: str) -> dict[str, Any]:
    try:
        found = [pool for pool in pools if ip_address(address) in ip_network(pool["Subnet"], strict=False)]
    except ValueError as error:
        raise click.UsageError(f"{what}: {error}") from None
    if not found:
        raise click.UsageError(f"no matching subnet for {what}")
    return found[0]


@click.command()
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="A further name of the container there.")
@click.option("--driver-opt", "driver_opts", multiple=True, metavar="KEY=VALUE", help="Of the network's driver.")
@click.option("--gw-priority", "priority", type=int, default=0, help="The highest gives the default route.")
@click.option("--ip", metavar="IP", help="IPv4 address.")
@click.option("--ip6", metavar="IP", help="IPv6 address.")
@click.option("--link", "links", multiple=True, metavar="CONTAINER[:ALIAS]", help="A name for another container.")
@click.option("--link-local-ip", "link_local", multiple=True, metavar="IP", help="A link-local address.")
@click.argument("network")
@click.argument("container")
@session
def connect(session: Session, /, network: str, container: str, **settings: Any) -> None:
    """Connect a container to a network."""
    body = {"Container": container, "EndpointConfig": endpoint(**settings)}
    session.client.json("POST", f"/networks/{network}/connect", body=body)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Also from a network that is gone.")
@click.argument("network")
@click.argument("container")
@session
def disconnect(session: Session, network: str, container: str, force: bool) -> None:
    """Disconnect a container from a network."""
    session.client.json("POST", f"/networks/{network}/disconnect", body={"Container": container, "Force": force})


@click.command()
@click.option("-f", "--force", is_flag=True, help="No complaint about one that does not exist.")
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
@session
def rm(session: Session, networks: Sequence[str], force: bool) -> int:
    """Remove networks."""

    def remove(name: str) -> None:
        try:
            session.client.status("DELETE", f"/networks/{name}")
        except DaemonError as error:
            if not (force and error.status == 404):
                raise

    return each(networks, remove)


@click.command()
@click.option("--filter", "filters", multiple=True, metavar="NAME=VALUE", help="until=TIME, label=KEY[=VALUE].")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@session
def prune(session: Session, filters: Sequence[str], force: bool) -> None:
    """Remove networks that no container is on."""
    if not force:
        click.confirm(
            "WARNING! This will remove all custom networks not used by at least one container.\n"
            "Are you sure you want to continue?", abort=True,
        )  # fmt: skip
    removed = session.client.json("POST", "/networks/prune", {"filters": parse_filters(filters)})["NetworksDeleted"]
    if removed:
        click.echo("Deleted Networks:\n" + "\n".join(removed) + "\n")
