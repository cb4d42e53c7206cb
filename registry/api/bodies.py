"""Reading request bodies: bounded in size where that is asked for, and in the time a client may pause, always."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from registry.api import requests
from registry.errors import BodyBroken, BodySlow, BodyTooLarge, ExpectationFailed

SLOWEST = 16 * 1024
"""Bytes a second. What is held in memory until it is whole must come at least so fast."""


class Bodies:
    """`receive_timeout`: seconds a client may send nothing in the middle of a body."""

    def __init__(self, receive_timeout: float) -> None:
        self._timeout = receive_timeout

    async def whole(self, request: web.BaseRequest, limit: int) -> bytes:
        """The body in memory. Raises BodyTooLarge as soon as that is known, BodySlow also when a body that never pauses
        comes slower than SLOWEST, and what `chunks` raises."""
        held = bytearray()  # no list of chunks: a body that comes byte by byte would cost an object for each
        patience = self._timeout + limit / SLOWEST
        try:
            async with asyncio.timeout(patience):
                async for chunk in self.chunks(request, limit):
                    held += chunk
        except TimeoutError:
            raise BodySlow(patience) from None
        return bytes(held)

    async def chunks(self, request: web.BaseRequest, limit: int | None) -> AsyncIterator[bytes]:
        """The body as it comes. Raises BodyTooLarge, BodySlow, BodyBroken, ConnectionError when the client went."""
        announced = request.content_length
        if limit is not None and announced is not None and announced > limit:
            raise BodyTooLarge(limit)
        _go_on(request)
        arrived = 0
        gone: ConnectionError | None = None
        while gone is None:
            try:
                chunk = await self._next(request)
            except ConnectionError as error:
                gone = error
                # What came before the client went waits in the reader, which no longer gives it out by a public way.
                chunk = request.content._read_nowait(-1)  # noqa: SLF001
            arrived += len(chunk)
            requests.arrived(request, len(chunk))
            if limit is not None and arrived > limit:
                raise BodyTooLarge(limit)
            if chunk:
                yield chunk
            elif gone is None:
                return
        raise gone

    async def _next(self, request: web.BaseRequest) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                if request.content_length is None:
                    return await request.content.readany()
                # As it came from the socket: `readany` would join it with what came after, a copy of every byte. A
                # body in transfer chunks is another matter: `readchunk` would give those, which may be tiny.
                return (await request.content.readchunk())[0]
        except TimeoutError:
            raise BodySlow(self._timeout) from None
        except RequestPayloadError as error:
            raise BodyBroken(f"the request body cannot be read: {error}") from error


def _go_on(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send the body. Only now: a request that was refused before costs no transfer
    (RFC 9110 section 10.1.1)."""
    expectation = request.headers.get("Expect")
    if expectation is None:
        return
    if expectation.lower() != "100-continue":
        raise ExpectationFailed(f"unsupported expectation: {expectation[:50]!r}")
    if request.version >= (1, 1) and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
