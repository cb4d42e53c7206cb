"""Delivers to one endpoint: in order, one event at a time, nothing lost.

What is durable, and in which order: the event lies in the log; it is sent; only when the endpoint took it does the
cursor move. Killed between any two, the next one who takes the endpoint sends again what may have arrived already,
under the same id. Of all workers of all replicas one holds the endpoint's lease; a cursor moves only by its hand, so a
worker that slept through its lease can repeat something and lose nothing.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from ocispec.errors import SeawallError
from registry.notifications.endpoints import Endpoint
from registry.notifications.envelopes import Message, Source, can_tell, message
from registry.notifications.sending import Outcome, Sender
from registry.notifications.signing import signed
from storage.metadata import events, webhooks
from storage.metadata.engine import Database
from storage.metadata.events import LoggedEvent
from storage.metadata.webhooks import Cursor

log = logging.getLogger(__name__)

BATCH = 100
HOPELESS_ATTEMPTS = 5
"""So often is an event sent that the endpoint says it will never take, in case it does not mean it."""

LEASE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pace:
    """`poll`: between two looks for news. `lease`: for how long an endpoint is nobody else's; more than `timeout`,
    which is how long it may take to answer. `persist`: for how long deliveries may be repeated after a crash.
    `first_pause` grows twofold with each failure. `dead_after`: the age at which an event that cannot be delivered is
    given up."""

    poll: timedelta = timedelta(seconds=1)
    lease: timedelta = LEASE
    timeout: timedelta = timedelta(seconds=10)
    persist: timedelta = timedelta(milliseconds=200)
    first_pause: timedelta = timedelta(seconds=1)
    dead_after: timedelta = timedelta(days=3)


class LostLease(Exception):  # what happened
    """Another has the endpoint now."""


Told = Callable[[bool, float], None]
"""Hears of each attempt: whether it went well, and the seconds it took."""


class Courier:
    """`owner` is this worker's, unlike any other's."""

    def __init__(self, database: Database, endpoint: Endpoint, owner: str, source: Source, pace: Pace,
                 told: Told) -> None:
        self._database = database
        self._endpoint = endpoint
        self._owner = owner
        self._source = source
        self._pace = pace
        self._told = told
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`, or until it is cancelled: then what it has just delivered may be delivered again."""
        while not self._stopping.is_set():
            try:
                async with Sender(self._endpoint, self._pace.timeout.total_seconds()) as sender:
                    await self._lead(sender)
            except LostLease:
                log.info("webhook %s: another delivers now", self._endpoint.name)
            except SeawallError as error:
                log.warning("webhook %s: %s", self._endpoint.name, error.message)
            except Exception:
                log.exception("webhook %s", self._endpoint.name)  # the others go on, and so does this one later
            await self._sleep(self._pace.lease / 3)

    def stop(self) -> None:
        """Begin nothing more; what is on its way is finished and recorded."""
        self._stopping.set()

    async def release(self) -> None:
        """At the end of this process: another need not wait for the lease to run out."""
        async with self._database.write() as tx:
            await webhooks.release(tx, self._endpoint.name, self._owner)

    async def _lead(self, sender: Sender) -> None:
        """For as long as the endpoint is ours. An idle one costs a look for news, and seldom a write."""
        while not self._stopping.is_set() and (cursor := await self._claim()) is not None:
            renew = self._database.now() + self._pace.lease / 2
            while (now := self._database.now()) < renew and not self._stopping.is_set():
                cursor, pause = await self._turn(sender, cursor)
                await self._sleep(min(pause, renew - now))

    async def _claim(self) -> Cursor | None:
        now = self._database.now()
        async with self._database.write() as tx:
            await events.mend(tx)
            return await webhooks.claim(tx, self._endpoint.name, self._owner, now, now + self._pace.lease)

    async def _turn(self, sender: Sender, cursor: Cursor) -> tuple[Cursor, timedelta]:
        """Deliver a batch; gives the cursor and how long to do nothing."""
        now = self._database.now()
        if cursor.retry_at is not None and cursor.retry_at > now:
            return cursor, cursor.retry_at - now
        await self._again(sender)
        async with self._database.read() as tx:
            found = await events.after(tx, cursor.position, BATCH)
        if not found:
            return cursor, self._pace.poll
        return await self._deliver(sender, cursor, found), timedelta(0)

    async def _deliver(self, sender: Sender, cursor: Cursor, found: Sequence[LoggedEvent]) -> Cursor:
        """As many as go; the cursor afterwards, which is saved."""
        saved = self._database.now()
        for logged in found:
            if self._stopping.is_set():
                break
            if not (self._endpoint.wants(logged.event) and can_tell(self._endpoint.format, logged.event)):
                cursor = replace(cursor, position=logged.position)
                continue
            now = self._database.now()
            if now - saved >= self._pace.persist:
                await self._save(cursor)  # also renews the lease, so an answer may take its time
                saved = now
            outcome = await self._send(sender, logged)
            if not outcome.problem:
                cursor = replace(cursor, position=logged.position, attempts=0, retry_at=None, error="",
                                 delivered=cursor.delivered + 1, delivered_at=self._database.now())
                continue
            cursor = await self._failed(cursor, logged, outcome)
            if cursor.retry_at is not None:
                break
        await self._save(cursor)
        return cursor

    async def _failed(self, cursor: Cursor, logged: LoggedEvent, outcome: Outcome) -> Cursor:
        """Wait and try again, or give the event up: when it is too old, or the endpoint insists that it is wrong."""
        now = self._database.now()
        attempts = cursor.attempts + 1
        insists = outcome.hopeless and attempts >= HOPELESS_ATTEMPTS
        retry_at = now + self._pause(attempts, outcome)
        failed = replace(cursor, attempts=attempts, retry_at=retry_at, error=outcome.problem)
        if not insists and now - logged.at < self._pace.dead_after:
            log.warning("webhook %s: attempt %d failed: %s", self._endpoint.name, attempts, outcome.problem)
            return failed
        log.error("webhook %s: event %s is given up after %d attempts: %s", self._endpoint.name, logged.uid, attempts,
                  outcome.problem)
        after = replace(failed, position=logged.position)
        if insists:
            after = replace(after, attempts=0, retry_at=None)  # it answers, so the next event need not wait
        async with self._database.write() as tx:
            await webhooks.bury(tx, self._endpoint.name, logged.number, attempts, outcome.problem, now)
            if not await webhooks.move(tx, self._endpoint.name, self._owner, after, now + self._pace.lease):
                raise LostLease
        return after

    async def _again(self, sender: Sender) -> None:
        """What was given up and somebody wants sent once more. Out of order: its place has passed."""
        async with self._database.read() as tx:
            dead = {item.number: item for item in await webhooks.dead(tx, self._endpoint.name, BATCH, again=True)}
            found = await events.numbered(tx, list(dead)) if dead else []
        for number in set(dead) - {logged.number for logged in found}:
            async with self._database.write() as tx:
                await webhooks.exhume(tx, self._endpoint.name, number)
        for logged in found:
            outcome = await self._send(sender, logged)
            now = self._database.now()
            async with self._database.write() as tx:
                if outcome.problem:
                    attempts = dead[logged.number].attempts + 1
                    await webhooks.bury(tx, self._endpoint.name, logged.number, attempts, outcome.problem, now)
                else:
                    await webhooks.exhume(tx, self._endpoint.name, logged.number)
                if await webhooks.claim(tx, self._endpoint.name, self._owner, now, now + self._pace.lease) is None:
                    raise LostLease

    async def _send(self, sender: Sender, logged: LoggedEvent) -> Outcome:
        made = message(self._endpoint.format, logged, self._source)
        headers = signed(self._endpoint.secret, logged.uid, self._database.now(), made.body)
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcome = await sender.send(Message({**made.headers, **headers}, made.body))
        self._told(not outcome.problem, loop.time() - began)
        return outcome

    async def _save(self, cursor: Cursor) -> None:
        """Raises LostLease."""
        async with self._database.write() as tx:
            until = self._database.now() + self._pace.lease
            if not await webhooks.move(tx, self._endpoint.name, self._owner, cursor, until):
                raise LostLease

    def _pause(self, attempts: int, outcome: Outcome) -> timedelta:
        """Growing, with half of it left to chance, so that endpoints behind one dead host do not come back at once."""
        longest = min(self._pace.first_pause * 2.0 ** min(attempts - 1, 20), LONGEST_PAUSE)
        pause = longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        return max(pause, outcome.pause) if outcome.pause else pause

    async def _sleep(self, pause: timedelta) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause.total_seconds() * random.uniform(0.8, 1.0)):  # noqa: S311  # no secret
                await self._stopping.wait()
