"""`seawall events`."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from node.cli.output import FORMAT_HELP
from node.cli.session import Session, parse_filters, session
from node.cli.template import Template


@click.command()
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only those that match.")
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("--since", metavar="TIME", help="RFC 3339, seconds since 1970, or a span (10m).")
@click.option("--until", metavar="TIME", help="End then.")
@session
def events(session: Session, filters: Sequence[str], format_text: str, since: str | None, until: str | None) -> None:
    """Show what happens on the node."""
    template = Template(format_text) if format_text not in ("", "json") else None
    query = {"since": since, "until": until, "filters": parse_filters(filters)}
    for event in session.client.lines("GET", "/events", query):
        if template:
            click.echo(template.render(event))
        else:
            click.echo(json.dumps(event) if format_text else _line(event))


def _line(event: Mapping[str, Any]) -> str:
    moment = datetime.fromtimestamp(event["time"], UTC).astimezone()
    nanoseconds = f"{event['timeNano'] % 10**9:09d}"
    zone = moment.strftime("%z")
    time = f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds}{zone[:3]}:{zone[3:]}"
    actor = event["Actor"]
    details = ", ".join(f"{key}={value}" for key, value in sorted(actor["Attributes"].items()))
    return f"{time} {event['Type']} {event['Action']} {actor['ID']}" + (f" ({details})" if details else "")
