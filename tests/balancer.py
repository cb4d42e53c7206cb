"""A load balancer as plain as they come: each connection goes to the next server that takes it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Balancer:
    """`cut_after`: the connections to come break when so many bytes went to a server; one connection for each."""

    servers: Sequence[int]
    port: int = 0
    turn: int = 0
    cut_after: list[int] = field(default_factory=list)
    cuts: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server: asyncio.StreamWriter | None = None
        try:
            up, server = await self._connect()
            await asyncio.wait([asyncio.create_task(self._send(reader, server)),
                                asyncio.create_task(self._answer(up, writer))], return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, server):
                if end is not None:
                    end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in self.servers:
            self.turn += 1
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self.servers[self.turn % len(self.servers)])
        raise ConnectionRefusedError

    async def _send(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        sent = 0
        while data := await reader.read(1 << 16):
            if self.cut_after and sent + len(data) > self.cut_after[0]:
                server.write(data[: self.cut_after.pop(0) - sent])
                self.cuts += 1
                with contextlib.suppress(ConnectionError):
                    await server.drain()
                return
            server.write(data)
            sent += len(data)
            with contextlib.suppress(ConnectionError):
                await server.drain()

    async def _answer(self, up: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await up.read(1 << 16):
                writer.write(data)
                await writer.drain()
            await writer.drain()
            writer.write_eof()


@asynccontextmanager
async def balancing(*servers: int) -> AsyncIterator[Balancer]:
    balancer = Balancer(servers)
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        task.add_done_callback(running.discard)
        await balancer.serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    balancer.port = server.sockets[0].getsockname()[1]
    try:
        yield balancer
    finally:
        server.close()
        for task in [*running]:
            task.cancel()
        if running:
            await asyncio.wait([*running])
