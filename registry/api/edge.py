"""The outermost layer: finds the operation, identifies the caller, and turns every failure into an answer.

This is aiohttp's low-level handler. Its Application is not used: a path's meaning is read from its end (see `paths`),
which its router cannot, and what it adds to each request costs as much as answering a manifest from memory.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from ocispec.errors import SeawallError, Unauthenticated
from registry.api import answers
from registry.api.call import Call
from registry.api.lane import ManifestLane
from registry.api.login import SESSION
from registry.api.paths import Endpoint, parse
from registry.api.proxied import ProxiedEndpoints
from registry.api.rates import Rates
from registry.api.reached import Reached
from registry.api.refused import Refused
from registry.api.requests import Request, label_of, name_of, path_of
from registry.api.routes import Routes
from registry.api.sendfile import stalled
from registry.auth import certificates
from registry.auth.policy import Access
from registry.auth.principal import ANONYMOUS, Presented
from registry.errors import MethodNotAllowed, NoSuchEndpoint, answer_for
from registry.telemetry.families import CLIENT_GONE
from registry.telemetry.logs import Context, current
from registry.telemetry.worker import Telemetry

log = logging.getLogger(__name__)

SERVER_FAULTS = 500
UNIDENTIFIED = frozenset({Endpoint.HEALTH, Endpoint.LIVE, Endpoint.READY, Endpoint.METRICS, Endpoint.TOKEN,
                          Endpoint.LOGIN, Endpoint.CALLBACK, Endpoint.LOGOUT})
"""Asked by machines without an account; what they show as `Authorization` is not for `auth` to judge. The
token server asks in its own way."""

BROWSED = frozenset({Endpoint.ADMIN})
"""Where the cookie of a browser's session says who it is."""

LARGE = 64 * 1024
"""Bytes of a body that may wait in a transport's buffer without anybody waiting for it."""


UNCOUNTED = frozenset({Endpoint.HEALTH, Endpoint.LIVE, Endpoint.READY, Endpoint.METRICS})
"""What load balancers and monitors ask, whatever the rate of others."""


