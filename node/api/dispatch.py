"""A request's way: version, route, handler, and an error's way back. Nothing else knows HTTP statuses."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger

from aiohttp import web

from node.access.callers import Caller, by_certificate, local
from node.access.rules import NotAllowed
from node.api.answers import reply
from node.api.call import BodyTooLarge, Call
from node.api.guard.guard import Guard
from node.api.streams import ClientGone, Taken, connection_of
from node.api.version import NEWEST, split_version
from ocispec import errors
from ocispec.errors import SeawallError

log = getLogger(__name__)

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

STATUSES: Sequence[tuple[type[SeawallError], int]] = (
    (BodyTooLarge, 413),
    (errors.NotFound, 404),
    (errors.AlreadyExists, 409),
    (errors.FailedPrecondition, 409),
    (errors.InvalidArgument, 400),
    (errors.OutOfRange, 400),
    (errors.Unauthenticated, 401),
    (errors.PermissionDenied, 403),
    (errors.Unavailable, 503),
    (errors.Unimplemented, 501),
    (errors.ResourceExhausted, 500),
)
"""In the order they are tried. What is of no kind here is a failure of ours: 500."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the Engine API. `handler` is None for what Seawall does not do yet."""

    method: str
    path: str
    """`{id}` stands for one segment, `{name...}` for as many as there are (image names hold slashes)."""

    operation: str
    """Docker's operationId."""

    handler: Handler | None = None


class Dispatcher:
    """Finds a request's route. Fixed paths are looked up, the others matched in the order of the table."""

    def __init__(
        self, routes: Sequence[Route], guard: Guard, inside: Callable[[int], int] = lambda uid: uid
    ) -> None:
        """`inside`: the id that a container sees in place of one of the host's."""
        self._guard = guard
        self._inside = inside
        self._fixed = {(route.method, route.path): route for route in routes if "{" not in route.path}
        self._variable: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "{" in route.path:
                self._variable.setdefault(route.method, []).append((_pattern(route.path), route))

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        if (method, path) in self._fixed:
            return self._fixed[method, path], {}
        for pattern, route in self._variable.get(method, ()):
            if match := pattern.fullmatch(path):
                return route, match.groupdict()
        return None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ClientGone:
            return Taken(499)
        except SeawallError as error:
            return failure(error)
        except web.HTTPException as error:
            return message(error.status, error.text or error.reason)
        except Exception as error:
            if isinstance(error, ConnectionError) and request.transport is None:
                return Taken(499)  # gone in the middle of its body
            log.exception("%s %s failed", request.method, request.path)
            return message(500, "internal error, see the daemon's log")
        finally:
            connection_of(request).release()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        version, path = split_version(request.path)
        found = self.find(request.method, path)
        if found is None:
            return message(404, "page not found")
        route, variables = found
        if route.handler is None:
            raise errors.Unimplemented(f"{route.operation} ({route.method} {route.path}) is not supported yet")
        call = Call(request, version, variables)
        if not self._guard.idle:
            call = await self._guard.admit(_caller(request, self._inside), route.operation, call)
        return await route.handler(call)


def _caller(request: web.Request, inside: Callable[[int], int]) -> Caller:
    """Raises NotAllowed."""
    transport = request.transport
    if transport is None:
        raise ClientGone("the client has gone")
    if (certificate := transport.get_extra_info("peercert")) is not None:
        return by_certificate(certificate)
    try:
        return local(transport.get_extra_info("socket"), inside)
    except OSError as error:
        raise NotAllowed(f"the kernel does not say who asks: {error.strerror}") from error


def status_of(error: SeawallError) -> int:
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def failure(error: SeawallError) -> web.Response:
    return message(status_of(error), error.message)


def message(status: int, text: str) -> web.Response:
    return reply({"message": text}, status)


def common_headers() -> dict[str, str]:
    """What every answer carries, as Docker's does."""
    return {
        "Api-Version": str(NEWEST),
        "Docker-Experimental": "false",
        "Ostype": "linux",
        "Server": "Seawall (linux)",
    }


def _pattern(path: str) -> re.Pattern[str]:
    text = re.sub(r"\{(\w+)\.\.\.\}", r"(?P<\1>.+)", path)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text))
