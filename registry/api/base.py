"""`/v2/`, `/v2/_oci/ext/discover` and `/healthz`."""

from aiohttp import web

from registry.api.answers import document
from registry.api.call import Call
from registry.auth.policy import Action
from storage.repository.tags import Tags

EXTENSIONS = [{
    "name": "_oci",
    "description": "which extensions this registry has",
    "url": "https://github.com/opencontainers/distribution-spec/blob/main/extensions/_oci.md",
    "endpoints": ["_oci/ext/discover"],
}]


class BaseEndpoints:
    def __init__(self, tags: Tags) -> None:
        self._tags = tags

    async def check(self, call: Call) -> web.StreamResponse:
        """A client's first question: is this a registry, and must I log in?"""
        call.access.admit(call.principal)
        return document({})

    async def extensions(self, call: Call) -> web.StreamResponse:
        """Those of the registry, or of one repository; they are the same."""
        if call.target.name:
            call.repository(Action.PULL)
        else:
            call.access.admit(call.principal)
        return document({"extensions": EXTENSIONS})

    async def health(self, _call: Call) -> web.StreamResponse:
        """200 when the database answers. No identity is asked for: a load balancer has none."""
        await self._tags.catalog(limit=1, last=None)
        return document({"status": "ok"})
