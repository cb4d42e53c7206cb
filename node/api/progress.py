"""A pull or push as the stream of JSON lines that clients draw bars from."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from logging import getLogger
from typing import Any

from aiohttp import web

from node.api.streams import ClientGone, connection_of
from node.build.values import StepFailed
from ocispec.errors import SeawallError

log = getLogger(__name__)

BACKLOG = 4096
"""Lines kept for a slow client; beyond it byte counts are dropped, never changes of a status."""

_BAR = 50


class Lines:
    """node.images.progress.Progress: what is reported becomes lines, waited for by `take`."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._taken = asyncio.Event()

    def status(self, text: str, id: str = "") -> None:  # noqa: A002 - the wire's own name
        self._add({"status": text, "id": id} if id else {"status": text})

    def layer(self, id: str, status: str, current: int = 0, total: int = 0) -> None:  # noqa: A002
        """The detail, even empty, is what makes a client keep this line in place and rewrite it."""
        if total and len(self._lines) > BACKLOG:
            return
        detail = {"current": current, "total": total} if total else {}
        line = {"status": status, "progressDetail": detail, "id": id}
        if total:
            line["progress"] = bar(current, total)
        self._add(line)

    def aux(self, value: Mapping[str, Any]) -> None:
        self._add({"progressDetail": {}, "aux": dict(value)})

    def stream(self, text: str) -> None:
        """A line that is printed as it is."""
        self._add({"stream": text})

    def error(self, text: str, code: int = 0) -> None:
        """`code`: of a build's command that failed."""
        detail = {"code": code, "message": text} if code else {"message": text}
        self._add({"errorDetail": detail, "error": text})

    @property
    def waiting(self) -> bool:
        return bool(self._lines)

    async def wait(self) -> None:
        await self._news.wait()

    def take(self) -> bytes:
        data = b"".join(self._lines)
        self._lines.clear()
        self._news.clear()
        self._taken.set()
        return data

    async def ready(self) -> None:
        """Until the client has taken what waits for it, when that is much."""
        while len(self._lines) > BACKLOG:
            self._taken.clear()
            await self._taken.wait()

    def _add(self, line: Mapping[str, Any]) -> None:
        self._lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\r\n")
        self._news.set()


async def stream(request: web.Request, work: Callable[[Lines], Awaitable[object]]) -> web.StreamResponse:
    """Run `work` and send what it reports. A failure before its first line is raised, so that it gets its own status;
    a later one becomes the last line. The work is cancelled when the client goes, as Docker does."""
    lines = Lines()
    task = asyncio.ensure_future(work(lines))
    try:
        await connection_of(request).while_here(_first_news(lines, task))
        if task.done() and not lines.waiting:
            task.result()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while not task.done():
            await _send(response, lines)
            await connection_of(request).while_here(_first_news(lines, task))
        _end(task, lines)
        await _send(response, lines)
        await response.write_eof()
        return response
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _first_news(lines: Lines, task: "asyncio.Future[object]") -> None:
    news = asyncio.ensure_future(lines.wait())
    both: set[asyncio.Future[Any]] = {news, task}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        news.cancel()


async def _send(response: web.StreamResponse, lines: Lines) -> None:
    data = lines.take()
    if data:
        try:
            await response.write(data)
        except ConnectionError as error:
            raise ClientGone("the client has gone") from error


def _end(task: "asyncio.Future[object]", lines: Lines) -> None:
    try:
        task.result()
    except SeawallError as error:
        lines.error(error.message, error.code if isinstance(error, StepFailed) else 0)
    except Exception:
        # The status has been sent: the last line is the only place left to say it.
        log.exception("a transfer failed")
        lines.error("internal error, see the daemon's log")


def bar(current: int, total: int) -> str:
    """The text form, for clients that draw no bar of their own."""
    filled = min(current * 100 // total, 100) // 2
    space = " " * (_BAR - filled)
    return f"[{'=' * filled}>{space}] {human_size(current):>8}/{human_size(total)}"


def human_size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.4g}{unit}"
        size /= 1000
    return f"{size:.4g}PB"
