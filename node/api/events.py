"""`GET /events`: what happened and happens, as a stream of JSON objects."""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from node.api.call import Call, InvalidQuery
from node.api.filters import parse_filters
from node.api.streams import ClientGone, connection_of
from node.api.types.events import event, matches
from node.api.types.units import parse_time
from node.api.version import ApiVersion
from node.events import Event, EventBus, Subscription

KNOWN = frozenset({
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
    "service", "type", "volume",
})  # fmt: skip

BATCH = 256


class OlderEvents(Protocol):
    """What happened before the bus remembers (node.journal.Journal)."""

    async def read(self, since: int, before: int) -> Sequence[Event]: ...


class EventRoutes:
    def __init__(self, bus: EventBus, older: OlderEvents | None = None) -> None:
        self._bus = bus
        self._older = older

    async def stream(self, call: Call) -> web.StreamResponse:
        """Ends at `until`, when the client goes, or when it is too slow for what happens."""
        filters = parse_filters(call.text("filters"))
        for name in filters:
            if name not in KNOWN:
                raise InvalidQuery(f"invalid filter '{name}'")
        now = time.time()
        since, until = parse_time(call.text("since"), now), parse_time(call.text("until"), now)
        if since and until and since > until:
            raise InvalidQuery(
                f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})"
            )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        with self._bus.subscribe() as subscription:
            # Nothing is awaited between the subscription and this look: no event is in both or in neither.
            past = self._bus.past()
            wanted = [*await self._before(past, since), *past] if since else []
            await response.prepare(call.request)
            await response.write(b"")
            chosen = (item for item in wanted if item.time_ns >= since and (not until or item.time_ns <= until))
            sending = _send(response, chosen, subscription, _Question(call.version, filters, until))
            try:
                await connection_of(call.request).while_here(sending)
            except ConnectionError as error:
                raise ClientGone("the client has gone") from error
        await response.write_eof()
        return response

    async def _before(self, past: Sequence[Event], since: int) -> Sequence[Event]:
        first = past[0].time_ns if past else time.time_ns()
        if self._older is None or first <= since:
            return ()
        return await self._older.read(since, first)


@dataclass(frozen=True, slots=True)
class _Question:
    version: ApiVersion
    filters: Mapping[str, Sequence[str]]
    until: int

    def answer(self, item: Event) -> bytes:
        """b"" for what was not asked for."""
        if not matches(item, self.filters):
            return b""
        return json.dumps(event(item, self.version), separators=(",", ":")).encode() + b"\n"


async def _send(
    response: web.StreamResponse, past: Iterable[Event], subscription: Subscription, question: _Question
) -> None:
    lines = list(filter(None, map(question.answer, past)))
    for start in range(0, len(lines), BATCH):
        await response.write(b"".join(lines[start : start + BATCH]))
    until = question.until
    if until and until <= time.time_ns():
        return
    try:
        async with asyncio.timeout((until - time.time_ns()) / 10**9 if until else None):
            async for item in subscription:
                if line := question.answer(item):
                    await response.write(line)
    except TimeoutError:
        return
