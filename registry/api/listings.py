"""`/v2/<name>/tags/list`, `/v2/<name>/referrers/<digest>`, `/v2/_catalog`."""

import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.manifest import MAX_BYTES
from ocispec.reference import RepositoryName
from registry.api import pages
from registry.api.answers import document
from registry.api.call import Call
from registry.auth.policy import Action
from storage.repository.referrers import Referrers
from storage.repository.tags import Tags

ROOM = MAX_BYTES - 1024
"""Bytes of descriptors in one page of referrers: the page is an index, and clients refuse larger ones than 4 MiB."""


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
        """Repositories the caller may pull from. A page may be shorter than asked for when some are not shown."""
        call.access.require(call.principal, Action.LIST, None)
        wanted = pages.wanted(call, self._page_size)
        page = await self._tags.catalog(limit=wanted.limit, last=wanted.last)
        shown = [name for name in page.names
                 if call.access.allows(call.principal, Action.PULL, RepositoryName(name))]
        more = pages.link("/v2/_catalog", n=wanted.limit, last=page.names[-1]) if page.more else None
        return document({"repositories": shown}, headers=more)

    async def referrers(self, call: Call) -> web.StreamResponse:
        """An index of what refers to the manifest; empty when nothing does, known or not (never 404)."""
        repo = call.repository(Action.PULL)
        kind = call.query("artifactType") or None
        found = await self._referrers.list(repo, call.digest, kind)
        page, more = _page(found, call.query("last"))
        headers = {"OCI-Filters-Applied": "artifactType"} if kind else {}
        if more:
            path = f"/v2/{repo}/referrers/{call.digest}"
            headers |= pages.link(path, artifactType=kind, last=str(page[-1]["digest"]))
        index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": page}
        return document(index, content_type=mediatype.OCI_INDEX, headers=headers)


def _page(found: Sequence[Descriptor], last: str | None) -> tuple[list[dict[str, Any]], bool]:
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
