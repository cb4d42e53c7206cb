"""`/v2/<name>/blobs/<digest>`: GET, HEAD, DELETE."""

from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.api import ranges
from registry.api.answers import COMMON, empty
from registry.api.call import Call
from registry.api.ranges import ByteRange
from registry.api.sendfile import FileSender, copy
from registry.auth.policy import Action
from storage.blobs.store import BytesMissing
from storage.errors import BlobUnknown
from storage.metadata.blobs import BlobInfo
from storage.repository.blobs import RepositoryBlobs

OCTETS = "application/octet-stream"
NO_MORE: Mapping[str, str] = {}


class BlobEndpoints:
    """`send_timeout`: seconds a client may take no byte."""

    def __init__(self, blobs: RepositoryBlobs, sender: FileSender, send_timeout: float) -> None:
        self._blobs = blobs
        self._sender = sender
        self._timeout = send_timeout

    async def head(self, call: Call, more: Mapping[str, str] = NO_MORE) -> web.StreamResponse:
        """`more`: headers that the answer is to carry beside its own."""
        info = await self._blobs.stat(call.repository(Action.PULL), call.digest)
        headers = {**describe_blob(info.digest), **more}
        if _holds(call, headers["ETag"]):
            return empty(304, headers)
        return empty(200, {**headers, "Content-Type": OCTETS, "Content-Length": str(info.size)})

    async def get(self, call: Call, more: Mapping[str, str] = NO_MORE) -> web.StreamResponse:
        info = await self._blobs.stat(call.repository(Action.PULL), call.digest)
        headers = {**describe_blob(info.digest), **more}
        if _holds(call, headers["ETag"]):
            return empty(304, headers)
        part = self._part(call, headers["ETag"], info.size)
        elsewhere = await self._blobs.redirect(info, OCTETS)
        if elsewhere is not None:
            # Not to be cached: the address expires. The client repeats its Range there.
            return empty(307, {**headers, "Cache-Control": "no-store", "Location": elsewhere})
        status = 200
        if part is not None:
            status = 206
            headers["Content-Range"] = f"bytes {part.start}-{part.end}/{info.size}"
        head = web.Response(status=status, headers={**COMMON, **headers, "Content-Type": OCTETS})
        return await self._send(call, head, info, part or ByteRange(0, info.size))

    async def delete(self, call: Call) -> web.StreamResponse:
        await self._blobs.delete(call.repository(Action.DELETE), call.digest, origin=call.origin)
        return empty(202)

    def _part(self, call: Call, etag: str, size: int) -> ByteRange | None:
        condition = call.request.headers.get("If-Range")
        if condition is not None and condition.strip() != etag:
            return None  # of another content than the client has a part of: it wants all (RFC 9110 section 13.1.5)
        return ranges.wanted(call.request.headers.get("Range"), size)

    async def _send(self, call: Call, head: web.Response, info: BlobInfo, part: ByteRange) -> web.StreamResponse:
        path = self._blobs.local_path(info)
        if path is not None:
            try:
                return await self._sender.respond(call.request, head, path, part)
            except FileNotFoundError:
                raise BlobUnknown(info.digest) from None  # collected since it was looked up
        return await self._stream(call, head, info, part)

    async def _stream(self, call: Call, head: web.Response, info: BlobInfo, part: ByteRange) -> web.StreamResponse:
        chunks = self._blobs.read(info, part.start, part.length)
        try:
            first = await anext(chunks, b"")  # before the head goes out: until then a failure can be told
        except BytesMissing:
            raise BlobUnknown(info.digest) from None
        response = web.StreamResponse(status=head.status, headers=head.headers)
        response.content_length = part.length
        await response.prepare(call.request)
        await copy(response, _counted(first, chunks, part.length), self._timeout)
        return response


async def _counted(first: bytes, rest: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    """All chunks. Raises ConnectionAbortedError when they are not as long as was promised to the client: an early end
    must look like one."""
    if first:
        yield first
    left = length - len(first)
    async for chunk in rest:
        left -= len(chunk)
        yield chunk
    if left:
        raise ConnectionAbortedError("the stored bytes are fewer than their row says")


def location(repo: RepositoryName, digest: Digest) -> str:
    return f"/v2/{repo}/blobs/{digest}"


def describe_blob(digest: Digest) -> dict[str, str]:
    return {
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
    }


def _holds(call: Call, etag: str) -> bool:
    """Whether the client has it already."""
    return is_among(etag, call.request.headers.get("If-None-Match"))


def is_among(etag: str, header: str | None) -> bool:
    """Whether an `If-None-Match` header names the tag (weak comparison, RFC 9110 section 13.1.2)."""
    if header is None:
        return False
    return any(item.strip().removeprefix("W/") in ("*", etag) for item in header.split(","))
