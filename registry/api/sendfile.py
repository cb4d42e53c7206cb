"""Sending a file's bytes to a client without copying them through this process (sendfile(2)).

uvloop has no sendfile and aiohttp then falls back to reading and writing, a third as fast. Here the response's head
goes out through aiohttp, and once the transport holds nothing back, the kernel moves the bytes to a duplicate of its
socket: in a thread, because a page that is not cached makes sendfile wait for the disk, and in slices, so that no
thread belongs to one client. While the socket takes no more, no thread waits: the loop does.

With TLS in user space the kernel cannot encrypt; then bytes are copied.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from aiohttp import web

from registry.api.ranges import ByteRange

P = ParamSpec("P")
T = TypeVar("T")

SLICE = 16 * 1024 * 1024
"""Bytes one thread hop may move before others have their turn."""

SMALL = 64 * 1024
"""Up to here the file is read where it is opened and goes out in one write with the head: a config, a small layer."""

COPY = 512 * 1024
THREADS = 8


class FileSender:
    """One for a process. `send_timeout`: seconds a client may take no byte."""

    def __init__(self, send_timeout: float) -> None:
        self._timeout = send_timeout
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sendfile")

    async def respond(self, request: web.BaseRequest, head: web.Response, path: Path,
                      part: ByteRange) -> web.StreamResponse:
        """Answer with `part` of the file under the status and headers of `head`, which has no body yet.

        Raises OSError before anything was sent when the file cannot be opened; ConnectionError when the client went or
        stalled. The file must be immutable and at least as long as `part` wants.
        """
        file, data = await self._open(path, part)
        try:
            if file < 0:
                head.body = data
                return head
            response = web.StreamResponse(status=head.status, headers=head.headers)
            response.content_length = part.length
            if request.transport is None:
                raise ConnectionResetError("client went")
            await self._send(request, response, file, part)
            return response
        finally:
            if file >= 0:
                os.close(file)

    async def _send(self, request: web.BaseRequest, response: web.StreamResponse, file: int, part: ByteRange) -> None:
        transport = request.transport
        assert transport is not None
        if transport.get_extra_info("sslcontext") is not None:
            await response.prepare(request)
            await copy(response, self._read(file, part), self._timeout)
            return
        # With a limit of zero the transport reports as "paused" until the kernel has the last byte of the head, and of
        # the answer before it: only then may bytes go around it.
        transport.set_write_buffer_limits(high=0)
        try:
            await response.prepare(request)
            async with stalled(self._timeout):
                await request.writer.drain()
            await self._around(transport, file, part)
        finally:
            if not transport.is_closing():
                transport.set_write_buffer_limits()
        request.writer.output_size += part.length  # for the access log
        await response.write_eof()

    async def _around(self, transport: asyncio.Transport, file: int, part: ByteRange) -> None:
        if transport.is_closing():
            raise ConnectionResetError("client went")
        socket = os.dup(transport.get_extra_info("socket").fileno())
        try:
            start, left = part.start, part.length
            while left:
                sent, full = await self._run(_slice, socket, file, start, min(left, SLICE))
                start, left = start + sent, left - sent
                if full:
                    await self._writable(socket)
                elif not sent:
                    transport.abort()  # the length is promised; an early end must look like one
                    raise ConnectionAbortedError("the file is shorter than its row says")
        finally:
            os.close(socket)

    async def _writable(self, socket: int) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(socket, _resolve, ready)
        try:
            async with stalled(self._timeout):
                await ready
        finally:
            loop.remove_writer(socket)

    async def _read(self, file: int, part: ByteRange) -> AsyncIterator[bytes]:
        start, left = part.start, part.length
        while left and (data := await self._run(os.pread, file, min(left, COPY), start)):
            start, left = start + len(data), left - len(data)
            yield data

    async def _open(self, path: Path, part: ByteRange) -> tuple[int, bytes]:
        future = asyncio.get_running_loop().run_in_executor(self._threads, _open, path, part)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await _over(future)
            if not future.cancelled() and future.exception() is None and future.result()[0] >= 0:
                os.close(future.result()[0])
            raise

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread. A cancelled caller first waits until the thread is done with the descriptors, for they will be
        closed and their numbers given to others; no call here waits for a client."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await _over(future)
            raise


async def _over(future: asyncio.Future[T]) -> None:
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue


async def copy(response: web.StreamResponse, chunks: AsyncIterator[bytes], timeout: float) -> None:  # noqa: ASYNC109
    """Write a prepared response's body from memory. Raises ConnectionError when the client stalls for `timeout`."""
    async for chunk in chunks:
        async with stalled(timeout):
            await response.write(chunk)
    async with stalled(timeout):
        await response.write_eof()


class stalled:  # noqa: N801  # reads as what it is: `async with stalled(seconds):`
    """Turns a client that takes no byte for so long into a broken connection."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._timeout.__aexit__(*error)  # type: ignore[arg-type]  # passed on as it came
        except TimeoutError:
            raise ConnectionAbortedError("the client takes no more bytes") from None


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _open(path: Path, part: ByteRange) -> tuple[int, bytes]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    if part.length > SMALL:
        return file, b""
    try:
        return -1, os.pread(file, part.length, part.start)
    finally:
        os.close(file)


def _slice(socket: int, file: int, start: int, count: int) -> tuple[int, bool]:
    """How much was sent, and whether the socket took no more."""
    sent = 0
    while sent < count:
        try:
            moved = os.sendfile(socket, file, start + sent, count - sent)
        except BlockingIOError:
            return sent, True
        if not moved:
            break
        sent += moved
    return sent, False
