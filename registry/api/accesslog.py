"""One JSON object for each request, when the setting asks for it."""

import json
from datetime import UTC, datetime
from logging import INFO

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from registry.api.requests import Request, path_of

LONGEST = 500


class JsonAccessLog(AbstractAccessLogger):
    @property
    def enabled(self) -> bool:
        return self.logger.isEnabledFor(INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """`time` is the request's duration in seconds."""
        ours = request if isinstance(request, Request) else None
        self.logger.info("%s", json.dumps({
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": ours.name if ours else "",
            "trace": ours.trace if ours else "",
            "actor": ours.actor if ours else "",
            "endpoint": ours.endpoint if ours else "other",
            "remote": request.remote,
            "forwarded": request.headers.get("X-Forwarded-For", "")[:LONGEST],
            "method": request.method,
            "path": path_of(request, LONGEST),
            "status": response.status,
            "bytes": response.body_length,
            "received": ours.received if ours else 0,
            "seconds": round(time, 6),
            "agent": request.headers.get("User-Agent", "")[:LONGEST],
        }))
