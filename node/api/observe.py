"""Containers while they run: wait, logs, attach, resize, top."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call, InvalidQuery
from node.api.detach import DetachKeys
from node.api.dispatch import common_headers
from node.api.parts import Attached, Catalogue, Observation
from node.api.streams import ClientGone, RawStream, connection_of, shovel, take_over
from node.api.types.units import parse_time
from node.api.version import ApiVersion
from node.containers.model import Container, LogQuery
from ocispec.errors import InvalidArgument

RAW, MULTIPLEXED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
NAMES_STREAMS = ApiVersion(1, 42)
KNOWS_CONDITIONS = ApiVersion(1, 30)
FIRST_CHUNK_SECONDS = 0.05


class ObserveRoutes:
    def __init__(self, catalogue: Catalogue, observation: Observation) -> None:
        self._catalogue = catalogue
        self._observation = observation

    async def wait(self, call: Call) -> web.StreamResponse:
        """The headers are sent once nothing can be missed any more: `docker run` starts the container then."""
        condition = call.text("condition") if call.version >= KNOWS_CONDITIONS else ""
        future = await self._observation.wait(call.path["id"], condition or "not-running")
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(call.request)
            await response.write(b"")
            result = await connection_of(call.request).while_here(future)
        finally:
            future.cancel()
        document = {"StatusCode": result.status_code}
        error = {"Error": {"Message": result.error}} if result.error else {}
        await response.write_eof(json.dumps({**error, **document}).encode() + b"\n")
        return response

    async def logs(self, call: Call) -> web.StreamResponse:
        container = await self._catalogue.get(call.path["id"])
        chunks = self._observation.logs(container.id, _log_query(call))
        response = web.StreamResponse(headers={"Content-Type": stream_type(call.version, tty=container.spec.tty)})
        async with aclosing(cast("AsyncGenerator[bytes, None]", chunks)):
            # A log that cannot be read fails here, before the status is sent; a quiet one does not hold it back.
            first = asyncio.ensure_future(anext(chunks, b""))
            await asyncio.wait({first}, timeout=FIRST_CHUNK_SECONDS)
            if first.done():
                first.result()
            await response.prepare(call.request)
            await connection_of(call.request).while_here(_send_log(response, first, chunks))
        await response.write_eof()
        return response

    async def attach(self, call: Call) -> web.StreamResponse:
        container = await self._catalogue.get(call.path["id"])
        tty = container.spec.tty
        keys = DetachKeys.parse(call.text("detachKeys"))
        wanted = {name: call.flag(name) for name in ("stdin", "stdout", "stderr")}
        live = call.flag("stream")
        place = await self._observation.attach(container.id, **wanted) if live else None
        raw, taken = take_over(call.request, stream_type(call.version, tty=tty), common_headers())
        try:
            if call.flag("logs"):
                await self._replay(raw, container, wanted["stdout"], wanted["stderr"])
            if place is not None:
                detached = await self._carry(raw, place, keys if tty and wanted["stdin"] else None)
                if detached:
                    self._observation.detached(container.id)
        except ClientGone:
            pass
        finally:
            if place is not None:
                place.cancel()
            raw.close()
        return taken

    async def _replay(self, raw: RawStream, container: Container, stdout: bool, stderr: bool) -> None:
        async for chunk in self._observation.logs(container.id, LogQuery(stdout, stderr)):
            await raw.write(chunk)

    async def _carry(self, raw: RawStream, place: Attached, keys: DetachKeys | None) -> bool:
        """Whether it was left by the detach keys."""
        socket = await raw.while_here(place.open())
        return socket is not None and await shovel(raw, socket, keys)

    async def resize(self, call: Call) -> web.StreamResponse:
        await self._observation.resize(call.path["id"], *window(call))
        return empty(200)

    async def top(self, call: Call) -> web.StreamResponse:
        processes = await self._observation.top(call.path["id"], call.text("ps_args") or "-ef")
        return reply({"Titles": list(processes.titles), "Processes": [list(row) for row in processes.rows]})


async def _send_log(
    response: web.StreamResponse, chunk: "asyncio.Future[bytes]", chunks: AsyncIterator[bytes]
) -> None:
    await response.write(b"")  # the headers
    try:
        while data := await chunk:
            await response.write(data)
            chunk = asyncio.ensure_future(anext(chunks, b""))
    except ConnectionError as error:
        raise ClientGone("the client has gone") from error


def stream_type(version: ApiVersion, *, tty: bool) -> str:
    return MULTIPLEXED if version >= NAMES_STREAMS and not tty else RAW


def window(call: Call) -> tuple[int, int]:
    """Height and width. Raises InvalidQuery."""
    height, width = call.number("h"), call.number("w")
    for name, value in (("h", height), ("w", width)):
        if value is None or not 0 <= value < 65536:
            raise InvalidQuery(f"invalid value for {name}: a number of rows and one of columns are needed")
    return height or 0, width or 0


def _log_query(call: Call) -> LogQuery:
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not stdout and not stderr:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = call.text("tail")
    now = time.time()
    return LogQuery(
        stdout=stdout,
        stderr=stderr,
        follow=call.flag("follow"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        # Docker takes what is no number, and a negative one, for "all".
        tail=int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 12 else None,
        since=parse_time(call.text("since"), now),
        until=parse_time(call.text("until"), now),
    )
