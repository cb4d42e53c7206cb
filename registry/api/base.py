"""`/v2/` and `/healthz`."""

from aiohttp import web

from registry.api.answers import document
from registry.api.call import Call
from storage.repository.tags import Tags


class BaseEndpoints:
    def __init__(self, tags: Tags) -> None:
        self._tags = tags

    async def check(self, call: Call) -> web.StreamResponse:
        """A client's first question: is this a registry, and must I log in?"""
        call.access.admit(call.principal)
        return document({})

    async def health(self, _call: Call) -> web.StreamResponse:
        """200 when the database answers. No identity is asked for: a load balancer has none."""
        await self._tags.catalog(limit=1, last=None)
        return document({"status": "ok"})
