"""The event bus: history, listeners, and one that is too slow."""

import asyncio

from node.events import BACKLOG, HISTORY, Event, EventBus


async def test_listeners_hear_from_their_subscription_on():
    bus = EventBus()
    bus.publish(Event("container", "create", "a"))
    with bus.subscribe() as heard:
        bus.publish(Event("container", "start", "a"))
        bus.publish(Event("container", "die", "a"))
        stream = aiter(heard)
        assert [(await anext(stream)).action, (await anext(stream)).action] == ["start", "die"]
    bus.publish(Event("container", "destroy", "a"))
    assert [event.action for event in bus.past()] == ["create", "start", "die", "destroy"]


async def test_a_listener_that_lags_is_dropped_and_nobody_waits():
    bus = EventBus()
    with bus.subscribe() as slow, bus.subscribe() as quick:
        stream, got = aiter(quick), 0
        for _ in range(BACKLOG + 10):
            bus.publish(Event("container", "x", "a"))
            await anext(stream)
            got += 1
        assert got == BACKLOG + 10
        async with asyncio.timeout(5):
            assert len([event async for event in slow]) < BACKLOG
    assert len(bus.past()) == HISTORY
