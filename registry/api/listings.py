"""`/v2/<name>/tags/list`, `/v2/<name>/referrers/<digest>`, `/v2/_catalog`."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.manifest import MAX_BYTES
from registry.api import pages
from registry.api.answers import COMMON, document
from registry.api.call import Call
from registry.api.visible import visible
from registry.auth.policy import Action
from storage.metadata.referrers import Referrer, Wanted
from storage.repository.referrers import Referrers
from storage.repository.tags import Tags

ROOM = MAX_BYTES - 1024
"""Bytes of descriptors in one page of referrers: the page is an index, and clients refuse larger ones than 4 MiB."""

RENDER_ON_LOOP = 500
"""Descriptors. A longer page is written in a thread, so that others do not wait for it."""


class ListingEndpoints:
    """`page_size`: most entries of a page of tags or repositories."""

    def __init__(self, tags: Tags, referrers: Referrers, page_size: int) -> None:
        self._tags = tags
        self._referrers = referrers
        self._page_size = page_size

    async def tags(self, call: Call) -> web.StreamResponse:
        repo = call.repository(Action.PULL)
        wanted = pages.wanted(call, self._page_size)
        page = await self._tags.list(repo, limit=wanted.limit, last=wanted.last)
        more = pages.link(f"/v2/{repo}/tags/list", n=wanted.limit, last=page.names[-1]) if page.more else None
        return document({"name": str(repo), "tags": page.names}, headers=more)

    async def catalog(self, call: Call) -> web.StreamResponse:
        """Repositories the caller may pull from. Neither page nor `Link` tells of others."""
        call.access.require(call.principal, Action.LIST, None)
        wanted = pages.wanted(call, self._page_size)
        shown = visible(call.access, call.principal)
        page = await self._tags.catalog(limit=wanted.limit, last=wanted.last, shown=shown)
        more = pages.link("/v2/_catalog", n=wanted.limit, last=page.names[-1]) if page.more else None
        return document({"repositories": page.names}, headers=more)

    async def referrers(self, call: Call) -> web.StreamResponse:
        """An index of what refers to the manifest; empty when nothing does, known or not (never 404)."""
        repo = call.repository(Action.PULL)
        wanted = pages.wanted(call, self._page_size)
        kind = call.query("artifactType") or None
        after = Digest.parse(wanted.last) if wanted.last else None
        page = await self._referrers.page(repo, Wanted(call.digest, kind, after), limit=wanted.limit, room=ROOM)
        headers = {**COMMON, "Content-Type": mediatype.OCI_INDEX}
        if kind:
            headers["OCI-Filters-Applied"] = "artifactType"
        if page.more:
            headers |= pages.link(f"/v2/{repo}/referrers/{call.digest}", artifactType=kind, n=call.query("n"),
                                  last=str(page.found[-1].digest))
        if len(page.found) <= RENDER_ON_LOOP:
            return web.Response(body=_index(page.found), headers=headers)
        return web.Response(body=await asyncio.to_thread(_index, page.found), headers=headers)


def _index(found: Sequence[Referrer]) -> bytes:
    """An image index of their descriptors. The annotations go in as they are stored."""
    manifests = []
    for item in found:
        entry: dict[str, Any] = {"mediaType": item.media_type, "digest": str(item.digest), "size": item.size}
        if item.annotations:
            entry["annotations"] = msgspec.Raw(item.annotations)
        if item.artifact_type:
            entry["artifactType"] = item.artifact_type
        manifests.append(entry)
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": manifests})
