"""A request that becomes a raw byte stream in both directions: attach and exec (Engine API, "Hijacking").

aiohttp has a server-side way out of HTTP for websockets only, and its parser drops what a client sends behind the
request head before the handler answers. `EngineConnection` therefore stands in front of the parser: it lets one request
through at a time, holds what follows, and either gives that to the `RawStream` the handler asked for (`take_over`) or,
when the handler answered in plain HTTP, to the parser as the next request (`release`).
"""

import asyncio
import re
import select
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from node.api.detach import DetachKeys
from node.api.frames import same

T = TypeVar("T")

CHUNK = 64 * 1024
SETTLE = 5.0
"""Seconds that an exit code may come after the last output of its process."""
MAX_HEAD = 256 * 1024
"""Of a request head held back; aiohttp's own limits answer what is longer."""

WATCH_SECONDS = 1.0

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_MAY_BE_TAKEN = re.compile(rb"\s*POST (?:/v[\d.]+)?/(?:containers/[^/? ]+/attach|exec/[^/? ]+/start)[? ]")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r?\n", re.IGNORECASE)
_PARSERS_OWN = re.compile(rb"\n(?:transfer-encoding|expect):", re.IGNORECASE)


class ClientGone(ConnectionResetError):
    """The client closed its connection (or the daemon is stopping) while something was done for it."""


class EngineConnection(RequestHandler):
    """aiohttp's connection, able to be taken over. One thing is under way on it at a time, as in HTTP/1."""

    __slots__ = (
        "_all", "_body_left", "_gone", "_head", "_held", "_held_eof", "_may_be_taken", "_raw", "_scanning", "_writable",
    )  # fmt: skip

    def __init__(self, *args: Any, connections: "set[EngineConnection]", **kwargs: Any) -> None:
        """`connections` is kept to those that are open, for who wants to hang up on all of them."""
        super().__init__(*args, **kwargs)
        self._all = connections
        self._head = b""
        self._body_left = 0
        self._scanning = True
        self._held: bytearray | None = None
        self._held_eof = False
        self._may_be_taken = False
        self._raw: RawStream | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()

    # What handlers use.

    def take_over(self, head: bytes) -> "RawStream":
        """Answer with `head` and leave HTTP: from now on the bytes are the stream's."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ClientGone("the client has gone")
        transport.write(head)
        raw = self._raw = RawStream(self, transport)
        held = self._take_held()
        if held:
            raw.feed(held)
        if self._held_eof:
            raw.feed_eof()
        return raw

    def release(self) -> None:
        """The request was answered in plain HTTP: what was held back is the next request."""
        if self._raw is not None:
            return
        held = self._take_held()
        if held:
            self.data_received(held)
        if self._held_eof and self.transport is not None:
            self.transport.close()

    def pass_on(self) -> None:
        """The handler has given aiohttp another parser (a websocket's): all that comes is for it from now on."""
        self._scanning = False
        held = self._take_held()
        if held:
            super().data_received(held)
        if self._held_eof and self.transport is not None:
            self.transport.close()

    def _take_held(self) -> bytes:
        held, self._held = bytes(self._held or b""), None
        # Only a pause of ours is lifted: the parser's own, for a body nobody reads, stays.
        if len(held) >= CHUNK and self.transport is not None:
            self.transport.resume_reading()
        return held

    async def while_here(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled when the client goes. Raises ClientGone."""
        return await _unless(self._gone.wait(), work)

    def hang_up(self) -> None:
        """The daemon stops: what waits for ever ends now."""
        self._gone.set()
        if self._raw is not None:
            self._raw.close()

    @property
    def gone(self) -> asyncio.Event:
        return self._gone

    @property
    def writable(self) -> asyncio.Event:
        return self._writable

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._all.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed(data)
        elif not data or not self._scanning:
            super().data_received(data)
        elif self._held is not None and not self._body_left:
            self._held += data
            if len(self._held) >= CHUNK and self.transport is not None:
                self.transport.pause_reading()
        else:
            self._scan(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """True keeps our direction open: a client that has no more input still wants the output."""
        if self._raw is not None:
            self._raw.feed_eof()
            return True
        if self._held is not None and self._may_be_taken:
            self._held_eof = True
            return True
        super().eof_received()
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._all.discard(self)
        self._gone.set()
        self._writable.set()
        if self._raw is not None:
            self._raw.feed_eof()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writable.clear()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writable.set()

    def _scan(self, data: bytes) -> None:
        """Give the parser a request and hold what follows it, which may be no HTTP."""
        while data and self._scanning:
            if self._body_left:
                body, data = data[: self._body_left], data[self._body_left :]
                self._body_left -= len(body)
                super().data_received(body)
                if self._held is not None and not self._body_left:
                    self._held += data
                    return
                continue
            self._head += data
            end = _HEAD_END.search(self._head)
            if end is None:
                if len(self._head) > MAX_HEAD:
                    self._scanning = False
                data = self._head if not self._scanning else b""
                self._head = b"" if not self._scanning else self._head
                continue
            head, data, self._head = self._head[: end.end()], self._head[end.end() :], b""
            self._admit(head)
            if self._held is not None and not self._body_left:
                self._held += data
                return
        if data:
            super().data_received(data)

    def _admit(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        self._body_left = int(length[1]) if length else 0
        self._may_be_taken = _MAY_BE_TAKEN.match(head) is not None
        if _PARSERS_OWN.search(head):
            # Where its body ends, or whether a handler is called at all, only the parser knows: this connection is left
            # to it. A takeover still works, but bytes sent before our answer would be read as HTTP and end it.
            self._scanning = False
        else:
            self._held = bytearray()
        super().data_received(head)


class RawStream:
    """A connection after the takeover. `read` and `write` wait, so neither side can fill our memory."""

    def __init__(self, connection: EngineConnection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport
        self._buffer = bytearray()
        self._eof = False
        self._paused = False
        self._readable = asyncio.Event()

    async def read(self) -> bytes:
        """What the client sent; b"" once it will send no more."""
        await self._readable.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        if not self._eof:
            self._readable.clear()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Raises ClientGone."""
        if self._connection.gone.is_set():
            raise ClientGone("the client has gone")
        self._transport.write(data)
        await self._connection.writable.wait()

    async def while_here(self, work: Awaitable[T]) -> T:
        """As EngineConnection.while_here; a half-closed direction is no departure. Raises ClientGone."""
        return await _unless(self.wait_gone(), work)

    async def wait_gone(self) -> None:
        """Until the client cannot be written to any more.

        After a half-close the event loop no longer watches the socket, and only a write would tell; a poll that asks
        for nothing but POLLHUP tells whether the other direction was closed too (poll(2)).
        """
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        while not self._connection.gone.is_set():
            if self._eof and any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._connection.gone.wait(), WATCH_SECONDS)

    def close(self) -> None:
        """What was written is still delivered."""
        self._transport.close()

    def feed(self, data: bytes) -> None:
        self._buffer += data
        self._readable.set()
        if len(self._buffer) >= CHUNK and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def feed_eof(self) -> None:
        self._eof = True
        self._readable.set()


class Taken(web.StreamResponse):
    """What a handler returns for a connection it has taken over or lost: aiohttp sends nothing and closes."""

    def __init__(self, status: int) -> None:
        super().__init__(status=status)
        self.force_close()

    async def prepare(self, _request: BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, _data: bytes = b"") -> None:
        return


def connection_of(request: web.Request) -> EngineConnection:
    return cast("EngineConnection", request.protocol)


def take_over(request: web.Request, content_type: str, headers: Mapping[str, str]) -> tuple[RawStream, Taken]:
    """101 for a client that asked to upgrade, 200 for one that did not (before API 1.21)."""
    upgrade = "Upgrade" in request.headers
    status = "101 UPGRADED" if upgrade else "200 OK"
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}"]
    lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
    lines += [f"{name}: {value}" for name, value in headers.items()]
    raw = connection_of(request).take_over(("\r\n".join(lines) + "\r\n\r\n").encode())
    return raw, Taken(101 if upgrade else 200)


