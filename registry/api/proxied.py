"""The same paths for repositories of upstreams: what is held is answered as always, what is not is on its way."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.reference import RepositoryName
from registry.api import pages, ranges
from registry.api.answers import COMMON, document, empty
from registry.api.blobs import OCTETS, BlobEndpoints, describe_blob, is_among
from registry.api.call import Call, Handler
from registry.api.listings import ROOM
from registry.api.manifests import ManifestEndpoints, describe, existing, is_pull
from registry.api.paths import Endpoint, Target
from registry.api.ranges import ByteRange
from registry.api.sendfile import copy
from registry.auth.policy import Action
from registry.proxy.errors import PushRefused
from registry.proxy.filling import Filling
from registry.proxy.service import PullThrough
from registry.proxy.upstreams import Place
from storage.errors import BlobUnknown
from storage.repository.pulls import Pulls

MAX_WARNING = 1000
_UNSAFE = re.compile(r'[^ -~]|["\\]')


class ProxiedEndpoints:
    """`page_size`, `send_timeout`: as everywhere."""

    def __init__(self, proxy: PullThrough, blobs: BlobEndpoints, manifests: ManifestEndpoints, pulls: Pulls,
                 page_size: int, send_timeout: float) -> None:
        self._proxy = proxy
        self._pulls = pulls
        self._blobs = blobs
        self._manifests = manifests
        self._page_size = page_size
        self._timeout = send_timeout
        self._routes = self._made()

    def _made(self) -> Mapping[Endpoint, Mapping[str, Handler]]:
        """DELETE drops what is kept here; it comes back when it is asked for again."""
        refused = dict.fromkeys(("POST", "PUT", "PATCH", "GET", "HEAD", "DELETE"), self.refuse)
        return {
            Endpoint.BLOB: {"GET": self.blob, "HEAD": self.blob_head, "DELETE": self._blobs.delete},
            Endpoint.MANIFEST: {"GET": self.manifest, "HEAD": self.manifest, "PUT": self.refuse,
                                "DELETE": self._manifests.delete},
            Endpoint.UPLOADS: refused,
            Endpoint.UPLOAD: refused,
            Endpoint.TAGS: {"GET": self.tags, "HEAD": self.tags},
            Endpoint.REFERRERS: {"GET": self.referrers, "HEAD": self.referrers},
        }

    def choose(self, target: Target, request: web.BaseRequest) -> tuple[Target, Mapping[str, Handler] | None]:
        """The target by the name that the registry knows the repository by, and what answers it; None: what answers
        our own repositories, which for extensions is the same. Raises InvalidName for an `ns` that is neither ours nor
        an upstream's."""
        if not target.name:
            return target, None
        namespace = request.query.get("ns") if "?" in request.raw_path else None
        name = self._proxy.upstreams.named(target.name, namespace)
        turned = target if name == target.name else replace(target, name=name)
        return turned, self._routes.get(target.endpoint) if self._proxy.upstreams.covers(name) else None

    async def refuse(self, call: Call) -> web.StreamResponse:
        repo = call.repository(Action.PUSH)
        raise PushRefused(repo.value, repo.value.partition("/")[0])

    async def manifest(self, call: Call) -> web.StreamResponse:
        place = self._place(call)
        reference = existing(place.repo, call.target.value)
        served = await self._proxy.manifest(place, reference)
        if is_pull(call.request.method, reference):
            self._pulls.note(place.repo, reference)
        headers = {**describe(served.stored), **_namespace(call), **_warning(served.warning),
                   "Cache-Status": f"Seawall; {served.source.value}"}
        if is_among(headers["ETag"], call.request.headers.get("If-None-Match")):
            return empty(304, headers)
        return web.Response(body=served.stored.raw,
                            headers={**COMMON, **headers, "Content-Type": served.stored.media_type})

    async def blob_head(self, call: Call) -> web.StreamResponse:
        place = self._place(call)
        try:
            return await self._blobs.head(call, _namespace(call))
        except BlobUnknown:
            size = await self._proxy.blob_size(place, call.digest)
        headers = {**describe_blob(call.digest), **_namespace(call)}
        return empty(200, {**headers, "Content-Type": OCTETS, "Content-Length": str(size)})

    async def blob(self, call: Call) -> web.StreamResponse:
        place = self._place(call)
        try:
            return await self._blobs.get(call, _namespace(call))
        except BlobUnknown:
            filling = self._proxy.blob(place, call.digest)
        size = await filling.wait_begun()
        if size is None:  # the upstream does not say: then only the end tells
            size = (await filling.wait_done()).size
        return await self._stream(call, filling, size)

    async def _stream(self, call: Call, filling: Filling, size: int) -> web.StreamResponse:
        headers = {**describe_blob(call.digest), **_namespace(call), "Cache-Status": "Seawall; fwd=uri-miss; stored"}
        condition = call.request.headers.get("If-Range")
        asked = condition is None or condition.strip() == headers["ETag"]
        part = ranges.wanted(call.request.headers.get("Range"), size) if asked else None
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.end}/{size}"
        response = web.StreamResponse(status=200 if part is None else 206,
                                      headers={**COMMON, **headers, "Content-Type": OCTETS})
        part = part or ByteRange(0, size)
        response.content_length = part.length
        await response.prepare(call.request)
        await copy(response, filling.read(part.start, part.length), self._timeout)
        return response

    async def tags(self, call: Call) -> web.StreamResponse:
        place = self._place(call)
        wanted = pages.wanted(call, self._page_size)
        page = await self._proxy.tags(place, wanted.limit, wanted.last)
        headers = {**_namespace(call), **_warning(page.warning)}
        if page.more:
            headers |= pages.link(f"/v2/{place.repo}/tags/list", n=wanted.limit, last=page.names[-1])
        return document({"name": str(place.repo), "tags": page.names}, headers=headers)

    async def referrers(self, call: Call) -> web.StreamResponse:
        place = self._place(call)
        kind = call.query("artifactType") or None
        found = await self._proxy.referrers(place, call.digest, kind)
        page, more = _page_of(found.descriptors, call.query("last"))
        headers = {**_namespace(call), **_warning(found.warning)}
        headers |= {"OCI-Filters-Applied": "artifactType"} if kind else {}
        if more:
            path = f"/v2/{place.repo}/referrers/{call.digest}"
            headers |= pages.link(path, artifactType=kind, last=str(page[-1]["digest"]))
        index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": page}
        return document(index, content_type=mediatype.OCI_INDEX, headers=headers)

    def _place(self, call: Call) -> Place:
        repo: RepositoryName = call.repository(Action.PULL)
        place = self._proxy.upstreams.place(repo)
        assert place is not None, "the edge sends only what an upstream covers"
        return place


def _page_of(found: Sequence[Descriptor], last: str | None) -> tuple[list[dict[str, Any]], bool]:
    """Descriptors after `last` as far as there is room, and whether some are left. At least one, else no end."""
    first = next((place + 1 for place, item in enumerate(found) if str(item.digest) == last), 0) if last else 0
    page: list[dict[str, Any]] = []
    room = ROOM
    for item in found[first:]:
        entry = item.to_json()
        room -= len(json.dumps(entry)) + 1
        if page and room < 0:
            return page, True
        page.append(entry)
    return page, False


def _namespace(call: Call) -> dict[str, str]:
    """The specification's acknowledgement that `ns` was understood; what reaches here was."""
    namespace = call.query("ns")
    return {"OCI-Namespace": namespace} if namespace else {}


def _warning(text: str) -> dict[str, str]:
    """As the specification wants it ("Warnings"): code 299, no date; and nothing of an upstream's words that could
    mean something to a header."""
    return {"Warning": f'299 - "{_UNSAFE.sub("?", text)[:MAX_WARNING]}"'} if text else {}
