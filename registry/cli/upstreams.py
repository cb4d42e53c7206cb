"""`upstreams`: the registries that are pulled through."""

from pathlib import Path
from typing import Any

import click

from registry.app import Registry
from registry.cli.retention import opened
from registry.cli.root import Command, common, main


@main.command("upstreams", cls=Command)
@common
def upstreams(config: Path | None, **flags: Any) -> None:
    """Ask every upstream whether it answers and takes our password; exits with 1 when one does not."""
    failed: list[str] = []

    async def work(registry: Registry) -> None:
        for name, address, wrong in await registry.proxy.check():
            click.echo(f"{name}\t{address}\t{wrong or 'answers'}")
            failed.extend([name] if wrong else [])

    opened(config, flags, work)
    if failed:
        raise click.exceptions.Exit(1)
