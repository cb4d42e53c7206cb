"""Verbs that end or change containers: stop, restart, kill, pause, unpause, rm, rename, wait."""

from collections.abc import Sequence

import click

from node.cli.session import Session, complain, each, session
from node.client import DaemonError

names = click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...")
grace = click.option("-t", "--timeout", "--time", type=int, metavar="SECONDS", help="Before killing; -1: for ever.")
with_signal = click.option("-s", "--signal", metavar="SIGNAL", help="Sent instead of the container's own.")


@click.command()
@grace
@with_signal
@names
@session
def stop(session: Session, containers: Sequence[str], timeout: int | None, signal: str | None) -> int:
    """Stop running containers."""
    query = {"t": timeout, "signal": signal}
    return each(containers, lambda name: session.client.status("POST", f"/containers/{name}/stop", query))


@click.command()
@grace
@with_signal
@names
@session
def restart(session: Session, containers: Sequence[str], timeout: int | None, signal: str | None) -> int:
    """Restart containers."""
    query = {"t": timeout, "signal": signal}
    return each(containers, lambda name: session.client.status("POST", f"/containers/{name}/restart", query))


@click.command()
@click.option("-s", "--signal", default="KILL", show_default=True, metavar="SIGNAL", help="Name or number.")
@names
@session
def kill(session: Session, containers: Sequence[str], signal: str) -> int:
    """Kill running containers."""
    query = {"signal": signal}
    return each(containers, lambda name: session.client.status("POST", f"/containers/{name}/kill", query))


@click.command()
@names
@session
def pause(session: Session, containers: Sequence[str]) -> int:
    """Pause all processes of containers."""
    return each(containers, lambda name: session.client.status("POST", f"/containers/{name}/pause"))


@click.command()
@names
@session
def unpause(session: Session, containers: Sequence[str]) -> int:
    """Let paused containers go on."""
    return each(containers, lambda name: session.client.status("POST", f"/containers/{name}/unpause"))


@click.command()
@click.option("-f", "--force", is_flag=True, help="Running ones too: they are killed.")
@click.option("-v", "--volumes", is_flag=True, help="With their anonymous volumes.")
@names
@session
def rm(session: Session, containers: Sequence[str], force: bool, volumes: bool) -> int:
    """Remove containers."""
    query = {"force": force, "v": volumes}

    def remove(name: str) -> None:
        try:
            session.client.status("DELETE", f"/containers/{name}", query)
        except DaemonError as error:
            if not (force and error.status == 404):
                raise
            complain(error)

    return each(containers, remove)


@click.command()
@click.argument("container")
@click.argument("name")
@session
def rename(session: Session, container: str, name: str) -> None:
    """Rename a container."""
    session.client.status("POST", f"/containers/{container}/rename", {"name": name})


@click.command()
@names
@session
def wait(session: Session, containers: Sequence[str]) -> int:
    """Wait until containers stop, then print their exit codes."""

    def one(name: str) -> None:
        click.echo(session.client.json("POST", f"/containers/{name}/wait")["StatusCode"])

    return each(containers, one, say=False)
