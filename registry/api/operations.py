"""`/livez`, `/readyz`, `/metrics`: asked by machines that have no account. Nothing they answer names content."""

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from ocispec.errors import PermissionDenied
from registry.api.answers import COMMON, document
from registry.api.call import Call
from registry.api.reached import Network
from registry.telemetry.health import Health

Page = Callable[[str], Awaitable[tuple[bytes, str]]]
"""The metrics in a form that an `Accept` header asks for, and their content type."""


@dataclass(frozen=True, slots=True)
class Readers:
    """Who may read the metrics: who comes from one of `networks`, or shows `token` (empty: nobody can)."""

    networks: Sequence[Network]
    token: str = ""

    def admits(self, remote: str, authorization: str) -> bool:
        scheme, _, shown = authorization.partition(" ")
        if self.token and scheme.lower() == "bearer":
            return hmac.compare_digest(shown.strip().encode(), self.token.encode())
        try:
            address = ipaddress.ip_address(remote.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)


class OperationEndpoints:
    def __init__(self, health: Health, page: Page, readers: Readers) -> None:
        self._health = health
        self._page = page
        self._readers = readers
        self._writing = asyncio.Lock()

    async def live(self, _call: Call) -> web.StreamResponse:
        """The process answers; that is all."""
        return document({"status": "ok"})

    async def ready(self, _call: Call) -> web.StreamResponse:
        results = await self._health.results()
        good = all(results.values())
        named = {name: "ok" if well else "failed" for name, well in results.items()}
        return document({"status": "ok" if good else "unavailable", "checks": named}, status=200 if good else 503,
                        headers={"Cache-Control": "no-store"})

    async def metrics(self, call: Call) -> web.StreamResponse:
        if not self._readers.admits(call.presented.remote, call.request.headers.get("Authorization", "")):
            raise PermissionDenied("the metrics are not for you: see metrics.allow and metrics.token")
        async with self._writing:  # whoever asks often waits, and does not make the others wait
            body, content_type = await self._page(call.request.headers.get("Accept", ""))
        return web.Response(body=body, headers={**COMMON, "Content-Type": content_type, "Cache-Control": "no-store"})
