"""`audit` and `webhooks`: what happened, and who was told."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from ocispec.errors import InvalidArgument
from ocispec.reference import RepositoryName
from registry import app
from registry.cli.root import Command, common, main
from registry.notifications.audit import AuditLog, line
from registry.notifications.hooks import Hooks, HookState
from registry.settings import Settings
from storage.events import Action, Result
from storage.metadata.engine import Database, open_database
from storage.metadata.events import LoggedEvent, Wanted

T = TypeVar("T")

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _moment(_ctx: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    """`2026-01-31`, `2026-01-31T12:00:00Z`, or so long ago: `90m`, `7d`."""
    if text is None:
        return None
    if text[:-1].isascii() and text[:-1].isdigit() and len(text) < 10 and text[-1] in UNITS:
        return datetime.now(UTC) - timedelta(**{UNITS[text[-1]]: int(text[:-1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time (want 2026-01-31T12:00:00Z, or 7d for so long ago)",
                                 param=option) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@main.command(cls=Command)
@common
@click.option("--since", callback=_moment, metavar="TIME", help="From then on: 2026-01-31T12:00:00Z, or 7d ago.")
@click.option("--until", callback=_moment, metavar="TIME", help="Before then.")
@click.option("--actor", metavar="NAME", help="What this user or robot did; empty: nobody in particular.")
@click.option("--repository", metavar="NAME", help="What happened to this repository.")
@click.option("--action", type=click.Choice([action.value for action in Action]), help="This action alone.")
@click.option("--result", type=click.Choice([result.value for result in Result]), help="With this result alone.")
@click.option("--limit", type=click.IntRange(1), default=100, metavar="N", help="At most so many. Default: 100.")
@click.option("--all", "everything", is_flag=True, help="However many there are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def audit(config: Path | None, since: datetime | None, until: datetime | None, actor: str | None,
          repository: str | None, action: str | None, result: str | None, limit: int, *, everything: bool,
          as_json: bool, **flags: Any) -> None:
    """Show who did what, the newest first."""
    wanted = Wanted(since, until, actor, RepositoryName.parse(repository) if repository else None,
                    Action(action) if action else None, Result(result) if result else None)

    async def show(database: Database) -> None:
        left = limit
        async for entry in AuditLog(database).export(wanted):
            click.echo(line(entry) if as_json else _shown(entry))
            left -= 1
            if not left and not everything:
                return

    _run(Settings.load(config, os.environ, **flags), show)


def _shown(entry: LoggedEvent) -> str:
    event, origin = entry.event, entry.event.origin
    what = str(event.repository or "")
    what += f":{event.tag}" if event.tag else ""
    what += f"@{event.digest}" if event.digest else ""
    detail = " ".join(f"{name}={value}" for name, value in event.detail.items())
    parts = (entry.at.isoformat(timespec="seconds").replace("+00:00", "Z"), event.result.value,
             f"{event.action.value:16}", origin.actor or "-", origin.remote or "-", what, detail)
    return " ".join(part for part in parts if part)


@main.group()
def webhooks() -> None:
    """Show whom events are told, and tell again what was given up."""


@webhooks.command("list", cls=Command)
@common
def list_hooks(config: Path | None, **flags: Any) -> None:
    """Show every endpoint and how far it has been told."""

    async def show(database: Database) -> None:
        for state in await Hooks(database, app.endpoints(settings)).list():
            click.echo(_state(state))

    settings = Settings.load(config, os.environ, **flags)
    _run(settings, show)


def _state(state: HookState) -> str:
    cursor, backlog = state.cursor, state.backlog
    parts = [state.endpoint.name, state.endpoint.format.value, str(state.endpoint.url.with_query(None)),
             "settings" if state.fixed else "database", "" if state.enabled else "disabled"]
    if cursor is not None:
        parts += [f"delivered={cursor.delivered}", f"failures={cursor.attempts}" if cursor.attempts else "",
                  f"error={cursor.error!r}" if cursor.error else ""]
    if backlog is not None:
        parts += [f"waiting={backlog.waiting}", f"dead={backlog.dead}"]
    return "  ".join(part for part in parts if part)


@webhooks.command("dead", cls=Command)
@common
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, metavar="N", help="At most so many. Default: 100.")
def dead_events(config: Path | None, name: str, limit: int, **flags: Any) -> None:
    """Show what was given up for an endpoint."""

    async def show(database: Database) -> None:
        for item in await Hooks(database, app.endpoints(settings)).dead(name, limit):
            again = "  (will be sent again)" if item.again else ""
            click.echo(f"{item.number}  {item.at.isoformat(timespec='seconds')}  attempts={item.attempts}  "
                       f"{item.error}{again}")

    settings = Settings.load(config, os.environ, **flags)
    _run(settings, show)


@webhooks.command(cls=Command)
@common
@click.argument("name")
def redeliver(config: Path | None, name: str, **flags: Any) -> None:
    """Have the running registry send again what was given up for an endpoint."""

    async def mark(database: Database) -> None:
        count = await Hooks(database, app.endpoints(settings)).redeliver(name)
        click.echo(f"{count} will be sent again")

    settings = Settings.load(config, os.environ, **flags)
    _run(settings, mark)


def _run(settings: Settings, act: Callable[[Database], Awaitable[T]]) -> T:
    """With the database alone: no store is opened, and a database that is not there is not made."""
    prefix = "sqlite+aiosqlite:///"
    if settings.database_url.startswith(prefix) and not Path(settings.database_url.removeprefix(prefix)).exists():
        raise InvalidArgument(f"there is no database at {settings.database_url.removeprefix(prefix)}")

    async def run() -> T:
        async with open_database(settings.database_url, migrate=False) as database:
            return await act(database)

    return asyncio.run(run())
