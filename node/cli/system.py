"""`seawall system df`."""

import click

from node.cli.output import FORMAT_HELP, Column, human_size, print_list
from node.cli.session import Session, session

_COLUMNS = [Column("Type", "TYPE"), Column("TotalCount", "TOTAL"), Column("Active", "ACTIVE"), Column("Size", "SIZE")]


@click.command()
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@session
def df(session: Session, format_text: str) -> None:
    """Show how much images, containers and volumes take."""
    usage = session.client.json("GET", "/system/df")
    images, containers = usage["Images"], usage["Containers"]
    rows = [
        {
            "Type": "Images",
            "TotalCount": len(images),
            "Active": sum(image["Containers"] > 0 for image in images),
            "Size": human_size(usage["LayersSize"]),
        },
        {
            "Type": "Containers",
            "TotalCount": len(containers),
            "Active": sum(container["State"] in ("running", "paused") for container in containers),
            "Size": human_size(sum(container["SizeRw"] for container in containers)),
        },
        {"Type": "Local Volumes", "TotalCount": len(usage["Volumes"]), "Active": "", "Size": ""},
    ]
    print_list(rows, _COLUMNS, format_text=format_text, quiet="")
