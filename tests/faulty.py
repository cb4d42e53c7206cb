"""A proxy between a client and a server that goes wrong where a test says so.

`proxy.next(Fault(...), where)`: the next request that `where` is true of meets the fault. A request is its line and
headers, as text, so `"PUT " in request and "partNumber=2" in request` names the second part.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

Where = Callable[[str], bool]
SLOW_DOWN = (b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 69\r\nConnection: close\r\n\r\n"
             b"<Error><Code>SlowDown</Code><Message>later</Message></Error>         ")
INTERNAL = (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Fault(Enum):
    INTERNAL = auto()
    """500; the server never sees the request."""
    SLOW_DOWN = auto()
    """503 with S3's code; the server never sees the request."""
    RESET = auto()
    """The connection breaks before the server sees anything."""
    CUT_REQUEST = auto()
    """The server sees half the body, then both sides break."""
    LOST_ANSWER = auto()
    """The server does it, and the connection breaks before its answer."""
    CUT_ANSWER = auto()
    """The answer's head and half its body arrive."""
    SILENCE = auto()
    """The server does it, and no answer ever comes."""


@dataclass
class Planned:
    fault: Fault
    where: Where
    left: int
    met: int = 0


@dataclass
class Proxy:
    """`seen`: the first line of every request."""

    upstream: int
    port: int = 0
    seen: list[str] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next(self, fault: Fault, where: Where = lambda _: True, times: int = 1) -> Planned:
        self.planned.append(planned := Planned(fault, where, times))
        return planned

    def _fault(self, request: str) -> Fault | None:
        for planned in self.planned:
            if planned.left > 0 and planned.where(request):
                planned.left -= 1
                planned.met += 1
                return planned.fault
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server: asyncio.StreamWriter | None = None
        try:
            up, server = await asyncio.open_connection("127.0.0.1", self.upstream, limit=1 << 22)
            while await self._one(reader, writer, up, server):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, server):
                if end is not None:
                    end.transport.abort()

    async def _one(self, reader, writer, up, server) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        text = head.decode("latin-1")
        length = _length(text)
        if "100-continue" in text.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"".join(line for line in head.splitlines(keepends=True) if not line.lower().startswith(b"expect:"))
        body = await reader.readexactly(length)
        self.seen.append(text.split("\r\n", 1)[0])
        fault = self._fault(text)
        if fault is None:
            server.write(head + body)
        elif fault in (Fault.INTERNAL, Fault.SLOW_DOWN):
            writer.write(INTERNAL if fault is Fault.INTERNAL else SLOW_DOWN)
            await writer.drain()
            return False
        elif fault is Fault.RESET:
            return False
        elif fault is Fault.CUT_REQUEST:
            server.write(head + body[: length // 2])
            await server.drain()
            return False
        else:
            server.write(head + body)
        await server.drain()
        answer = await up.readuntil(b"\r\n\r\n")
        while answer.startswith(b"HTTP/1.1 100"):
            answer = await up.readuntil(b"\r\n\r\n")
        said = answer.decode("latin-1")
        size = 0 if text.startswith("HEAD") or " 204 " in said or " 304 " in said else _length(said)
        chunked = "transfer-encoding: chunked" in said.lower() and not text.startswith("HEAD")
        content = await _chunks(up) if chunked else await up.readexactly(size)
        if fault is Fault.LOST_ANSWER:
            return False
        if fault is Fault.SILENCE:
            await asyncio.Event().wait()
        if fault is Fault.CUT_ANSWER:
            writer.write(answer + content[: size // 2])
            await writer.drain()
            return False
        writer.write(answer + content)
        await writer.drain()
        return "connection: close" not in said.lower()


async def _chunks(up: asyncio.StreamReader) -> bytes:
    """A chunked body, as it came."""
    whole = b""
    while True:
        line = await up.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        whole += line + await up.readexactly(size + 2)
        if not size:
            return whole


def _length(head: str) -> int:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return int(value)
    return 0


@asynccontextmanager
async def proxying(upstream: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(upstream)
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        task.add_done_callback(running.discard)
        await proxy.serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 22)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in [*running]:
            task.cancel()
        if running:
            await asyncio.wait([*running])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 5)
