"""aiohttp's HTTP/1.1 server with our limits."""

import asyncio
import logging
import resource
from time import perf_counter
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from ocispec.errors import InvalidArgument
from registry.api import answers
from registry.api.accesslog import JsonAccessLog
from registry.api.admin.administration import Administration
from registry.api.cors import Cors
from registry.api.edge import Edge
from registry.api.lane import ManifestLane
from registry.api.login import LoginEndpoints
from registry.api.operations import OperationEndpoints
from registry.api.rates import Rates
from registry.api.reached import Reached
from registry.api.refused import Refused
from registry.api.requests import HEADER, Request, RequestIds, name_of
from registry.api.routes import proxied, routes
from registry.auth.identity import Identity
from registry.notifications.audit import Refusals
from registry.proxy.service import PullThrough
from registry.settings import Settings
from registry.telemetry.requests import RequestMeter
from registry.telemetry.worker import Telemetry
from storage.repository.store import ContentStore

log = logging.getLogger(__name__)
access = logging.getLogger("registry.access")

SERVER_FAULTS = 500

READ_BUFFER = 256 * 1024
"""Bytes of a request body that wait in memory before the client is held back (twice as many at most)."""

LINGER = 5.0
"""Seconds for which the rest of a refused body is read and dropped, so that the client sees the answer at all."""


RESERVED = 512
"""Descriptors that connections leave to files, the database and upstreams."""

FULL = (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

FLUSH = 1.0
"""Seconds to write the last answers, and for what still runs to end once it is cancelled."""


class Connection(RequestHandler):
    """One connection. What is no HTTP is answered like every other failure: in JSON, and without telling the version
    of the software or repeating what came."""

    __slots__ = ("_meter",)

    def __init__(self, manager: "Server", meter: RequestMeter, **options: Any) -> None:
        super().__init__(manager, **options)
        self._meter = meter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._meter.connections.add()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._meter.connections.add(-1)

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:
        """aiohttp's only place after the last byte: of every request, also of one whose client went."""
        if isinstance(request, Request):
            seconds = perf_counter() - request.began
            self._meter.done(request.endpoint, request.method, response.status, seconds, request.writer.output_size)
            if request.received:
                self._meter.received(request.endpoint, request.received)
        if self._logging_enabled:
            super().log_access(request, response, time)

    @property
    def idle(self) -> bool:
        return self._current_request is None and not self._messages

    def handle_error(self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None,
                     message: str | None = None) -> web.StreamResponse:  # noqa: ARG002  # aiohttp's signature
        if request.writer.output_size:
            raise ConnectionAbortedError("failed in the middle of an answer")
        if status >= SERVER_FAULTS:
            log.error("unanswered failure", exc_info=exc)
            response = answers.fault(name_of(request))
        else:
            response = answers.failure(InvalidArgument("this is not a well-formed HTTP/1.1 request"))
        response.force_close()
        return response


class Server(web.Server):
    def __init__(self, edge: Edge, cors: Cors, most: int, meter: RequestMeter, **options: Any) -> None:
        super().__init__(edge, request_factory=self._request, **options)
        self._edge = edge
        self._cors = cors
        self._most = most
        self._open = 0
        self._meter = meter
        self._options = options
        self._running = asyncio.get_running_loop()
        self._ids = RequestIds()

    def __call__(self) -> RequestHandler:
        return Connection(self, self._meter, loop=asyncio.get_running_loop(), **self._options)

    def _request(self, message: RawRequestMessage, payload: StreamReader, protocol: RequestHandler,
                 writer: AbstractStreamWriter, task: asyncio.Task[None]) -> Request:
        request = Request(message, payload, protocol, writer, task, self._running)
        request.began = perf_counter()
        request.name = self._ids.name(message.headers.get(HEADER))
        request.cors = self._cors
        return request

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Beyond what may be open at once a connection is told so and closed: with no descriptor left, those that are
        open could not be served either."""
        super().connection_made(handler, transport)
        self._open += 1
        if self._open > self._most:
            transport.write(FULL)
            transport.close()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open -= 1

    def pre_shutdown(self) -> None:
        """Ends the idle connections alone. aiohttp's own would also stop listening to the others: an upload would hang
        until it is cancelled, where it could have finished."""
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.idle:
                connection.close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # aiohttp's signature
        await self._edge.close(LINGER if timeout is None else timeout)
        await super().shutdown(FLUSH)


def make_server(content: ContentStore, identity: Identity, administration: Administration, settings: Settings,
                proxy: PullThrough, telemetry: Telemetry, operations: OperationEndpoints,
                refusals: Refusals) -> web.Server:
    """For one event loop; it must be running."""
    limits = settings.limits
    reached, rates = Reached(settings.proxies), Rates(settings.rate)
    asked = identity.access
    lane = ManifestLane(content.manifests, content.pulls, asked, reached, rates,
                        proxy.upstreams.covers if proxy.upstreams else None)
    login = LoginEndpoints(identity.login, identity.sessions, reached, settings.oidc.session_lifetime)
    edge = Edge(routes(content, administration, settings, operations, identity.tokens, login),
                proxied(content, settings, proxy), lane, asked, reached, rates, telemetry,
                Refused(refusals, telemetry.meter), limits.send_timeout, content.look)
    return Server(
        edge,
        Cors(settings.origins),
        limits.connections or max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED, RESERVED),
        telemetry.meter,
        keepalive_timeout=limits.idle_timeout,
        read_bufsize=READ_BUFFER,
        lingering_time=LINGER,
        auto_decompress=False,  # bytes are stored as they came; and nobody unpacks a bomb here
        access_log=access if settings.log.access else None,
        access_log_class=JsonAccessLog,
    )
