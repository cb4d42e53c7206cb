"""`seawall exec`."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from node.api.detach import DetachKeys
from node.cli import options, terminal
from node.cli.run import carry, code_of
from node.cli.session import Command, Session, complain, session
from node.client import DaemonError


@click.command("exec", cls=Command)
@click.option("-d", "--detach", is_flag=True, help="Do not wait.")
@click.option("--detach-keys", metavar="KEYS", help="Instead of ctrl-p,ctrl-q.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="An environment variable.")
@click.option("--env-file", multiple=True, metavar="FILE", help="Environment variables, a line each.")
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("--privileged", is_flag=True, help="All capabilities.")
@click.option("-t", "--tty", is_flag=True, help="A terminal.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Names or numbers.")
@click.option("-w", "--workdir", default="", metavar="PATH", help="Where the command starts.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG...]")
@session
def execute(session: Session, /, container: str, command: Sequence[str], **flags: Any) -> int:
    """Run a command in a running container."""
    terminal.check_tty(tty=flags["tty"] and not flags["detach"], interactive=flags["interactive"])
    keys = DetachKeys.parse(flags["detach_keys"] or "")
    attached = not flags["detach"]
    body = {
        "AttachStdin": flags["interactive"] and attached,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "DetachKeys": flags["detach_keys"] or "",
        "Tty": flags["tty"],
        "Env": options.environment(flags["env"], flags["env_file"]),
        "Cmd": list(command),
        "User": flags["user"],
        "WorkingDir": flags["workdir"],
        "Privileged": flags["privileged"],
    }
    exec_id = session.client.json("POST", f"/containers/{container}/exec", body=body)["Id"]
    try:
        return _start(session, exec_id, keys, tty=flags["tty"], stdin=flags["interactive"], detach=flags["detach"])
    except DaemonError as error:
        complain(error)
        return code_of(error)


def _start(session: Session, exec_id: str, keys: DetachKeys, *, tty: bool, stdin: bool, detach: bool) -> int:
    client, path = session.client, f"/exec/{exec_id}"
    body: dict[str, Any] = {"Detach": detach, "Tty": tty}
    if tty and sys.stdout.isatty():
        window = os.get_terminal_size(sys.stdout.fileno())
        body["ConsoleSize"] = [window.lines, window.columns]
    if detach:
        client.json("POST", f"{path}/start", body=body)
        return 0
    stream = client.hijack(f"{path}/start", body=body)
    try:
        detached = carry(session, path, stream, keys, tty=tty, stdin=stdin)
    finally:
        stream.close()
    if detached:
        return 0
    # A command that could not be run was explained on the stream; its code is 126 or 127.
    code = client.json("GET", f"{path}/json")["ExitCode"]
    return int(code or 0)
