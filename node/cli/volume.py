"""`seawall volume ls`, `create`, `inspect`, `rm`, `prune`."""

from collections.abc import Sequence

import click

from node.cli.inspect import show
from node.cli.options import pairs
from node.cli.output import FORMAT_HELP, Column, human_size, print_list
from node.cli.session import Session, each, parse_filters, session

_COLUMNS = [Column("Driver", "DRIVER"), Column("Name", "VOLUME NAME")]


@click.command()
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only those that match.")
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@session
def ls(session: Session, filters: Sequence[str], format_text: str, quiet: bool) -> None:
    """List volumes."""
    found = session.client.json("GET", "/volumes", {"filters": parse_filters(filters)})["Volumes"] or ()
    rows = [
        {
            "Driver": volume["Driver"],
            "Name": volume["Name"],
            "Mountpoint": volume["Mountpoint"],
            "Scope": volume["Scope"],
            "_labels": volume["Labels"] or {},
        }
        for volume in sorted(found, key=lambda volume: volume["Name"])
    ]
    print_list(rows, _COLUMNS, format_text=format_text, quiet="Name" if quiet else "")


@click.command()
@click.option("-d", "--driver", default="local", show_default=True, help="The node has one: local.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Metadata.")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Of the driver: type, device, o.")
@click.argument("name", required=False)
@session
def create(
    session: Session, name: str | None, driver: str, labels: Sequence[str], options: Sequence[str]
) -> None:
    """Create a volume."""
    body = {"Name": name or "", "Driver": driver, "Labels": pairs(labels), "DriverOpts": pairs(options)}
    click.echo(session.client.json("POST", "/volumes/create", body=body)["Name"])


@click.command()
@click.option("-f", "--format", "format_text", default="", help=FORMAT_HELP)
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...")
@session
def inspect(session: Session, volumes: Sequence[str], format_text: str) -> int:
    """Show everything known of volumes."""
    return show(session, volumes, ["volume"], format_text)


@click.command()
@click.option("-f", "--force", is_flag=True, help="No complaint about one that does not exist.")
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...")
@session
def rm(session: Session, volumes: Sequence[str], force: bool) -> int:
    """Remove volumes."""
    return each(volumes, lambda name: session.client.status("DELETE", f"/volumes/{name}", {"force": force}))


@click.command()
@click.option("-a", "--all", "every", is_flag=True, help="Named volumes too.")
@click.option("--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only those that match: label=…")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@session
def prune(session: Session, every: bool, filters: Sequence[str], force: bool) -> None:
    """Remove volumes that no container has."""
    kind = "all" if every else "anonymous"
    if not force:
        click.confirm(
            f"WARNING! This will remove {kind} local volumes not used by at least one container.\n"
            "Are you sure you want to continue?", abort=True,
        )  # fmt: skip
    wanted = parse_filters(filters) or {}
    if every:
        wanted["all"] = ["true"]
    answer = session.client.json("POST", "/volumes/prune", {"filters": wanted or None})
    if removed := answer["VolumesDeleted"]:
        click.echo("Deleted Volumes:\n" + "\n".join(removed) + "\n")
    click.echo(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
