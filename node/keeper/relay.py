"""IPv6 clients of a container that has no IPv6 address, and clients of the host's own ::1: the kernel cannot translate
these, so what they send is carried over by this process, from the socket that holds the port."""

import asyncio
import contextlib
import socket
from typing import Any

CHUNK = 128 * 1024
PATIENCE = 10.0
"""Seconds to reach the container."""

QUIET = 90.0
"""Seconds after which a client of UDP that says nothing is forgotten, as the kernel's connection tracking does."""

MOST = 1024
"""Connections, or clients of UDP, of one port at a time."""


class Relay:
    """From one listening socket to one address. The socket is the caller's, and closed by it."""

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self._listener = listener
        self._target = target
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._loop = asyncio.get_running_loop()
        self._work: set[asyncio.Task[None]] = set()
        self._clients: dict[Any, socket.socket] = {}
        listener.setblocking(False)
        streams = listener.type == socket.SOCK_STREAM
        self._loop.add_reader(listener, self._on_connection if streams else self._on_datagram)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        for task in self._work:
            task.cancel()

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    # -- streams

    def _on_connection(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            if len(self._work) >= MOST:
                client.close()
                return
            client.setblocking(False)
            self._spawn(self._carry(client))

    async def _carry(self, client: socket.socket) -> None:
        server = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with client, server, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._loop.sock_connect(server, self._target)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._one_way(client, server))
                ways.create_task(self._one_way(server, client))

    async def _one_way(self, source: socket.socket, sink: socket.socket) -> None:
        """The end of one direction is passed on; the other goes on by itself."""
        with contextlib.suppress(OSError):
            while data := await self._loop.sock_recv(source, CHUNK):
                await self._loop.sock_sendall(sink, data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    # -- datagrams

    def _on_datagram(self) -> None:
        with contextlib.suppress(OSError):
            data, sender = self._listener.recvfrom(65535)
            known = self._clients.get(sender)
            if known is None:
                if len(self._clients) >= MOST:
                    return
                known = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                known.connect(self._target)
                self._clients[sender] = known
                self._spawn(self._answer(sender, known))
            known.send(data)

    async def _answer(self, client: Any, channel: socket.socket) -> None:
        try:
            with channel, contextlib.suppress(OSError, TimeoutError):
                while True:
                    async with asyncio.timeout(QUIET):
                        data = await self._loop.sock_recv(channel, 65535)
                    self._listener.sendto(data, client)
        finally:
            self._clients.pop(client, None)
