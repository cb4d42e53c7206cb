"""One container's part: the sockets its questions come by, and those that hold its published ports."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from dnslib import RCODE

from node.keeper.answers import Malformed, Question, fitting, known, parse
from node.keeper.forward import Forwarder, NoAnswer, Server
from node.keeper.relay import Relay
from node.keeper.zones import Membership, Zones

AT_ONCE = 64
"""Datagrams taken before others have their turn."""

MOST_CONNECTIONS = 64
IDLE = 10.0
HANGING_UP = 2.0
MAX_DATAGRAM = 4096


@dataclass(frozen=True, slots=True)
class Names:
    """What a container sees. `servers` empty: only this node's names are answered. `dotted_only`: names without a dot
    are never asked of others (the container has set ndots itself, and will come again with a search domain)."""

    places: tuple[Membership, ...] = ()
    servers: tuple[Server, ...] = ()
    dotted_only: bool = False

    @classmethod
    def parse(cls, value: dict[str, Any]) -> "Names":
        """Raises ValueError, KeyError or TypeError."""
        return cls(
            tuple(Membership.parse(place) for place in value["places"]),
            tuple(Server(str(address), bool(from_host)) for address, from_host in value["servers"]),
            bool(value["dotted_only"]),
        )


class Sandbox:
    """`life` becomes readable when the container has ended; then `on_end` is called."""

    def __init__(self, name: str, life: int, zones: Zones, forwarder: Forwarder, on_end: Callable[[str], None]) -> None:
        self.name = name
        self.life = life
        self.netns = -1
        self.names = Names()
        self._zones = zones
        self._forwarder = forwarder
        self._ports: dict[str, socket.socket] = {}
        self._relays: dict[str, tuple[tuple[str, int], Relay]] = {}
        self._sockets: list[socket.socket] = []
        self._work: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(life, on_end, name)

    # -- what it is told

    def listen(self, netns: int, datagrams: socket.socket, streams: socket.socket) -> None:
        self._deafen()
        self.netns = netns
        self._sockets = [datagrams, streams]
        for sock in self._sockets:
            sock.setblocking(False)
        self._loop.add_reader(datagrams, self._on_datagrams, datagrams)
        self._loop.add_reader(streams, self._on_connection, streams)

    def call(self, names: Names) -> None:
        self.names = names
        self._zones.put(self.name, names.places)

    def hold(self, key: str, port: socket.socket) -> None:
        self.let_go(key)
        self._ports[key] = port

    def relay(self, targets: dict[str, tuple[str, int]]) -> None:
        """What comes to these ports is carried to those addresses; of no others from now on."""
        for key in [key for key, (target, _) in self._relays.items() if targets.get(key) != target]:
            self._relays.pop(key)[1].close()
        for key, target in targets.items():
            if key in self._ports and key not in self._relays:
                self._relays[key] = target, Relay(self._ports[key], target)

    def let_go(self, key: str) -> None:
        if key in self._relays:
            self._relays.pop(key)[1].close()
        if (port := self._ports.pop(key, None)) is not None:
            port.close()

    @property
    def ports(self) -> list[str]:
        return list(self._ports)

    def close(self) -> None:
        self._loop.remove_reader(self.life)
        os.close(self.life)
        self._deafen()
        self._zones.drop(self.name)
        for key in self.ports:
            self.let_go(key)
        for task in self._work:
            task.cancel()

    def _deafen(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        if self.netns >= 0:
            os.close(self.netns)
            self.netns = -1

    # -- questions

    def _on_datagrams(self, channel: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                data, sender = channel.recvfrom(MAX_DATAGRAM)
            except OSError:
                return
            try:
                question = parse(data)
                reply = known(self._zones, self.name, question)
            except Malformed as error:
                _send(channel, error.reply, sender)
                continue
            if reply is not None:
                _send(channel, fitting(question, reply), sender)
            else:
                self._spawn(self._forward_datagram(channel, sender, data, question))

    async def _forward_datagram(self, channel: socket.socket, sender: Any, data: bytes, question: Question) -> None:
        _send(channel, await self._others(data, question, tcp=False), sender)

    async def _others(self, data: bytes, question: Question, *, tcp: bool) -> bytes:
        if self.names.dotted_only and question.single:
            return question.refuse(RCODE.NXDOMAIN)
        try:
            return await self._forwarder.ask(self.name, self.netns, self.names.servers, data, tcp=tcp)
        except NoAnswer:
            return question.refuse(RCODE.SERVFAIL)

    def _on_connection(self, listener: socket.socket) -> None:
        try:
            channel, _ = listener.accept()
        except OSError:
            return
        if self._connections >= MOST_CONNECTIONS:
            channel.close()
            return
        channel.setblocking(False)
        self._connections += 1
        self._spawn(self._serve(channel))

    async def _serve(self, channel: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=channel, limit=2 * MAX_DATAGRAM)
        except OSError:
            channel.close()
            self._connections -= 1
            return
        try:
            while True:
                async with asyncio.timeout(IDLE):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    if length > MAX_DATAGRAM:
                        return
                    data = await reader.readexactly(length)
                answer = await self._answer_stream(data)
                if not answer:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                async with asyncio.timeout(IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            await _hang_up(writer)
            self._connections -= 1

    async def _answer_stream(self, data: bytes) -> bytes:
        try:
            question = parse(data)
        except Malformed as error:
            return error.reply
        reply = known(self._zones, self.name, question)
        return bytes(reply.pack()) if reply is not None else await self._others(data, question, tcp=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Who does not read what was answered has not this process's memory and descriptors for it."""
    try:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(HANGING_UP):
                await writer.wait_closed()
    finally:
        writer.transport.abort()


def _send(channel: socket.socket, data: bytes, to: Any) -> None:
    if data:
        with contextlib.suppress(OSError):  # who asks too fast asks again; or the container has just ended
            channel.sendto(data, to)


