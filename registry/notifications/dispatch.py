"""All webhooks of one worker, and what becomes of old events."""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta

from ocispec.errors import SeawallError
from registry.notifications.courier import Courier, Pace, Told
from registry.notifications.endpoints import Endpoint, InvalidEndpoint
from registry.notifications.envelopes import Source
from storage.metadata import events, webhooks
from storage.metadata.engine import Database

log = logging.getLogger(__name__)

HOUR, SETTLING = 3600.0, 120.0
GRACE = 3.0
"""Seconds for a delivery that is on its way when its courier must end."""

PRUNED = 1000
"""Events that one transaction removes: others write between two."""

ABANDONED = timedelta(days=7)
"""After so long without anybody who claims it an endpoint is not waited for any more."""


class Dispatcher:
    """Runs a courier for each endpoint: those of the settings, and those of the database as they come and go. Every
    worker of every replica runs one; leases see to it that an endpoint has one courier at a time."""

    def __init__(self, database: Database, fixed: Sequence[Endpoint], source: Source, pace: Pace, told: Told) -> None:
        self._database = database
        self._fixed = {endpoint.name: endpoint for endpoint in fixed}
        self._source = source
        self._pace = pace
        self._told = told
        self._owner = str(uuid.uuid4())
        self._running: dict[str, tuple[Endpoint, Courier, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Until it is cancelled; then gives back what it holds."""
        try:
            while True:
                try:
                    await self._adjust(await self._wanted())
                except SeawallError as error:
                    log.warning("webhooks: %s", error.message)
                except Exception:
                    log.exception("webhooks")  # the next turn may go better, and serving does not depend on it
                await asyncio.sleep(max(self._pace.poll.total_seconds() * 3, 0.05))
        finally:
            await self._adjust({})

    async def _wanted(self) -> Mapping[str, Endpoint]:
        """One that cannot be is left out and told of; an administrator's endpoint never hides one of the settings."""
        wanted = dict(self._fixed)
        async with self._database.read() as tx:
            rows = await webhooks.hooks(tx)
        for row in rows:
            with contextlib.suppress(InvalidEndpoint):
                if row.enabled and row.name not in self._fixed:
                    wanted[row.name] = Endpoint.from_row(row)
        return wanted

    async def _adjust(self, wanted: Mapping[str, Endpoint]) -> None:
        gone = [name for name, (endpoint, _, _) in self._running.items() if wanted.get(name) != endpoint]
        await asyncio.gather(*(_end(*self._running.pop(name)[1:]) for name in gone))
        for name, endpoint in wanted.items():
            if name not in self._running:
                courier = Courier(self._database, endpoint, self._owner, self._source, self._pace, self._told)
                self._running[name] = endpoint, courier, asyncio.create_task(courier.run())


async def _end(courier: Courier, task: asyncio.Task[None]) -> None:
    courier.stop()
    await asyncio.wait([task], timeout=GRACE)
    task.cancel()
    await asyncio.wait([task])
    with contextlib.suppress(SeawallError):
        await courier.release()


class EventKeeper:
    """Removes what is older than `retention`; None keeps everything. Whatever an endpoint has still to hear of
    stays."""

    def __init__(self, database: Database, retention: timedelta | None) -> None:
        self._database = database
        self._retention = retention

    async def run(self) -> None:
        """Every hour, the first time at a random moment of it; until it is cancelled. Not at once: after a long
        rest endpoints that are still wanted must be claimed before they count as abandoned."""
        await asyncio.sleep(SETTLING + HOUR * random.random())  # noqa: S311  # no secret
        while True:
            try:
                removed = await self.prune()
                log.log(logging.INFO if removed else logging.DEBUG, "%d old events removed", removed)
            except SeawallError as error:
                log.warning("old events stay for now: %s", error.message)
            except Exception:
                log.exception("old events stay for now")
            await asyncio.sleep(HOUR)

    async def prune(self) -> int:
        """How many went."""
        now = self._database.now()
        async with self._database.write() as tx:
            await webhooks.drop_abandoned(tx, now - ABANDONED)
        removed = 0
        while self._retention is not None:
            async with self._database.write() as tx:
                went = await events.prune(tx, now - self._retention, await webhooks.slowest(tx), PRUNED)
                if went < PRUNED:
                    await webhooks.drop_dead_without_event(tx)
            removed += went
            if went < PRUNED:
                break
        return removed
