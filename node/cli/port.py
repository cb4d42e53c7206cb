"""`seawall port`."""

import click

from node.cli.session import Session, session
from ocispec.errors import NotFound


@click.command()
@click.argument("container")
@click.argument("private", required=False, metavar="[PORT[/PROTOCOL]]")
@session
def port(session: Session, container: str, private: str | None) -> None:
    """List the published ports of a container."""
    document = session.client.json("GET", f"/containers/{container}/json")
    published = document["NetworkSettings"]["Ports"] or {}
    if private is None:
        for inner, bindings in sorted(published.items()):
            for binding in bindings or ():
                click.echo(f"{inner} -> {_address(binding)}")
        return
    wanted = private if "/" in private else f"{private}/tcp"
    bindings = published.get(wanted)
    if not bindings:
        raise NotFound(f"no public port '{wanted}' published for {container}")
    for binding in bindings:
        click.echo(_address(binding))


def _address(binding: dict[str, str]) -> str:
    host = f"[{binding['HostIp']}]" if ":" in binding["HostIp"] else binding["HostIp"]
    return f"{host}:{binding['HostPort']}"
