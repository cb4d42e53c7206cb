"""`seawall run` and `create`."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from node.api.detach import DetachKeys
from node.cli import terminal
from node.cli.createbody import Flags, body, create_options
from node.cli.session import Command, Session, complain, session
from node.cli.transfer import fetch
from node.client import Connection, DaemonError, Head, Hijacked
from ocispec.errors import FailedPrecondition, SeawallError

CANNOT_TRY, CANNOT_EXECUTE, NOT_FOUND = 125, 126, 127
STREAMS = ("stdin", "stdout", "stderr")


class FileInTheWay(FailedPrecondition):
    """--cidfile names a file that exists."""


@click.command(cls=Command)
@create_options
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG...]")
@session
def create(session: Session, /, image: str, command: Sequence[str], **flags: Any) -> int:
    """Create a container without starting it."""
    try:
        container_id = make(session, flags, body(flags, image, command, attached=_attached(flags)))
    except SeawallError as error:
        complain(error)
        return CANNOT_TRY
    click.echo(container_id)
    return 0


@click.command(cls=Command)
@click.option("-d", "--detach", is_flag=True, help="Do not wait: print the container's id.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the container.")
@create_options
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG...]")
@session
def run(session: Session, /, image: str, command: Sequence[str], detach: bool, sig_proxy: bool, **flags: Any) -> int:
    """Create and run a container from an image."""
    attached = [] if detach else _attached(flags)
    if detach and flags["attach"]:
        raise click.UsageError("Conflicting options: -a and -d")
    try:
        if not detach:
            terminal.check_tty(tty=flags["tty"], interactive=flags["interactive"])
        keys = DetachKeys.parse(flags["detach_keys"] or "")
        container_id = make(session, flags, body(flags, image, command, attached=attached))
        if detach or not attached:
            return _start_detached(session, container_id)
        return _run_attached(session, container_id, flags, attached, keys, sig_proxy=sig_proxy)
    except SeawallError as error:
        complain(error)
        return code_of(error)


def make(session: Session, flags: Flags, document: dict[str, Any]) -> str:
    """Create it, the image pulled first where the policy says so; warnings are printed. Gives the id."""
    cidfile = Path(flags["cidfile"]) if flags["cidfile"] else None
    if cidfile is not None and cidfile.exists():
        raise FileInTheWay(f"container ID file found, make sure the other container isn't running or delete {cidfile}")
    query = {"name": flags["name"], "platform": flags["platform"]}
    if flags["policy"] == "always":
        _pull(session, flags, document["Image"])
    try:
        created = session.client.json("POST", "/containers/create", query, document)
    except DaemonError as error:
        if error.status != 404 or "No such image" not in error.message or flags["policy"] != "missing":
            raise
        click.echo(f"Unable to find image '{_tagged(document['Image'])}' locally", err=True)
        _pull(session, flags, document["Image"])
        created = session.client.json("POST", "/containers/create", query, document)
    for warning in created["Warnings"] or ():
        click.echo(f"WARNING: {warning}", err=True)
    if cidfile is not None:
        cidfile.write_text(created["Id"])
    return str(created["Id"])


def _pull(session: Session, flags: Flags, image: str) -> None:
    fetch(session, image, platform=flags["platform"], quiet=flags["quiet"], to_stderr=True)


def _tagged(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def _attached(flags: Flags) -> list[str]:
    """Standard input only when it is kept open."""
    named = [name.lower() for name in flags["attach"]]
    for name in named:
        if name not in STREAMS:
            raise click.BadParameter(f"invalid argument {name!r}: valid streams are STDIN, STDOUT and STDERR")
    return named or (list(STREAMS) if flags["interactive"] else ["stdout", "stderr"])


def _start_detached(session: Session, container_id: str) -> int:
    session.client.status("POST", f"/containers/{container_id}/start")
    click.echo(container_id)
    return 0


def _run_attached(
    session: Session, container_id: str, flags: Flags, attached: Sequence[str], keys: DetachKeys, *, sig_proxy: bool
) -> int:
    """Attach and wait are there before the start: nothing it says or does is missed."""
    client, tty = session.client, flags["tty"]
    path = f"/containers/{container_id}"
    query = {"stream": True, **dict.fromkeys(attached, True), "detachKeys": flags["detach_keys"]}
    stdin = "stdin" in attached
    with ExitStack() as stack:
        if sig_proxy:
            stack.enter_context(terminal.proxied(lambda name: client.status("POST", f"{path}/kill", {"signal": name})))
        stream = client.hijack(f"{path}/attach", query)
        stack.callback(stream.close)
        condition = "removed" if flags["remove"] else "next-exit"
        waiting = client.begin("POST", f"{path}/wait", {"condition": condition})
        stack.callback(waiting[0].socket.close)
        client.status("POST", f"{path}/start")
        detached = carry(session, path, stream, keys, tty=tty, stdin=stdin)
        return 0 if detached else exit_code(*waiting)


def carry(session: Session, path: str, stream: Hijacked, keys: DetachKeys, *, tty: bool, stdin: bool) -> bool:
    """Until it ends (False) or the detach keys are typed (True). `path`: of what has the window's size."""

    def resize(height: int, width: int) -> None:
        if tty:
            session.client.status("POST", f"{path}/resize", {"h": height, "w": width})

    with terminal.raw_mode(wanted=tty and stdin), terminal.resized(resize):
        return terminal.Attachment(stream, stdin=stdin, keys=keys if tty else None).run()


def exit_code(connection: Connection, head: Head) -> int:
    """What `wait` answers."""
    document = json.loads(b"".join(connection.chunks(head)))
    if message := (document.get("Error") or {}).get("Message"):
        click.echo(f"Error: {message}", err=True)
    return int(document["StatusCode"])


def code_of(error: SeawallError) -> int:
    """Docker's: 127 for a command that is not there, 126 for one that cannot be executed, else 125."""
    text = error.message
    if any(words in text for words in ("executable file not found", "no such file or directory", "system cannot find")):
        return NOT_FOUND if isinstance(error, DaemonError) else CANNOT_TRY
    if any(words in text for words in ("permission denied", "is a directory", "exec format error")):
        return CANNOT_EXECUTE if isinstance(error, DaemonError) else CANNOT_TRY
    return 1 if isinstance(error, terminal.NoTerminal) else CANNOT_TRY