class Edge:
    """`send_timeout`: seconds a client may take no byte of an answer. `look` is awaited before a request is answered:
    from then on memory knows all that was committed before the request came (`storage.metadata.changes`)."""

    def __init__(self, routes: Routes, proxied: ProxiedEndpoints | None, lane: ManifestLane, access: Access,
                 reached: Reached, rates: Rates, telemetry: Telemetry, refused: Refused, send_timeout: float,
                 look: Callable[[], Awaitable[None]]) -> None:
        self._routes = routes
        self._proxied = proxied
        self._lane = lane
        self._access = access
        self._reached = reached
        self._rates = rates
        self._meter = telemetry.meter
        self._refused = refused
        self._tracing = telemetry.tracing
        self._timeout = send_timeout
        self._look = look
        self._running = 0
        self._none_runs = asyncio.Event()
        self._closing = False

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self._running += 1
        try:
            await self._look()
            if request.method in ("GET", "HEAD") and not self._closing:
                prepared = self._lane.answer(request)
                if prepared is not None:
                    return prepared
            self._meter.running.add()
            try:
                return await self._named(request)
            finally:
                self._meter.running.add(-1)
        finally:
            self._running -= 1
            if not self._running:
                self._none_runs.set()

    async def _named(self, request: web.BaseRequest) -> web.StreamResponse:
        """With what its log lines and its trace are found by. aiohttp runs each request in a task of its own."""
        name = name_of(request)
        if not self._tracing.on:
            current.set(Context(name))
            return await self._whole(request)
        with self._tracing.request(request.method, request.headers, {"http.request.method": request.method,
                                                                     "seawall.request": name}) as span:
            current.set(Context(name, span.trace))
            if isinstance(request, Request):
                request.trace = span.trace
            response = await self._whole(request)
            span.answered(label_of(request), response.status)
            return response

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109
        """From now on every answer is its connection's last; returns when no request runs or `timeout` is over."""
        self._closing = True
        self._none_runs.clear()
        if self._running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._none_runs.wait()

    async def _whole(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._answer(request)
            if self._closing:
                response.force_close()
            if isinstance(response, web.Response) and isinstance(response.body, bytes) and len(response.body) > LARGE:
                async with stalled(self._timeout):
                    await response.prepare(request)
                    await response.write_eof()
        except ConnectionError:
            _cut(request)
            return Gone()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._operate(request)
        except SeawallError as error:
            self._refused.note(request, self._reached.remote(request), error)
            answer = answer_for(error)
            if answer.status >= SERVER_FAULTS:
                log.warning("%s %s: %s", request.method, path_of(request, 300), error.message)
            response = answers.failure(error, self._challenge(error, request))
        except Exception as error:
            if isinstance(error, ConnectionError) and (request.transport is None or request.writer.output_size):
                raise  # this client's connection; any other is one of ours, to a database for instance
            log.exception("%s %s", request.method, path_of(request, 300))
            response = answers.fault(name_of(request))
        if request.writer.output_size:
            raise ConnectionAbortedError("failed in the middle of an answer")
        if request.headers.get("Expect"):
            response.force_close()  # whether the client now sends the body or not, only it knows
        return response

    async def _operate(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.raw_path
        # A proxy may send the absolute form (RFC 9112 section 3.2.2).
        target = parse(raw.partition("?")[0] if raw.startswith("/") else request.rel_url.raw_path)
        remote = self._reached.remote(request)
        if target is None or target.endpoint not in UNCOUNTED:
            self._rates.address(remote)
        if target is None:
            raise NoSuchEndpoint("there is nothing at this path")
        target, others = self._proxied.choose(target, request) if self._proxied is not None else (target, None)
        methods = others or self._routes[target.endpoint]
        if isinstance(request, Request):
            request.endpoint = target.endpoint.label
        # Without identity: browsers ask so before they send any.
        if request.method == "OPTIONS" and "OPTIONS" not in methods:
            return answers.empty(204, {"Allow": ", ".join([*methods, "OPTIONS"])})
        handler = methods.get(request.method)
        if handler is None:
            raise MethodNotAllowed(request.method, tuple(methods))
        presented = _presented(request, target.endpoint, remote)
        principal = ANONYMOUS if target.endpoint in UNIDENTIFIED else await self._access.identify(presented)
        self._rates.principal(principal.name)
        if isinstance(request, Request):
            request.actor = principal.name
        return await handler(Call(request, target, principal, self._access, presented))

    def _challenge(self, error: SeawallError, request: web.BaseRequest) -> dict[str, str]:
        if not isinstance(error, Unauthenticated):
            return {}
        return answers.challenge(self._access.challenge(error, self._reached.base(request)))


def _presented(request: web.BaseRequest, endpoint: Endpoint, remote: str) -> Presented:
    """A browser's session is looked at where browsers go: nothing that another site makes a browser send reaches
    content by it."""
    transport = request.transport
    connection = transport.get_extra_info("ssl_object") if transport is not None else None
    session = request.cookies.get(SESSION) if endpoint in BROWSED else None
    return Presented(request.headers.get("Authorization"), certificates.shown(connection), session, remote)


class Gone(web.StreamResponse):
    """For a client that no answer reaches; aiohttp takes the exception, from here, for what it is."""

    def __init__(self) -> None:
        super().__init__(status=int(CLIENT_GONE))

    async def prepare(self, request: web.BaseRequest) -> None:  # noqa: ARG002
        raise ConnectionResetError("client went")


def _cut(request: web.BaseRequest) -> None:
    """Drop the connection with what it still holds: its other end is gone, stalled, or was promised more bytes than
    come, and a clean close would look like the end of a complete answer."""
    if request.transport is not None:
        request.transport.abort()
