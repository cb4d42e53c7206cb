"""`seawall search`."""

from collections.abc import Sequence

import click

from node.cli.output import FORMAT_HELP, Column, print_list, shorten
from node.cli.registryauth import AuthStore
from node.cli.session import Session, parse_filters, session

_COLUMNS = [Column("Name", "NAME"), Column("Description", "DESCRIPTION"), Column("StarCount", "STARS"),
            Column("Official", "OFFICIAL")]  # fmt: skip


@click.command()
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="stars=N, is-official=true.")
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("--limit", type=int, metavar="N", help="At most so many results.")
@click.option("--no-trunc", is_flag=True, help="Whole descriptions.")
@click.argument("term", metavar="[HOST[:PORT]/]TERM")
@session
def search(
    session: Session, filters: Sequence[str], format_text: str, limit: int | None, no_trunc: bool, term: str
) -> None:
    """Search a registry for images."""
    first, slash, _ = term.partition("/")
    named = slash and any(character in first for character in ".:")
    headers = AuthStore.of_user().header(first if named else "docker.io")
    query = {"term": term, "limit": limit, "filters": parse_filters(filters)}
    rows = [
        {
            "Name": found["name"],
            "Description": found["description"] if no_trunc else shorten(found["description"].replace("\n", " "), 45),
            "StarCount": str(found["star_count"]),
            "Official": "[OK]" if found["is_official"] else "",
        }
        for found in session.client.json("GET", "/images/search", query, headers=headers)
    ]
    print_list(rows, _COLUMNS, format_text=format_text, quiet="")
