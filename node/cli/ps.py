"""`seawall ps`."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from node.cli.output import FORMAT_HELP, Column, ago, human_size, local_time, print_list, short_id, shorten
from node.cli.session import Session, parse_filters, session

_COLUMNS = [
    Column("ID", "CONTAINER ID"), Column("Image", "IMAGE"), Column("Command", "COMMAND"),
    Column("RunningFor", "CREATED"), Column("Status", "STATUS"), Column("Ports", "PORTS"), Column("Names", "NAMES"),
]  # fmt: skip
_COMMAND_WIDTH = 20


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped ones too.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only those that match.")
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("-n", "--last", type=int, default=-1, metavar="N", help="The last N created, whatever their state.")
@click.option("-l", "--latest", is_flag=True, help="The last created, whatever its state.")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("-s", "--size", is_flag=True, help="How much each has written.")
@session
def ps(
    session: Session,
    everything: bool,
    filters: Sequence[str],
    format_text: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """List containers."""
    limit = 1 if latest else last
    query = {
        "all": everything or limit > 0,
        "limit": limit if limit > 0 else None,
        "size": size or "{{.Size" in format_text,
        "filters": parse_filters(filters),
    }
    found = session.client.json("GET", "/containers/json", query)
    columns = [*_COLUMNS, *([Column("Size", "SIZE")] if size else [])]
    rows = [row(container, whole=no_trunc) for container in found]
    print_list(rows, columns, format_text=format_text, quiet="ID" if quiet else "")


def row(container: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    command = container["Command"] if whole else shorten(container["Command"], _COMMAND_WIDTH)
    labels = container.get("Labels") or {}
    volumes = [mount for mount in container.get("Mounts") or () if mount.get("Type") == "volume"]
    mounts = [mount.get("Name") or mount["Source"] for mount in container.get("Mounts") or ()]
    image = container["Image"]
    if image.startswith("sha256:"):
        image = short_id(image, whole=whole)
    return {
        "ID": short_id(container["Id"], whole=whole),
        "Image": image,
        "Command": f'"{command}"',
        "CreatedAt": local_time(container["Created"]),
        "RunningFor": ago(container["Created"]),
        "Ports": ports_text(container.get("Ports") or ()),
        "State": container["State"],
        "Status": container["Status"],
        "Size": _size(container),
        "Names": ",".join(name.removeprefix("/") for name in container["Names"]),
        "Labels": ",".join(f"{key}={value}" for key, value in labels.items()),
        "Mounts": ",".join(name if whole else shorten(name, 15) for name in mounts),
        "LocalVolumes": str(len(volumes)),
        "Networks": ",".join(container["NetworkSettings"]["Networks"]),
        "_labels": labels,
    }


def ports_text(ports: Sequence[Mapping[str, Any]]) -> str:
    """Ports that follow each other on both sides are one range, as Docker shows them."""
    runs: list[list[Mapping[str, Any]]] = []
    for port in sorted(ports, key=_order):
        if runs and _follows(runs[-1][-1], port):
            runs[-1].append(port)
        else:
            runs.append([port])
    return ", ".join(_run_text(run) for run in runs)


def _order(port: Mapping[str, Any]) -> tuple[object, ...]:
    return (not port.get("PublicPort"), port.get("IP", ""), port["Type"], port["PrivatePort"],
            port.get("PublicPort", 0))


def _follows(before: Mapping[str, Any], port: Mapping[str, Any]) -> bool:
    public, last = port.get("PublicPort"), before.get("PublicPort")
    return (
        (before["Type"], before.get("IP")) == (port["Type"], port.get("IP"))
        and port["PrivatePort"] == before["PrivatePort"] + 1
        and (public == last + 1 if public and last else public == last)
    )


def _run_text(run: Sequence[Mapping[str, Any]]) -> str:
    first = run[0]
    inner = f"{_range(run, 'PrivatePort')}/{first['Type']}"
    if not first.get("PublicPort"):
        return inner
    return f"{_address(first['IP'])}:{_range(run, 'PublicPort')}->{inner}"


def _range(run: Sequence[Mapping[str, Any]], field: str) -> str:
    first, last = run[0][field], run[-1][field]
    return str(first) if first == last else f"{first}-{last}"


def _address(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _size(container: Mapping[str, Any]) -> str:
    if "SizeRw" not in container:
        return "0B"
    return f"{human_size(container['SizeRw'])} (virtual {human_size(container['SizeRootFs'])})"
