"""`seawall context …`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from node.cli.contexts import DEFAULT, Context
from node.cli.output import FORMAT_HELP, Column, print_list
from node.cli.session import Session, session
from node.client import parse_host
from node.hosts import TlsFiles
from ocispec.errors import InvalidArgument

_COLUMNS = [Column("Name", "NAME"), Column("Description", "DESCRIPTION"), Column("DockerEndpoint", "DOCKER ENDPOINT")]
_ENDPOINT_HELP = "host=unix:///SOCKET, or host=tcp://HOST:PORT,ca=FILE,cert=FILE,key=FILE, or host=ssh://[USER@]HOST"


@click.command()
@click.argument("name", metavar="CONTEXT")
@click.option("--description", default="", help="Description of the context.")
@click.option("--docker", "endpoint", metavar="KEY=VALUE,…", help=_ENDPOINT_HELP)
@click.option("--from", "origin", metavar="CONTEXT", help="Copy this one.")
@session
def create(session: Session, name: str, description: str, endpoint: str | None, origin: str | None) -> None:
    """Give a host a name."""
    contexts = session.contexts
    if origin:
        source = _default(session) if origin == DEFAULT else contexts.get(origin)
        made = replace(source, name=name, description=description or source.description)
    elif endpoint:
        made = _endpoint(Context(name, "", description), endpoint)
    else:
        raise click.UsageError("docker endpoint configuration is required: --docker host=…")
    contexts.create(made)
    click.echo(name)
    click.echo(f'Successfully created context "{name}"', err=True)


@click.command()
@click.argument("name", metavar="CONTEXT")
@click.option("--description", help="Description of the context.")
@click.option("--docker", "endpoint", metavar="KEY=VALUE,…", help=_ENDPOINT_HELP)
@session
def update(session: Session, name: str, description: str | None, endpoint: str | None) -> None:
    """Change a context."""
    found = session.contexts.get(name)
    if description is not None:
        found = replace(found, description=description)
    session.contexts.put(_endpoint(found, endpoint) if endpoint else found)
    click.echo(name)
    click.echo(f'Successfully updated context "{name}"', err=True)


@click.command()
@click.argument("name", metavar="CONTEXT")
@session
def use(session: Session, name: str) -> None:
    """Let commands go to this context."""
    session.contexts.use(name)
    click.echo(name)
    click.echo(f'Current context is now "{name}"', err=True)


@click.command()
@session
def show(session: Session) -> None:
    """Print the name of the current context."""
    click.echo(session.context_name)


@click.command()
@click.option("--format", "format_text", default="", help=FORMAT_HELP)
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@session
def ls(session: Session, *, format_text: str, quiet: bool) -> None:
    """List contexts."""
    current = session.context_name
    rows: list[dict[str, Any]] = [
        {"Name": context.name, "Description": context.description, "DockerEndpoint": context.host,
         "Current": context.name == current, "Error": ""}
        for context in (_default(session), *session.contexts.all())
    ]  # fmt: skip
    if not format_text and not quiet:
        for row in rows:
            row["Name"] += " *" if row["Current"] else ""
    print_list(rows, _COLUMNS, format_text=format_text, quiet="Name" if quiet else "")


@click.command()
@click.argument("names", metavar="[CONTEXT]…", nargs=-1)
@session
def inspect(session: Session, names: tuple[str, ...]) -> None:
    """Show contexts as JSON."""
    found = [_default(session) if name == DEFAULT else session.contexts.get(name)
             for name in names or (session.context_name,)]  # fmt: skip
    click.echo(json.dumps([_document(context) for context in found], indent=4))


@click.command()
@click.argument("names", metavar="CONTEXT…", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also the one in use.")
@session
def rm(session: Session, names: tuple[str, ...], *, force: bool) -> None:
    """Remove contexts."""
    for name in names:
        session.contexts.remove(name, force=force)
        click.echo(name)


def _default(session: Session) -> Context:
    return Context(DEFAULT, session.default_address, "The host of flags and environment, or this machine's node")


def _endpoint(context: Context, text: str) -> Context:
    values: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in ("host", "ca", "cert", "key", "skip-tls-verify"):
            raise InvalidArgument(f"unable to parse docker endpoint config: {part!r}")
        values[key] = value
    if values.pop("skip-tls-verify", "false").lower() not in ("false", "0"):
        raise InvalidArgument("skip-tls-verify is not supported: the node's certificate is always checked")
    if "host" not in values:
        raise InvalidArgument("unable to parse docker endpoint config: host=… is missing")
    named = [values.get(key) for key in ("ca", "cert", "key")]
    if any(named) and not all(named):
        raise InvalidArgument("ca, cert and key belong together")
    files = [Path(name).absolute() for name in named if name]
    tls = TlsFiles(*files) if files else None
    parse_host(values["host"], tls)
    return replace(context, host=values["host"], tls=tls)


def _document(context: Context) -> dict[str, Any]:
    files = ["ca.pem", "cert.pem", "key.pem"] if context.tls else []
    return {
        "Name": context.name,
        "Metadata": {"Description": context.description},
        "Endpoints": {"docker": {"Host": context.host, "SkipTLSVerify": False}},
        "TLSMaterial": {"docker": files} if files else {},
    }
