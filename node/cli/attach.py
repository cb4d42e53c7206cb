"""`seawall attach` and `start`."""

from collections.abc import Sequence
from contextlib import ExitStack

import click

from node.api.detach import DetachKeys
from node.cli import terminal
from node.cli.run import carry, exit_code
from node.cli.session import Session, each, session
from ocispec.errors import FailedPrecondition

keys_option = click.option("--detach-keys", metavar="KEYS", help="Instead of ctrl-p,ctrl-q.")
proxy_option = click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the container.")


class NotAttachable(FailedPrecondition):
    """The container's state has no streams."""


@click.command()
@keys_option
@click.option("--no-stdin", is_flag=True, help="Do not pass standard input.")
@proxy_option
@click.argument("container")
@session
def attach(session: Session, container: str, detach_keys: str | None, no_stdin: bool, sig_proxy: bool) -> int:
    """Attach to a running container."""
    document = session.client.json("GET", f"/containers/{container}/json")
    state = document["State"]
    if state["Paused"]:
        raise NotAttachable("You cannot attach to a paused container, unpause it first")
    if not state["Running"]:
        raise NotAttachable("You cannot attach to a stopped container, start it first")
    tty, stdin = document["Config"]["Tty"], document["Config"]["OpenStdin"] and not no_stdin
    terminal.check_tty(tty=tty, interactive=stdin)
    return follow(session, document["Id"], tty=tty, stdin=stdin, detach_keys=detach_keys, sig_proxy=sig_proxy)


def follow(
    session: Session,
    container_id: str,
    *,
    tty: bool,
    stdin: bool,
    detach_keys: str | None,
    sig_proxy: bool,
    begin: bool = False,
) -> int:
    """Attach until it ends and give its exit code; `begin`: start it once attached."""
    client, path = session.client, f"/containers/{container_id}"
    keys = DetachKeys.parse(detach_keys or "")
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "detachKeys": detach_keys}
    with ExitStack() as stack:
        if sig_proxy:
            stack.enter_context(terminal.proxied(lambda name: client.status("POST", f"{path}/kill", {"signal": name})))
        stream = client.hijack(f"{path}/attach", query)
        stack.callback(stream.close)
        waiting = client.begin("POST", f"{path}/wait", {"condition": "next-exit" if begin else "not-running"})
        stack.callback(waiting[0].socket.close)
        if begin:
            client.status("POST", f"{path}/start")
        if carry(session, path, stream, keys, tty=tty, stdin=stdin):
            click.echo("read escape sequence", err=True)
            return 1
        return exit_code(*waiting)


@click.command()
@click.option("-a", "--attach", "attached", is_flag=True, help="Show its output and pass signals on.")
@keys_option
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@proxy_option
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...")
@session
def start(
    session: Session,
    containers: Sequence[str],
    attached: bool,
    detach_keys: str | None,
    interactive: bool,
    sig_proxy: bool,
) -> int:
    """Start stopped containers."""
    if not attached and not interactive:
        return each(containers, lambda name: session.client.status("POST", f"/containers/{name}/start"))
    if len(containers) > 1:
        raise click.UsageError("you cannot start and attach multiple containers at once")
    document = session.client.json("GET", f"/containers/{containers[0]}/json")
    tty, stdin = document["Config"]["Tty"], document["Config"]["OpenStdin"] and interactive
    terminal.check_tty(tty=tty, interactive=stdin)
    return follow(
        session, document["Id"], tty=tty, stdin=stdin, detach_keys=detach_keys, sig_proxy=sig_proxy, begin=True
    )
