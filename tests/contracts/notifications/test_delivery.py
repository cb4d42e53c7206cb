"""Every event arrives, in order, and its cursor moves only when it was taken. On SQLite and Postgres."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from aiohttp import web

from registry.notifications.audit import AuditLog
from registry.notifications.dispatch import EventKeeper
from registry.notifications.hooks import Hooks
from storage.events import Action
from storage.metadata import events, webhooks
from storage.metadata.engine import open_database
from storage.metadata.events import Wanted


async def test_events_arrive_once_and_in_order(receiver, to, dispatching, happen, until) -> None:
    await happen("before")  # a new endpoint hears of what happens from now on
    async with dispatching(to(receiver)):
        await happen(*(f"r{number}" for number in range(30)))
        await until(lambda: len(receiver.got) == 30)
    assert receiver.taken == [f"r{number}" for number in range(30)]


async def test_what_happened_meanwhile_arrives_after_a_pause(receiver, to, dispatching, happen, until) -> None:
    async with dispatching(to(receiver)):
        await happen("a")
        await until(lambda: receiver.taken == ["a"])
    await happen("b", "c")
    async with dispatching(to(receiver)):
        await until(lambda: receiver.taken == ["a", "b", "c"])
    assert len(receiver.got) == 3


async def test_a_failure_is_repeated_until_it_is_taken(receiver, to, dispatching, happen, until) -> None:
    async def fail(number, received) -> int:
        return [500, 503, 404, 302, 301][number - 1] if number < 6 else 204

    receiver.answer = fail
    async with dispatching(to(receiver)):
        await happen("a", "b")
        await until(lambda: receiver.taken == ["a", "b"])
    assert [received.request for received in receiver.got] == ["a"] * 6 + ["b"]
    assert len({received.headers["webhook-id"] for received in receiver.got}) == 2  # the same event has the same id


async def test_the_cursor_does_not_move_without_an_answer(receiver, to, dispatching, happen, database, until) -> None:
    async def hang(number, received) -> int:
        await asyncio.sleep(30)
        return 200

    receiver.answer = hang
    async with dispatching(to(receiver)):
        async with database.read() as tx:
            before = await webhooks.cursor(tx, "hook")
        await happen("a")
        await until(lambda: len(receiver.got) >= 2)
        async with database.read() as tx:
            after = await webhooks.cursor(tx, "hook")
            backlog, = await webhooks.backlogs(tx)
    assert after.position == before.position
    assert (backlog.waiting, after.delivered) == (1, 0)
    assert "no answer within" in after.error


async def test_a_dead_endpoint_delays_no_other(receivers, to, dispatching, happen, until) -> None:
    dead, hanging, living = await receivers(), await receivers(), await receivers()

    async def refuse(number, received) -> int:
        return 500

    async def hang(number, received) -> int:
        await asyncio.sleep(30)
        return 200

    dead.answer, hanging.answer = refuse, hang
    async with dispatching(to(dead, "dead"), to(hanging, "hanging"), to(living, "living")):
        await happen(*(f"r{number}" for number in range(20)))
        await until(lambda: len(living.taken) == 20, within=5)
    assert dead.taken == hanging.taken == []


async def test_only_what_it_wants(receivers, to, dispatching, happen, until) -> None:
    pushes, others = await receivers(), await receivers()
    async with dispatching(to(pushes, "pushes", actions=("manifest.*",), repositories=("team/*",)),
                           to(others, "others", actions=("account.*", "tag.delete"))):
        await happen("push")
        await happen("login", action=Action.ACCOUNT_CREATE, repo=None)
        await happen("untag", action=Action.TAG_DELETE)
        await happen("last")
        await until(lambda: pushes.taken == ["push", "last"] and others.taken == ["login", "untag"])


async def test_an_event_too_old_is_given_up_and_the_next_is_tried(
        receiver, to, dispatching, happen, quick, database, until) -> None:
    async def refuse(number, received) -> int:
        return 500 if received.request == "old" else 200

    receiver.answer = refuse
    async with dispatching(to(receiver), pace=replace(quick, dead_after=timedelta(seconds=0.3))):
        await happen("old")
        await until(lambda: len(receiver.got) >= 2)
        await happen("new")
        await until(lambda: receiver.taken == ["new"])
        async with database.read() as tx:
            dead, = await webhooks.dead(tx, "hook", 10)
        assert dead.attempts >= 2
        assert "500" in dead.error
        receiver.answer = None
        assert await Hooks(database, [to(receiver)]).redeliver("hook") == 1
        await until(lambda: receiver.taken == ["new", "old"])

        async def buried() -> bool:
            async with database.read() as tx:
                return not await webhooks.dead(tx, "hook", 10)

        await until(buried)


async def test_what_it_will_never_take_does_not_block_the_rest(
        receiver, to, dispatching, happen, database, until) -> None:
    async def insist(number, received) -> int:
        return 422 if received.request == "poison" else 200

    receiver.answer = insist
    async with dispatching(to(receiver)):
        await happen("a", "poison", "b")
        await until(lambda: receiver.taken == ["a", "b"])
        async with database.read() as tx:
            assert [dead.attempts for dead in await webhooks.dead(tx, "hook", 10)] == [5]


async def test_it_waits_as_long_as_it_is_asked(receiver, to, dispatching, happen, until) -> None:
    times: list[float] = []

    async def later(number, received) -> web.Response | int:
        times.append(asyncio.get_running_loop().time())
        return web.Response(status=429, headers={"Retry-After": "1"}) if number == 1 else 200

    receiver.answer = later
    async with dispatching(to(receiver)):
        await happen("a")
        await until(lambda: receiver.taken == ["a"])
    assert times[1] - times[0] >= 0.95


async def test_one_delivers_at_a_time(receiver, to, url, dispatching, happen, until) -> None:
    """Three workers, each with a database of its own: what one of them sends no other does."""
    async with open_database(url) as second, open_database(url) as third:
        hook = to(receiver)
        async with dispatching(hook), dispatching(hook, on=second), dispatching(hook, on=third):
            for number in range(40):
                await happen(f"r{number}")
            await until(lambda: len(receiver.taken) >= 40)
    assert receiver.taken == [f"r{number}" for number in range(40)]


async def test_another_goes_on_when_the_first_leaves(receiver, to, url, dispatching, happen, until, quick) -> None:
    """At once, not when the lease is over."""
    slow = replace(quick, lease=timedelta(seconds=3))
    async with open_database(url) as second:
        async with dispatching(to(receiver), pace=slow):
            await happen("a")
            await until(lambda: receiver.taken == ["a"])
            waiting = dispatching(to(receiver), on=second, pace=slow)
            await waiting.__aenter__()
        await happen("b")
        await until(lambda: receiver.taken == ["a", "b"], within=2.5)
        await waiting.__aexit__(None, None, None)


async def test_a_worker_that_slept_through_its_lease_writes_nothing(database, happen) -> None:
    now = database.now()
    async with database.write() as tx:
        first = await webhooks.claim(tx, "hook", "one", now, now + timedelta(seconds=5))
        assert await webhooks.claim(tx, "hook", "two", now, now + timedelta(seconds=5)) is None
        assert await webhooks.claim(tx, "hook", "two", now + timedelta(seconds=6), now + timedelta(seconds=9)) == first
        assert not await webhooks.move(tx, "hook", "one", replace(first, delivered=7), now)
        assert (await webhooks.cursor(tx, "hook")).delivered == 0


async def test_endpoints_of_the_database_come_and_go(receiver, dispatching, database, happen, until) -> None:
    from storage.events import Origin
    from storage.metadata.webhooks import HookRow

    hooks = Hooks(database, [])
    origin = Origin("root", "r")
    row = HookRow("mine", "https://192.0.2.1/x", "sixteen characters", "cloudevents", ("manifest.*",), (), enabled=True)
    async with dispatching():
        await hooks.put(row, origin)

        async def state():
            found = await hooks.list()
            return found[0] if found and found[0].cursor else None

        first = await until(state)
        assert (first.endpoint.name, first.fixed, first.enabled) == ("mine", False, True)
        await hooks.put(replace(row, secret="", enabled=False), origin)
        async with database.read() as tx:
            assert [kept.secret for kept in await webhooks.hooks(tx)] == ["sixteen characters"]
        await hooks.delete("mine", origin)
        assert await hooks.list() == []
    audited = (await AuditLog(database).page(Wanted(action=Action.WEBHOOK_CHANGE))).entries
    assert len(audited) == 3
    assert all("sixteen" not in str(entry) for entry in audited)


async def test_what_is_still_to_be_told_is_not_removed(receiver, to, dispatching, database, happen, until) -> None:
    async def refuse(number, received) -> int:
        return 500

    async with dispatching(to(receiver)):
        await happen("told")
        await until(lambda: receiver.taken == ["told"])
        receiver.answer = refuse
        await happen("waiting")
        await until(lambda: len(receiver.got) >= 2)
        keeper = EventKeeper(database, timedelta(0))
        assert await keeper.prune() == 1
        async with database.read() as tx:
            assert [left.event.origin.request_id for left in await events.after(tx, events.START, 9)] == ["waiting"]
        receiver.answer = None
        await until(lambda: receiver.taken == ["told", "waiting"])

    async def prunable() -> bool:
        return await keeper.prune() == 1

    await until(prunable)
    assert await EventKeeper(database, None).prune() == 0


async def test_an_endpoint_that_nobody_has_any_more_is_not_waited_for(database, happen) -> None:
    now = database.now()
    async with database.write() as tx:
        await webhooks.claim(tx, "gone", "one", now - timedelta(days=9), now - timedelta(days=8))
    await happen("a")
    assert await EventKeeper(database, timedelta(0)).prune() == 1


@pytest.mark.parametrize("enabled", [True, False])
async def test_nor_one_that_is_switched_off(database, happen, enabled) -> None:
    now = database.now()
    row = webhooks.HookRow("off", "https://192.0.2.1/x", "", "cloudevents", (), (), enabled=enabled)
    async with database.write() as tx:
        await webhooks.put(tx, row, now)
        await webhooks.claim(tx, "off", "one", now - timedelta(days=9), now - timedelta(days=8))
    await happen("a")
    assert await EventKeeper(database, timedelta(0)).prune() == (0 if enabled else 1)


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_nothing_is_missed_when_transactions_overlap(database, receiver, to, dispatching, happen, until) -> None:
    """The one that began first commits last: its event has the lower number and appears later."""
    from ocispec.reference import Tag
    from storage.events import Event, Origin

    def event(name: str) -> Event:
        return Event(Action.TAG_PUT, Origin("", name), tag=Tag("x"))

    async with dispatching(to(receiver)):
        async with database.write(beside=True) as slow:
            await events.record(slow, event("slow"), database.now())
            async with database.write(beside=True) as fast:
                await events.record(fast, event("fast"), database.now())
            async with database.read() as tx:
                assert await events.after(tx, events.START, 9) == []
            await asyncio.sleep(0.1)  # the courier looks in vain
        await until(lambda: len(receiver.taken) == 2)
    assert receiver.taken == ["slow", "fast"]


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_a_log_restored_into_a_younger_server_is_told_on(
        database, receiver, to, dispatching, happen, until) -> None:
    import sqlalchemy as sa

    async with dispatching(to(receiver)):
        await happen("a")
        await until(lambda: receiver.taken == ["a"])
    async with database.write() as tx:
        await tx.execute(sa.text("UPDATE events SET written = written + 1000000000"))
        await tx.execute(sa.text("UPDATE webhook_cursors SET written = written + 1000000000"))
    await happen("b")
    async with dispatching(to(receiver)):
        await until(lambda: receiver.taken == ["a", "b"])
