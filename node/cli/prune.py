"""`seawall container prune`."""

from collections.abc import Sequence

import click

from node.cli.output import human_size
from node.cli.session import Session, parse_filters, session

_WARNING = "WARNING! This will remove all stopped containers."


@click.command("prune")
@click.option("--filter", "filters", multiple=True, metavar="NAME=VALUE", help="until=TIME, label=KEY[=VALUE].")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@session
def containers(session: Session, filters: Sequence[str], force: bool) -> int:
    """Remove all stopped containers."""
    if not force and not click.confirm(f"{_WARNING}\nAre you sure you want to continue?", prompt_suffix=" "):
        return 0
    answer = session.client.json("POST", "/containers/prune", {"filters": parse_filters(filters)})
    if answer["ContainersDeleted"]:
        click.echo("Deleted Containers:\n" + "\n".join(answer["ContainersDeleted"]) + "\n")
    click.echo(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
    return 0
