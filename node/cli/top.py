"""`seawall top`."""

from collections.abc import Sequence

import click

from node.cli.output import Column, print_list
from node.cli.session import Command, Session, session


@click.command(cls=Command)
@click.argument("container")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTIONS]")
@session
def top(session: Session, container: str, options: Sequence[str]) -> None:
    """Show the processes of a container."""
    query = {"ps_args": " ".join(options) or None}
    processes = session.client.json("GET", f"/containers/{container}/top", query)
    titles = processes["Titles"]
    rows = [dict(zip(titles, row, strict=True)) for row in processes["Processes"]]
    print_list(rows, [Column(title, title) for title in titles], format_text="", quiet="")
