"""One JSON object for each request, when the setting asks for it."""

import json
from datetime import UTC, datetime
from logging import INFO

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from registry.api.requests import name_of

LONGEST = 500


class JsonAccessLog(AbstractAccessLogger):
    @property
    def enabled(self) -> bool:
        return self.logger.isEnabledFor(INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """`time` is the request's duration in seconds."""
        self.logger.info("%s", json.dumps({
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": name_of(request),
            "remote": request.remote,
            "method": request.method,
            "path": request.raw_path[:LONGEST],
            "status": response.status,
            "bytes": response.body_length,
            "seconds": round(time, 6),
            "agent": request.headers.get("User-Agent", "")[:LONGEST],
        }))
