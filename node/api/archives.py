"""Files of containers: `docker cp`, diff, export."""

import base64
import json

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call, InvalidQuery
from node.api.parts import Bytes, FilesOfContainers, PathFacts
from node.api.streams import ClientGone, connection_of
from node.containers import clock
from ocispec.errors import SeawallError

STAT_HEADER = "X-Docker-Container-Path-Stat"
TAR = "application/x-tar"


class ArchiveRoutes:
    def __init__(self, files: FilesOfContainers) -> None:
        self._files = files

    async def info(self, call: Call) -> web.StreamResponse:
        stat = await connection_of(call.request).while_here(self._files.stat(call.path["id"], _path(call)))
        response = empty(200)
        response.headers[STAT_HEADER] = _encoded(stat)
        return response

    async def get(self, call: Call) -> web.StreamResponse:
        path = _path(call)

        async def send() -> web.StreamResponse:
            async with self._files.read(call.path["id"], path) as (stat, stream):
                return await send_tar(call.request, stream, {STAT_HEADER: _encoded(stat)})

        return await connection_of(call.request).while_here(send())

    async def put(self, call: Call) -> web.StreamResponse:
        await self._files.write(
            call.path["id"],
            _path(call),
            call.stream(),
            keep_kinds=call.flag("noOverwriteDirNonDir"),
            as_user=call.flag("copyUIDGID"),
        )
        return empty(200)

    async def changes(self, call: Call) -> web.StreamResponse:
        found = await connection_of(call.request).while_here(self._files.changes(call.path["id"]))
        return reply([{"Path": path, "Kind": kind} for kind, path in found] or None)

    async def export(self, call: Call) -> web.StreamResponse:
        async def send() -> web.StreamResponse:
            async with self._files.export(call.path["id"]) as stream:
                return await send_tar(call.request, stream, {}, content_type="application/octet-stream")

        return await connection_of(call.request).while_here(send())


async def send_tar(request: web.Request, stream: Bytes, headers: dict[str, str], *,
                   content_type: str = TAR) -> web.StreamResponse:  # fmt: skip
    """All of a stream. One that fails in the middle ends the connection without the last chunk, so that nobody takes
    the part for the whole."""
    response = web.StreamResponse(headers={**headers, "Content-Type": content_type})
    await response.prepare(request)
    try:
        async for chunk in stream.chunks():
            await response.write(chunk)
        await stream.done()
    except (SeawallError, ConnectionError) as error:
        if request.transport is not None:
            request.transport.abort()
        raise ClientGone("the stream broke off") from error
    await response.write_eof()
    return response


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidQuery("bad parameter: path cannot be empty")
    return path


def _encoded(stat: PathFacts) -> str:
    document = {
        "name": stat.name,
        "size": stat.size,
        "mode": stat.mode,
        "mtime": clock.written(max(0, stat.mtime_ns)),
        "linkTarget": stat.target,
    }
    return base64.b64encode(json.dumps(document).encode(errors="surrogateescape")).decode()
