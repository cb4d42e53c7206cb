"""`--server`: the same verbs on a registry that runs elsewhere, over its administration API."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ocispec.errors import InvalidArgument
from registry.cli.root import common
from registry.client import Server

F = TypeVar("F", bound=Callable[..., Any])

TOKEN = "SEAWALL_REGISTRY_TOKEN"  # noqa: S105  # the name of a variable
MAX_TOKEN = 10_000


def administering(command: F) -> F:
    """The options of a verb that works on the database, or on a server."""
    for option in (
        click.option("--ca", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
                     help="Certificates that the server's is verified against."),
        click.option("--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
                     help=f"File with an administrator's token; default: the variable {TOKEN}."),
        click.option("--server", metavar="URL", envvar="SEAWALL_REGISTRY_SERVER",
                     help="A registry elsewhere, instead of the database here."),
    ):
        command = option(command)
    return common(command)


def chosen(flags: dict[str, Any]) -> Server | None:
    """The server that the options name, taken out of `flags`; None: the database here. Raises InvalidArgument."""
    url, file, ca = (flags.pop(name, None) for name in ("server", "token_file", "ca"))
    if url is None:
        if file or ca:
            raise InvalidArgument("--token-file and --ca go with --server")
        return None
    if flags.get("data") or flags.get("database"):
        raise InvalidArgument("--server is instead of --data and --database")
    token = file.read_text()[:MAX_TOKEN].strip() if file else os.environ.get(TOKEN, "")
    return Server(url, token, ca or "")
