"""`seawall network ls` and `inspect`."""

from collections.abc import Sequence

import click

from node.cli.inspect import show
from node.cli.output import FORMAT_HELP, Column, print_list, short_id
from node.cli.session import Session, parse_filters, session

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
