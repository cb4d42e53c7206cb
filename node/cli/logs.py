"""`seawall logs`."""

import sys

import click

from node.cli.frames import Frames
from node.cli.session import Session, session


@click.command()
@click.option("--details", is_flag=True, help="What the log driver's labels, env and tag say.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--since", metavar="TIME", help="RFC 3339, seconds since 1970, or a span (10m).")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="When each line was written.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.argument("container")
@session
def logs(
    session: Session,
    container: str,
    details: bool,
    follow: bool,
    since: str | None,
    tail: str,
    timestamps: bool,
    until: str | None,
) -> None:
    """Show the output of a container."""
    tty = session.client.json("GET", f"/containers/{container}/json")["Config"]["Tty"]
    query = {"stdout": True, "stderr": True, "follow": follow, "since": since, "until": until, "tail": tail,
             "timestamps": timestamps, "details": details}  # fmt: skip
    frames = Frames(multiplexed=not tty)
    for data in session.client.stream("GET", f"/containers/{container}/logs", query):
        for number, part in frames.feed(data):
            out = sys.stderr if number == 2 else sys.stdout
            out.buffer.write(part)
            out.buffer.flush()
