"""Requests with a name: what an answer, a log line, an event and a trace say of one request."""

import re
import secrets
from itertools import count
from typing import Final

from aiohttp import web
from multidict import istr

from registry.api.cors import Cors
from storage.events import Origin

HEADER: Final = istr("X-Request-Id")  # ready for look-ups whatever the case

_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}\Z")
"""What a client or a proxy may call its request. Anything else, which might break a log or a header, is ignored."""


class RequestIds:
    """Names for requests that came without: of this process and the request's number in it. No secret."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    def name(self, given: str | None) -> str:
        if given is not None and _SANE.match(given):
            return given
        return f"{self._prefix}-{next(self._numbers):x}"


class Request(web.BaseRequest):
    """A request that has its name, and writes it into its answer, whoever makes that, with what lets a page of another
    origin read the answer. `endpoint`, `actor` and `trace` are filled in as they become known: for numbers and log
    lines, never for a decision."""

    # Of the class, and no constructor of its own: what most requests never change costs them nothing (4 of the 70 µs
    # that the fast lane takes for one).
    endpoint = "other"
    actor = ""
    trace = ""
    received = 0
    began = 0.0
    name = ""
    cors: Cors | None = None

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # aiohttp's only place between "the headers are complete" and "they are sent".
        response.headers[HEADER] = self.name
        if self.cors is not None:
            response.headers.update(self.cors.headers(self))


def arrived(request: web.BaseRequest, size: int) -> None:
    """So many bytes of its body."""
    if isinstance(request, Request):
        request.received += size


def label_of(request: web.BaseRequest) -> str:
    """Its endpoint, as far as it was known."""
    return request.endpoint if isinstance(request, Request) else "other"


def path_of(request: web.BaseRequest, longest: int) -> str:
    """For logs. What a login provider sends a browser back with (`code`) is a secret until it is redeemed."""
    path, mark, query = request.raw_path.partition("?")
    return (path if path.endswith("/login/callback") else f"{path}{mark}{query}")[:longest]


def name_of(request: web.BaseRequest) -> str:
    """Empty for what never was a request of ours (aiohttp makes one for bytes that are no HTTP)."""
    return request.name if isinstance(request, Request) else ""


def origin(request: web.BaseRequest, actor: str, remote: str) -> Origin:
    return Origin.of(actor=actor, request_id=name_of(request), remote=remote,
                     agent=request.headers.get("User-Agent", ""), method=request.method,
                     host=request.headers.get("Host", ""))
