"""A worker that is killed at any step loses nothing: the next one sends again what may not have arrived."""

import asyncio
import itertools
import signal
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, sys
from datetime import timedelta
from yarl import URL
from registry.notifications import courier
from registry.notifications.courier import Courier, Pace
from registry.notifications.endpoints import Endpoint
from registry.notifications.envelopes import Source
from storage.metadata import webhooks
from storage.metadata.engine import open_database

url, hook, step, left = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def here(name):
    global left
    if name == step:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

send, save, move = Courier._send, Courier._save, webhooks.move

async def sending(self, *arguments):
    here("before sending")
    outcome = await send(self, *arguments)
    here("sent")
    return outcome

async def saving(self, cursor):
    await save(self, cursor)
    here("saved")

async def moving(*arguments):
    moved = await move(*arguments)
    here("moved, not committed")
    return moved

Courier._send, Courier._save, webhooks.move = sending, saving, moving

async def main():
    pace = Pace(poll=timedelta(milliseconds=10), lease=timedelta(seconds=1), timeout=timedelta(seconds=2),
                persist=timedelta(0), first_pause=timedelta(milliseconds=20))
    async with open_database(url, migrate=False) as database:
        endpoint = Endpoint("hook", URL(hook), "", allow_private=True)
        await Courier(database, endpoint, "killed", Source("", "http", "", ""), pace, lambda *_: None).run()

asyncio.run(main())
"""


@pytest.mark.parametrize("step", ["before sending", "sent", "moved, not committed", "saved"])
async def test_killed_at(step, url, receiver, to, dispatching, happen, until) -> None:
    names = [f"r{number}" for number in range(8)]
    async with dispatching(to(receiver)):
        pass  # from here on it hears of everything
    await happen(*names)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, receiver.url, step, "3")
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    assert 2 <= len(receiver.taken) < len(names)
    async with dispatching(to(receiver)):
        await until(lambda: receiver.taken[-1:] == names[-1:])
    in_order = [name for name, _ in itertools.groupby(receiver.taken)]
    assert in_order == names  # each at least once, and again only at once
    assert len(receiver.taken) <= len(names) + 2
    identities = {received.request: received.headers["webhook-id"] for received in receiver.got}
    assert all(identities[received.request] == received.headers["webhook-id"] for received in receiver.got)
