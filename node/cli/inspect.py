"""`seawall inspect`: whatever has that name."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from node.cli.images import platform_json
from node.cli.output import FORMAT_HELP
from node.cli.session import Session, session
from node.cli.template import Template
from node.client import DaemonError

KINDS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}


@click.command()
@click.option("-f", "--format", "format_text", default="", help=FORMAT_HELP)
@click.option("-s", "--size", is_flag=True, help="Of a container: how much it has written.")
@click.option("--type", "kind", type=click.Choice(list(KINDS)), help="Only things of this kind.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of an image for several platforms.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_context
@session
def inspect(
    session: Session, context: click.Context, format_text: str, size: bool, kind: str | None, platform: str | None,
    names: Sequence[str],
) -> int:
    """Show everything known of containers, images, networks or volumes."""
    parent = context.parent.info_name if context.parent else ""
    kinds = [kind] if kind else [parent] if parent in KINDS else list(KINDS)
    queries = {"container": {"size": True} if size else None, "image": {"platform": platform_json(platform)}}
    return show(session, names, kinds, format_text, queries)


Queries = Mapping[str, Mapping[str, Any] | None]
"""What to ask with, by kind."""


def show(
    session: Session, names: Sequence[str], kinds: Sequence[str], format_text: str, queries: Queries | None = None
) -> int:
    """What was found is shown even when something was not: then the code is 1."""
    found, code = [], 0
    for name in names:
        try:
            found.append(_find(session, name, kinds, queries or {}))
        except DaemonError as error:
            if error.status != 404:
                raise
            code = 1
            text = f"Error: No such {kinds[0] if len(kinds) == 1 else 'object'}: {name}"
            click.echo(text, err=True)
    if not format_text:
        click.echo(json.dumps(found, indent=4, ensure_ascii=False))
        return code
    template = Template("{{json .}}" if format_text == "json" else format_text)
    for document in found:
        click.echo(template.render(document))
    return code


def _find(session: Session, name: str, kinds: Sequence[str], queries: Queries) -> Any:
    missing: DaemonError | None = None
    for kind in kinds:
        try:
            return session.client.json("GET", KINDS[kind].format(name), queries.get(kind))
        except DaemonError as error:
            # Kinds that one has no rights to are as if there were none of them, where another kind may have it.
            if error.status != 404 and not (error.status == 403 and len(kinds) > 1):
                raise
            missing = missing if missing is not None and missing.status == 404 else error
    assert missing is not None, "there is at least one kind"
    raise missing
