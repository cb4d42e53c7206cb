"""What the daemon tells: requests on a SOCK_SEQPACKET socket, one message each, with the descriptors that go with it.

    {"op": "hello"}                       → {"version", "pid"}
    {"op": "begin", "id"} [life]          a container starts; what an earlier one of that id had is gone  → {}
        it may say at once: "keys" [sockets…] and "targets", as below
    {"op": "listen", "id", "names"} [netns, udp, tcp]   its sockets for questions                       → {}
    {"op": "names", "id", "names"}                                                                   → {}
    {"op": "hold", "id", "keys"} [sockets…]                                                          → {}
    {"op": "relay", "id", "targets": {key: [address, port]}}   of held ports; of no others from now on → {}
    {"op": "let_go", "id", "keys"}                                                            → {}
    {"op": "list"}                        → {"sandboxes": {id: [port key…]}, "more"} in as many messages as it takes
    {"op": "drop", "id"} · {"op": "quit"}                                                     → {}

Every answer repeats the request's `n`; a request that failed is answered {"error"}. Only root is heard.
"""

import array
import asyncio
import contextlib
import json
import os
import socket
import struct
from typing import Any

from node.keeper.forward import Forwarder, HostServers
from node.keeper.sandbox import Names, Sandbox
from node.keeper.zones import Zones

VERSION = 1
"""Of the requests. A daemon that speaks another one starts a keeper of its own kind."""

MAX_MESSAGE = 128 * 1024
MAX_FDS = 250
PAGE = 500
LINGER = 5.0
"""Seconds without daemon and containers before this process ends."""


class Control:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._zones = Zones()
        self._forwarder = Forwarder(HostServers())
        self._sandboxes: dict[str, Sandbox] = {}
        self._connections: set[socket.socket] = set()
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._leaving: asyncio.TimerHandle | None = None

    async def serve(self) -> None:
        self._loop.add_reader(self._listener, self._on_connection)
        self._reckon()
        await self._over.wait()
        for sandbox in list(self._sandboxes.values()):
            sandbox.close()
        for channel in self._connections:
            self._loop.remove_reader(channel)
            channel.close()
        self._forwarder.close()

    def _on_connection(self) -> None:
        with contextlib.suppress(OSError):
            channel, _ = self._listener.accept()
            _pid, uid, _gid = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.getuid():
                channel.close()
                return
            self._connections.add(channel)
            self._loop.add_reader(channel, self._on_message, channel)
            self._reckon()

    def _on_message(self, channel: socket.socket) -> None:
        try:
            data, fds = _receive(channel)
        except OSError:
            data, fds = b"", []
        if not data:
            self._loop.remove_reader(channel)
            self._connections.discard(channel)
            channel.close()
            self._reckon()
            return
        request: dict[str, Any] = {}
        try:
            request = json.loads(data)
            answers = self._answers(request, fds)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
            answers = [{"error": f"{type(error).__name__}: {error}"}]
        for fd in fds:
            os.close(fd)  # what was used has been taken out of the list
        for answer in answers:
            with contextlib.suppress(OSError):
                channel.send(json.dumps({**answer, "n": request.get("n")}).encode())
        self._reckon()

    def _answers(self, request: dict[str, Any], fds: list[int]) -> list[dict[str, Any]]:
        """Raises KeyError, ValueError, TypeError, IndexError or OSError."""
        operation = str(request["op"])
        if operation == "hello":
            return [{"version": VERSION, "pid": os.getpid()}]
        if operation == "list":
            return self._list()
        if operation == "quit":
            self._over.set()
            return [{}]
        name = str(request["id"])
        if operation == "begin":
            self._drop(name)
            self._sandboxes[name] = Sandbox(name, fds.pop(0), self._zones, self._forwarder, self._drop)
            for more, field in (("hold", "keys"), ("relay", "targets")):
                if request.get(field):
                    _tell(self._sandboxes[name], more, request, fds)
        elif operation == "drop":
            self._drop(name)
        else:
            _tell(self._sandboxes[name], operation, request, fds)
        return [{}]

    def _drop(self, name: str) -> None:
        if (sandbox := self._sandboxes.pop(name, None)) is not None:
            sandbox.close()
            self._reckon()

    def _list(self) -> list[dict[str, Any]]:
        every = [(name, sandbox.ports) for name, sandbox in self._sandboxes.items()]
        pages = [dict(every[start:start + PAGE]) for start in range(0, len(every), PAGE)] or [{}]
        return [{"sandboxes": page, "more": page is not pages[-1]} for page in pages]

    def _reckon(self) -> None:
        """End some time after nobody needs this process any more."""
        if self._sandboxes or self._connections:
            if self._leaving is not None:
                self._leaving.cancel()
                self._leaving = None
        elif self._leaving is None:
            self._leaving = self._loop.call_later(LINGER, self._over.set)


def _tell(sandbox: Sandbox, operation: str, request: dict[str, Any], fds: list[int]) -> None:
    if operation == "listen":
        netns, datagrams, streams = fds[:3]
        del fds[:3]
        sandbox.listen(netns, socket.socket(fileno=datagrams), socket.socket(fileno=streams))
        sandbox.call(Names.parse(request["names"]))
    elif operation == "names":
        sandbox.call(Names.parse(request["names"]))
    elif operation == "hold":
        for key in request["keys"]:
            sandbox.hold(str(key), socket.socket(fileno=fds.pop(0)))
    elif operation == "relay":
        sandbox.relay({str(key): (str(address), int(port)) for key, (address, port) in request["targets"].items()})
    elif operation == "let_go":
        for key in request["keys"]:
            sandbox.let_go(str(key))
    else:
        raise ValueError(f"unknown operation {operation!r}")


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _flags, _address = channel.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(4 * MAX_FDS),
                                                        socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)