async def _unless(departure: Awaitable[object], work: Awaitable[T]) -> T:
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(departure)
    both: set[asyncio.Future[Any]] = {task, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone("the client has gone")
    finally:
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def shovel(
    client: RawStream,
    container: socket.socket,
    keys: DetachKeys | None,
    *,
    settled: Awaitable[object] | None = None,
    shape: Callable[[bytes], bytes] = same,
) -> bool:
    """Carry bytes both ways until the container's side ends, the client goes, or it types the detach keys (True).
    `shape` is what becomes of the output on the way.

    When the container's side has ended, `settled` is awaited (SETTLE seconds at most) before the client hears of the
    end: what it asks next, an exec's exit code, is known then.
    """
    settling = None if settled is None else asyncio.ensure_future(settled)
    tasks: set[asyncio.Future[Any]] = {
        (outwards := asyncio.ensure_future(_outwards(container, client, shape))),
        (inwards := asyncio.ensure_future(_inwards(client, container, keys))),
    }
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if outwards.done() and settling is not None:
            await asyncio.wait({settling}, timeout=SETTLE)
        return inwards.done() and not inwards.cancelled() and inwards.exception() is None and inwards.result()
    finally:
        if settling is not None:
            tasks.add(settling)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # this wait may be cancelled too
            container.close()
            client.close()


async def _outwards(container: socket.socket, client: RawStream, shape: Callable[[bytes], bytes]) -> None:
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while data := await loop.sock_recv(container, CHUNK):
            await client.write(shape(data))


async def _inwards(client: RawStream, container: socket.socket, keys: DetachKeys | None) -> bool:
    """Ends when the client has gone or detached; its mere end of input ends nothing but the input."""
    loop = asyncio.get_running_loop()
    deaf = False
    while data := await client.read():
        detached = False
        if keys is not None:
            data, detached = keys.feed(data)
        if data and not deaf:
            try:
                await loop.sock_sendall(container, data)
            except OSError:
                # The process reads no more; the client is still heard for the detach keys, and still gets output.
                deaf = True
        if detached:
            return True
    with suppress(OSError):
        container.shutdown(socket.SHUT_WR)
    await client.wait_gone()
    return False
