"""`GET /containers/{id}/attach/ws`: a container's streams as websocket messages, both output streams in one.

aiohttp speaks the protocol; the connection only has to give its parser what follows the request at once.
"""

import asyncio
import socket
from contextlib import suppress

from aiohttp import WSCloseCode, WSMsgType, web

from node.api.call import Call
from node.api.detach import DetachKeys
from node.api.frames import Unframed, same
from node.api.parts import Attached, Catalogue, Observation
from node.api.streams import CHUNK, SETTLE, connection_of
from node.api.version import ApiVersion
from node.containers.model import LogQuery

BINARY = ApiVersion(1, 28)
"""Older clients read text messages."""

MAX_MESSAGE = 1024 * 1024
QUEUED = 16
"""Messages taken from a client before the process takes them."""


class WebsocketRoutes:
    def __init__(self, catalogue: Catalogue, observation: Observation) -> None:
        self._catalogue = catalogue
        self._observation = observation

    async def attach(self, call: Call) -> web.StreamResponse:
        """Ends when the container's side does, when the client closes, or at the detach keys."""
        container = await self._catalogue.get(call.path["id"])
        tty = container.spec.tty
        keys = DetachKeys.parse(call.text("detachKeys"))
        wanted = {name: call.flag(name) for name in ("stdin", "stdout", "stderr")}
        place = await self._observation.attach(container.id, **wanted) if call.flag("stream") else None
        line = _Line(web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False), binary=call.version >= BINARY)
        connection = connection_of(call.request)
        try:
            await line.answer.prepare(call.request)
            connection.pass_on()
            if call.flag("logs"):
                plain = same if tty else Unframed()
                async for chunk in self._observation.logs(container.id, LogQuery(wanted["stdout"], wanted["stderr"])):
                    await line.send(plain(chunk))
            if place is not None:
                carried = line.carry(place, keys if tty and wanted["stdin"] else None)
                if await connection.while_here(carried):
                    self._observation.detached(container.id)
        except ConnectionError:
            pass
        finally:
            if place is not None:
                place.cancel()
            if line.answer.prepared:
                with suppress(ConnectionError):
                    await line.answer.close()
        return line.answer


class _Line:
    """One client."""

    def __init__(self, answer: web.WebSocketResponse, *, binary: bool) -> None:
        self.answer = answer
        self._binary = binary
        self._opened = False

    async def send(self, data: bytes) -> None:
        if not data:
            return
        if self._binary:
            await self.answer.send_bytes(data)
        else:
            await self.answer.send_str(data.decode("utf-8", "replace"))

    async def carry(self, place: Attached, keys: DetachKeys | None) -> bool:
        """Whether it was left by the detach keys. The client is heard from the first moment on: one that closes before
        the container starts is not waited for."""
        typed: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED)
        hearing = asyncio.ensure_future(self._hear(typed))
        working = asyncio.ensure_future(self._work(place, typed, keys))
        try:
            await asyncio.wait({hearing, working}, return_when=asyncio.FIRST_COMPLETED)
            if self._opened:
                # What was sent before the end is still for the process.
                await asyncio.wait({working}, timeout=SETTLE)
            return working.done() and working.exception() is None and working.result()
        finally:
            for task in (hearing, working):
                task.cancel()
            await asyncio.gather(hearing, working, return_exceptions=True)

    async def _hear(self, typed: "asyncio.Queue[bytes | None]") -> None:
        async for message in self.answer:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                await self.answer.close(code=WSCloseCode.UNSUPPORTED_DATA)
                break
            await typed.put(message.data if isinstance(message.data, bytes) else str(message.data).encode())
        await typed.put(None)

    async def _work(self, place: Attached, typed: "asyncio.Queue[bytes | None]", keys: DetachKeys | None) -> bool:
        end = await place.open()
        if end is None:
            return False
        self._opened = True
        outwards = asyncio.ensure_future(self._outwards(end, tty=place.tty))
        inwards = asyncio.ensure_future(_inwards(end, typed, keys))
        try:
            await asyncio.wait({outwards, inwards}, return_when=asyncio.FIRST_COMPLETED)
            return inwards.done() and inwards.exception() is None and inwards.result()
        finally:
            outwards.cancel()
            inwards.cancel()
            try:
                await asyncio.gather(outwards, inwards, return_exceptions=True)
            finally:  # this wait may be cancelled too
                end.close()

    async def _outwards(self, end: socket.socket, *, tty: bool) -> None:
        loop = asyncio.get_running_loop()
        plain = same if tty else Unframed()
        with suppress(ConnectionError):
            while data := await loop.sock_recv(end, CHUNK):
                await self.send(plain(data))


async def _inwards(end: socket.socket, typed: "asyncio.Queue[bytes | None]", keys: DetachKeys | None) -> bool:
    loop = asyncio.get_running_loop()
    while (data := await typed.get()) is not None:
        detached = False
        if keys is not None:
            data, detached = keys.feed(data)
        # A process that reads no more still has output.
        with suppress(OSError):
            await loop.sock_sendall(end, data)
        if detached:
            return True
    return False
