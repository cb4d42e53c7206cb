"""`GET /containers/{id}/stats`: one look, or one a second for as long as somebody listens."""

import asyncio
import json
import time

from aiohttp import web

from node.api.answers import reply
from node.api.call import Call, InvalidQuery
from node.api.parts import Measured
from node.api.streams import ClientGone, connection_of
from node.api.types.stats import usage
from node.api.version import ApiVersion
from node.containers.errors import NoSuchContainer
from node.containers.usage import Look

INTERVAL = 1.0


class StatsRoutes:
    def __init__(self, containers: Measured) -> None:
        self._containers = containers

    async def stats(self, call: Call) -> web.StreamResponse:
        stream, one_shot = call.flag("stream", default=True), call.flag("one-shot")
        if stream and one_shot:
            raise InvalidQuery("cannot have stream=true and one-shot=true")
        container, now = await self._containers.usage(call.path["id"])
        if stream:
            return await self._stream(call, container.id)
        before = None
        if now is not None and not one_shot:
            # Docker waits for a second look, so that a client can tell the processor time between the two.
            before = now
            await connection_of(call.request).while_here(asyncio.sleep(INTERVAL))
            container, now = await self._containers.usage(container.id)
        return reply(usage(container, now, before if now else None, call.version))

    async def _stream(self, call: Call, container_id: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(call.request)
        await connection_of(call.request).while_here(self._send(response, container_id, call.version))
        await response.write_eof()
        return response

    async def _send(self, response: web.StreamResponse, container_id: str, version: ApiVersion) -> None:
        """Until the container is removed. While nothing runs the looks are empty, as in Docker."""
        before: Look | None = None
        due = time.monotonic()
        try:
            container, now = await self._containers.usage(container_id)
            while True:
                document = usage(container, now, before if now else None, version)
                await response.write(json.dumps(document).encode() + b"\n")
                due = max(due + INTERVAL, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
                before = now
                container, now = await self._containers.usage(container_id)
        except NoSuchContainer:
            return
        except ConnectionError as error:
            raise ClientGone("the client has gone") from error
