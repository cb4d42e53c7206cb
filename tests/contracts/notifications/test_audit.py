"""The audit log: searched in pages, exported, bounded however many are refused."""

import asyncio
import json

from registry.notifications import audit
from registry.notifications.audit import AuditLog, Refusals, line
from storage.events import Action, Event, Origin, Result
from storage.metadata.events import Wanted
from storage.observation import Uncounted


async def test_it_is_read_in_pages(database, happen) -> None:
    await happen(*(f"r{number}" for number in range(7)))
    log, seen, before = AuditLog(database), [], None
    while True:
        page = await log.page(Wanted(before=before), 3)
        seen += [entry.event.origin.request_id for entry in page.entries]
        before = page.before
        if before is None:
            break
    assert seen == [f"r{number}" for number in reversed(range(7))]
    assert len((await log.page(Wanted(), 10**9)).entries) == 7
    assert len((await log.page(Wanted(), -1)).entries) == 1


async def test_all_of_it_is_exported(database, happen, monkeypatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 3)
    await happen(*(f"r{number}" for number in range(8)))
    lines = [json.loads(line(entry)) async for entry in AuditLog(database).export(Wanted(actor="mia"))]
    assert [found["request"] for found in lines] == [f"r{number}" for number in reversed(range(8))]
    assert {"id", "time", "action", "result", "actor", "remote", "repository", "tag"} <= set(lines[0])
    assert [entry async for entry in AuditLog(database).export(Wanted(actor="nobody"))] == []


class Dropped(Uncounted):
    count = 0.0

    def add(self, amount: float = 1.0) -> None:
        self.count += amount


async def test_refusals_beyond_the_rate_are_only_counted(database) -> None:
    dropped = Dropped()
    refusals = Refusals(database, 5.0, dropped, every=0.01)
    async with refusals.writing():
        for number in range(500):
            refusals.note(Event(Action.ACCESS_DENIED, Origin("mia", f"r{number}"), result=Result.DENIED))
    denied = [entry async for entry in AuditLog(database).export(Wanted(action=Action.ACCESS_DENIED))]
    told = [entry async for entry in AuditLog(database).export(Wanted(action=Action.EVENTS_DROPPED))]
    assert 5 <= len(denied) <= 50
    assert sum(entry.event.detail["count"] for entry in told) == dropped.count == 500 - len(denied)


async def test_they_are_written_while_it_runs(database, until) -> None:
    refusals = Refusals(database, 5.0, Dropped(), every=0.01)
    async with refusals.writing():
        refusals.note(Event(Action.LOGIN_FAILED, Origin("", "r"), result=Result.DENIED))

        async def written() -> bool:
            return len((await AuditLog(database).page(Wanted())).entries) == 1

        await until(written)


async def test_with_no_rate_nothing_is_written(database) -> None:
    refusals = Refusals(database, 0.0, Dropped(), every=0.01)
    async with refusals.writing():
        await asyncio.sleep(0)
        for _ in range(5):
            refusals.note(Event(Action.LOGIN_FAILED, Origin("", "r"), result=Result.DENIED))
    assert len([entry async for entry in AuditLog(database).export(Wanted(action=Action.LOGIN_FAILED))]) <= 1
