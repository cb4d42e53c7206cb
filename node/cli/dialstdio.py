"""`seawall system dial-stdio`: standard input and output as a connection to the node, for ssh."""

import os
import select
import socket
import sys

import click

from node.cli.session import Session, session

CHUNK = 64 * 1024


@click.command("dial-stdio", hidden=True)
@session
def dial_stdio(session: Session) -> None:
    """Carry standard input and output to the node (what ssh:// runs on the other machine)."""
    with session.client.host.dial() as connection:
        carry(sys.stdin.fileno(), sys.stdout.fileno(), connection)


def carry(reading: int, writing: int, connection: socket.socket) -> None:
    """Until the node has ended its direction. The end of our input is passed on; its output still comes."""
    watched: list[int | socket.socket] = [reading, connection]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if connection in ready:
            data = connection.recv(CHUNK)
            if not data:
                return
            view = memoryview(data)
            while view:
                view = view[os.write(writing, view):]
        if reading in ready:
            data = os.read(reading, CHUNK)
            if data:
                connection.sendall(data)
            else:
                watched.remove(reading)
                connection.shutdown(socket.SHUT_WR)
