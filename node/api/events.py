"""`GET /events`: what happened and happens, as a stream of JSON objects."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from aiohttp import web

from node.api.call import Call, InvalidQuery
from node.api.filters import parse_filters
from node.api.streams import ClientGone, connection_of
from node.api.types.events import event, matches
from node.api.types.units import parse_time
from node.events import Event, EventBus, Subscription

KNOWN = frozenset({
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
    "service", "type", "volume",
})  # fmt: skip


class EventRoutes:
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    async def stream(self, call: Call) -> web.StreamResponse:
        """Ends at `until`, when the client goes, or when it is too slow for what happens."""
        filters = parse_filters(call.text("filters"))
        for name in filters:
            if name not in KNOWN:
                raise InvalidQuery(f"invalid filter '{name}'")
        now = time.time()
        since, until = parse_time(call.text("since"), now), parse_time(call.text("until"), now)
        if since and until and since > until:
            raise InvalidQuery("`since` cannot be later than `until`")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        with self._bus.subscribe() as subscription:
            past = [item for item in self._bus.past() if since and item.time_ns >= since]
            await response.prepare(call.request)
            await response.write(b"")
            sending = self._send(response, past, subscription, filters, until)
            try:
                await connection_of(call.request).while_here(sending)
            except ConnectionError as error:
                raise ClientGone("the client has gone") from error
        await response.write_eof()
        return response

    async def _send(
        self,
        response: web.StreamResponse,
        past: Sequence[Event],
        subscription: Subscription,
        filters: Mapping[str, Sequence[str]],
        until: int,
    ) -> None:
        for item in past:
            if (not until or item.time_ns <= until) and matches(item, filters):
                await response.write(_line(item))
        if until and until <= time.time_ns():
            return
        try:
            async with asyncio.timeout((until - time.time_ns()) / 10**9 if until else None):
                async for item in _later_than(past, subscription):
                    if matches(item, filters):
                        await response.write(_line(item))
        except TimeoutError:
            return


async def _later_than(past: Sequence[Event], subscription: Subscription) -> AsyncIterator[Event]:
    """What was published between subscribing and reading the past is in both."""
    last = past[-1].time_ns if past else 0
    async for item in subscription:
        if item.time_ns > last:
            yield item


def _line(item: Event) -> bytes:
    return json.dumps(event(item), separators=(",", ":")).encode() + b"\n"
