"""The command itself, and the verbs that run or keep a registry."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ocispec.errors import SeawallError
from registry import app
from registry.settings import Settings
from registry.telemetry import logs
from registry.tls import make_context
from registry.workers import Supervisor, close, listen

F = TypeVar("F", bound=Callable[..., Any])

SUPERVISION = 5.0
"""Seconds beyond the shutdown timeout after which a worker that does not end is killed."""

SHOWN = 20
"""Repositories that `gc` names with what it freed there."""


class Command(click.Command):
    """Shows a failure as one line and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SeawallError as error:
            raise click.ClickException(error.message) from error


def common(command: F) -> F:
    """The options that every command takes."""
    for option in (
        click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                     help="TOML file of settings."),
        click.option("--database", metavar="URL", help="Default: a SQLite file in the data folder."),
        click.option("--data", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                     help="Folder of blobs and database."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="seawall")
def main() -> None:
    """A registry for container images (OCI distribution specification).

    Settings come from --config (TOML), then from SEAWALL_REGISTRY_* variables, then from flags.
    """


@main.command(cls=Command)
@common
@click.option("--listen", metavar="HOST:PORT", help="Default: 127.0.0.1:5000. Port 0 takes a free one.")
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes; default 0: one for each core.")
@click.option("--auth", type=click.Choice(["none", "accounts", "htpasswd"]), metavar="MODE",
              help="Who is asked for: none (default), accounts, htpasswd.")
@click.option("--insecure-no-auth", is_flag=True, default=None,
              help="Listen beyond loopback though everybody may do everything.")
@click.option("--insecure-no-tls", is_flag=True, default=None, help="Listen beyond loopback without TLS.")
def serve(config: Path | None, auth: str | None, **flags: Any) -> None:
    """Answer requests until SIGTERM or SIGINT."""
    settings = Settings.load(config, os.environ, auth={"mode": auth} if auth else None, **flags)
    logs.configure(settings.log)
    app.check_exposure(settings)
    make_context(settings.tls)
    count = settings.workers or len(os.sched_getaffinity(0))
    sockets = listen(*settings.address, count, settings.limits.send_timeout)
    _prepare(settings)
    numbers = app.shared_numbers(count)

    def ready() -> None:
        scheme = "https" if settings.tls.certificate else "http"
        print(f"seawall-registry listens on {scheme}://{app.where(sockets[0])} ({count} "
              f"worker{'s' if count > 1 else ''}, data in {settings.data})", flush=True)

    def worker(index: int, parent: int | None, ready: Callable[[], None]) -> int:
        # Held by nobody but its worker and the parent, a socket is closed when those two leave it: what the kernel
        # still accepted into its queue is refused then and does not hang.
        close(one for other, theirs in enumerate(sockets) if other != index for one in theirs)
        return app.run_worker(settings, sockets[index], numbers, index=index, parent=parent, ready=ready)

    patience = settings.limits.drain_time + settings.limits.shutdown_timeout + SUPERVISION
    if count == 1:
        sys.exit(1 if worker(0, None, ready) else 0)

    def leave() -> None:
        close(one for theirs in sockets for one in theirs)

    sys.exit(Supervisor(count, worker, ready, leave, patience).serve())


@main.command(cls=Command)
@common
def migrate(config: Path | None, **flags: Any) -> None:
    """Make the database, or bring it to this version's schema."""
    settings = Settings.load(config, os.environ, **flags)
    app.migrate(settings)
    click.echo("the database is up to date")


@main.command(cls=Command)
@common
@click.option("--dry-run", is_flag=True, help="Remove nothing; tell what lives, what would go, and why.")
@click.option("--grace", type=float, metavar="SECONDS", help="Spare what was pushed or asked for since.")
def gc(config: Path | None, grace: float | None, *, dry_run: bool, **flags: Any) -> None:
    """Remove what no tag, manifest or upload needs; a running registry goes on serving."""
    if grace is not None:
        flags["gc"] = {"grace": grace}
    report = app.collect(Settings.load(config, os.environ, **flags), dry_run=dry_run)
    for item in report.lives:
        click.echo(f"keep    {item.kind:10} {item.repository} {item.digest}  {item.why}")
    for item in report.removed:
        named = " ".join(str(part) for part in (item.repository, item.digest, item.key) if part)
        click.echo(f"{'would remove' if dry_run else 'removed'} {item.kind:10} {named}  {item.why}")
    for repository, freed in report.freed_in.most_common(SHOWN):
        click.echo(f"{freed} bytes {'would be ' if dry_run else ''}freed in {repository}")
    click.echo(f"{len(report.removed)} {'would go' if dry_run else 'gone'}, {report.kept} kept, "
               f"{report.freed} bytes {'would be ' if dry_run else ''}freed")


def _prepare(settings: Settings) -> None:
    """Migrate in a process of its own: it needs threads, and this one is going to fork."""
    child = multiprocessing.get_context("fork").Process(target=_migrate, args=(settings,))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(1)


def _migrate(settings: Settings) -> None:
    try:
        token = app.prepare(settings)
    except SeawallError as error:
        print(f"seawall-registry: {error.message}", file=sys.stderr, flush=True)
        sys.exit(1)
    if token is not None:
        print(f"administrator's token, shown only now (another: seawall-registry token admin): {token}", flush=True)


if __name__ == "__main__":
    main()
