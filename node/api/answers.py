"""Plain answers."""

import json
from typing import Any

from aiohttp import web


def reply(value: Any, status: int = 200) -> web.Response:
    """As Docker does it: the document and a newline."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


def empty(status: int = 204) -> web.Response:
    return web.Response(status=status)
