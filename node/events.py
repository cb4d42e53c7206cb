"""What happens on the node, told to whoever listens (`docker events`) and to nobody when nobody does.

A slow listener loses its subscription, never the publisher's time: publishing does not wait.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

HISTORY = 1024
"""Past events kept in memory for `since`; older ones are the journal's (node.journal)."""

BACKLOG = 4096
"""Events a listener may lag behind."""


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    """container, image, volume, network, plugin, secret, config, daemon or builder."""

    action: str
    """Docker's word: create, start, die, exec_start: CMD…"""

    actor_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = field(default_factory=time.time_ns)


class Subscription:
    """An async iterator of events from now on. It ends when the listener lags too far behind."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(BACKLOG)
        self._lost = False

    def offer(self, event: Event) -> None:
        if self._lost:
            return
        if self._queue.qsize() >= BACKLOG - 1:
            self._lost = True
            self._queue.put_nowait(None)
        else:
            self._queue.put_nowait(event)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event


class EventBus:
    def __init__(self, keep: Callable[[Event], None] = lambda _event: None) -> None:
        """`keep` gets every event and must not wait."""
        self._keep = keep
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        self._history.append(event)
        self._keep(event)
        for subscription in self._subscriptions:
            subscription.offer(event)

    @property
    def listeners(self) -> int:
        return len(self._subscriptions)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """No event published inside the block is missed, however late the iteration begins."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def past(self) -> list[Event]:
        """The last events, oldest first."""
        return list(self._history)
