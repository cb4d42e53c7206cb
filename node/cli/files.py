"""`seawall diff` and `export`."""

import sys
from pathlib import Path

import click

from node.cli.session import Session, session
from node.client import Query

_KINDS = {0: "C", 1: "A", 2: "D"}


@click.command()
@click.argument("container")
@session
def diff(session: Session, container: str) -> None:
    """Show what a container changed in its file system."""
    for change in session.client.json("GET", f"/containers/{container}/changes") or ():
        click.echo(f"{_KINDS.get(change['Kind'], '?')} {change['Path']}")


@click.command()
@click.option("-o", "--output", metavar="FILE", help="Write to a file, instead of standard output.")
@click.argument("container")
@session
def export(session: Session, output: str | None, container: str) -> None:
    """Write a container's file system as a tar archive."""
    store(session, f"/containers/{container}/export", {}, output)


def store(session: Session, path: str, query: Query, output: str | None) -> None:
    """An archive into a file, whole or not at all, or to standard output."""
    if output is None:
        if sys.stdout.isatty():
            raise click.UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        for chunk in session.client.stream("GET", path, query):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    target = Path(output)
    temporary = target.with_name(f".{target.name}.part")
    try:
        with temporary.open("wb") as file:
            for chunk in session.client.stream("GET", path, query):
                file.write(chunk)
        temporary.replace(target)
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
