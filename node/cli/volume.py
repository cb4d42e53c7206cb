"""`seawall volume ls`, `create`, `inspect`, `rm`."""

from collections.abc import Sequence

import click

from node.cli.inspect import show
from node.cli.options import pairs
from node.cli.output import FORMAT_HELP, Column, print_list
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
@click.option("-d", "--driver", default="local", show_default=True, help="Only local exists yet.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Metadata.")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Of the driver.")
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
