"""Responses: the headers that all of them carry, JSON documents, and failures in the spec's form."""

import json
import math
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ocispec.errors import SeawallError, Unavailable
from registry.auth.challenge import Challenge
from registry.auth.throttle import TooManyLogins
from registry.errors import INTERNAL, MethodNotAllowed, RangeUnsatisfiable, TooManyRequests, answer_for
from registry.proxy.errors import UpstreamUnavailable

COMMON = {
    "Docker-Distribution-Api-Version": "registry/2.0",
    "X-Content-Type-Options": "nosniff",
    "Server": "Seawall",
}
"""`nosniff`, because blobs are what anybody pushed and a browser must not guess that they are pages."""

JSON = "application/json"
RETRY_AFTER = "1"
MAX_MESSAGE = 1000


def empty(status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, headers={**COMMON, **(headers or {})})


def document(value: Any, *, status: int = 200, content_type: str = JSON,
             headers: Mapping[str, str] | None = None) -> web.Response:
    body = json.dumps(value, separators=(",", ":")).encode()
    return web.Response(status=status, body=body, headers={**COMMON, "Content-Type": content_type, **(headers or {})})


def failure(error: SeawallError, headers: Mapping[str, str] | None = None) -> web.Response:
    """The spec's error document for it."""
    answer = answer_for(error)
    item: dict[str, Any] = {"code": answer.code, "message": error.message[:MAX_MESSAGE]}
    if error.detail is not None:
        item["detail"] = error.detail
    extra = dict(headers or {})
    if isinstance(error, Unavailable):
        extra["Retry-After"] = RETRY_AFTER
    if isinstance(error, TooManyRequests | TooManyLogins):
        extra["Retry-After"] = str(error.seconds)
    if isinstance(error, UpstreamUnavailable) and error.retry_after is not None:
        extra["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, RangeUnsatisfiable):
        extra["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, MethodNotAllowed):
        extra["Allow"] = ", ".join(error.allowed)
    return document({"errors": [item]}, status=answer.status, headers=extra)


def challenge(invitation: Challenge) -> dict[str, str]:
    """The header that tells how to log in. Values are ours or checked by a grammar that has no quotes."""
    parameters = ",".join(f'{name}="{value}"' for name, value in invitation.parameters.items())
    return {"WWW-Authenticate": f"{invitation.scheme} {parameters}"}


def fault(request: str) -> web.Response:
    """For an exception that nobody foresaw: it names nothing of the inside but the request, by which the log has it."""
    item = {"code": INTERNAL.code, "message": INTERNAL.meaning, "detail": {"request": request}}
    return document({"errors": [item]}, status=INTERNAL.status)
