"""Hearing, before an answer is given from memory, of what any process has committed."""

import asyncio
import contextlib
import logging
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger(__name__)

EVERYTHING = "*"
"""Stands for every name: more changed than was counted, or nobody listened for a while."""


class ChangeWatch(Protocol):
    """Tells cheaply, before every read from memory, what has stopped being true, whoever changed it."""

    async def look(self) -> None:
        """Afterwards `poll` knows every commit that had returned when `look` was called. Never raises."""
        ...

    def poll(self) -> Collection[str] | None:
        """Names of the repositories and, with a "!" before, topics that changed (`repositories.outdate`,
        `topics.outdate`) since the last poll, in any process. None when this is not known now: believe no memory."""
        ...

    def changed_here(self) -> None:
        """This process has committed such a change; what the last `look` saw is too old now."""
        ...


class SqliteWatch:
    """`PRAGMA data_version` of a connection that never writes: it changes with every commit by any other connection.

    It reads two words of shared memory under a read lock that never waits: 4 µs here, no disk, so it runs on the
    event loop, and a poll needs no look before. Only after a commit does it ask what is concerned, one look into two
    indexes (another 6 µs). The alternative, a thread hop for each request, costs 100 µs.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        self._version = -1
        self._generation: int = self._fetch("""
            SELECT max((SELECT coalesce(max(generation), 0) FROM repositories),
                       (SELECT coalesce(max(generation), 0) FROM topics))""")[0][0]

    async def look(self) -> None:
        """`poll` itself looks."""

    def poll(self) -> Collection[str] | None:
        try:
            version: int = self._fetch("PRAGMA data_version")[0][0]
            if version == self._version:
                return ()
            rows = self._fetch("""
                SELECT name, generation FROM repositories WHERE generation > ?1
                UNION ALL SELECT '!' || name, generation FROM topics WHERE generation > ?1""", self._generation)
        except sqlite3.Error:
            return None
        self._version = version
        self._generation = max((row[1] for row in rows), default=self._generation)
        return [row[0] for row in rows]

    def changed_here(self) -> None:
        """`poll` sees it like any other."""

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _fetch(self, sql: str, *values: int) -> list[Any]:
        # fetchall, because an unfinished cursor would hold the read lock and keep the WAL from being reset.
        return self._connection.execute(sql, values).fetchall()


# What is visible now and was not in the snapshot of the last look. `generation` is the number of the transaction that
# changed the row, so no order of commits has to be kept. Rows from a restored dump may carry numbers of the future.
# The limit bounds the answer and makes the planner take the index whatever it thinks of the condition.
_CHANGED_IN = """SELECT {name} FROM {table} WHERE generation >= $2
    AND generation < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    AND NOT pg_visible_in_snapshot(generation::text::xid8, $1::text::pg_snapshot)
    ORDER BY generation DESC LIMIT 1001"""
_LOOK = f"""SELECT pg_current_snapshot()::text,
    ARRAY({_CHANGED_IN.format(name="name", table="repositories")}),
    ARRAY({_CHANGED_IN.format(name="'!' || name", table="topics")})"""
_MOST = 1000


class PostgresWatch:
    """One small query on a connection of its own, shared by all requests that wait when it is sent.

    A request that began after another replica's commit had returned sees that commit, as with SQLite: its query is
    sent after it arrived. Rejected: LISTEN/NOTIFY alone. A notification arrives some time after the commit has
    returned, so a tag moved through one replica could be read old through the next; every NOTIFY takes a lock that all
    committing transactions share; and it does not pass a pooler. See docs/postgres.md for what this costs.
    """

    TRUST = 1.0
    """Seconds after a look for which `poll` answers: requests ask it right after theirs, and whoever forgot to look
    is at most so far behind."""
    PATIENCE = 2.0
    """Seconds that a look may take before memory is given up until the connection is back."""
    BACK_OFF = (0.05, 0.1, 0.2, 0.5, 1.0)

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._connected = False
        self._changed: set[str] = set()
        self._looked = -math.inf
        self._own = 0

    async def look(self) -> None:
        if not self._connected:
            return
        answered = asyncio.get_running_loop().create_future()
        self._waiting.append(answered)
        self._wake.set()
        await answered

    def poll(self) -> Collection[str] | None:
        if time.monotonic() - self._looked > self.TRUST:
            return None
        if not self._changed:
            return ()
        changed, self._changed = self._changed, set()
        return changed

    def changed_here(self) -> None:
        self._own += 1
        self._looked = -math.inf

    async def run(self) -> None:
        """Until it is cancelled. It connects again, ever more slowly; until then nobody waits and no memory counts."""
        import asyncpg

        failures = 0
        while True:
            try:
                async with self._engine.connect() as connection:
                    pooled = await connection.get_raw_connection()
                    driver: Any = pooled.driver_connection
                    try:
                        snapshot = await driver.fetchval("SELECT pg_current_snapshot()::text", timeout=self.PATIENCE)
                        failures = 0
                        await self._answer(driver, snapshot)
                    finally:
                        await connection.invalidate()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError) as error:
                log.warning("cannot hear of other replicas' changes, every read asks the database: %s", error)
            except Exception:  # whatever a driver raises when its connection breaks: this task must go on
                log.exception("cannot hear of other replicas' changes, every read asks the database")
            finally:
                self._disconnected()
            await asyncio.sleep(self.BACK_OFF[min(failures, len(self.BACK_OFF) - 1)])
            failures += 1

    async def _answer(self, driver: Any, snapshot: str) -> None:
        self._changed.add(EVERYTHING)
        self._connected = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            sent, own = time.monotonic(), self._own
            try:
                oldest = int(snapshot.partition(":")[0])
                snapshot, *changed = await driver.fetchrow(_LOOK, snapshot, oldest, timeout=self.PATIENCE)
                for names in changed:
                    self._changed.update(names if len(names) <= _MOST else (EVERYTHING,))
                if own == self._own:
                    self._looked = sent
            except BaseException:
                self._looked = -math.inf  # before those who wait go on: what the last look saw is not what they asked
                raise
            finally:
                _release(batch)

    def _disconnected(self) -> None:
        self._connected = False
        self._looked = -math.inf
        _release(self._waiting)
        self._waiting = []


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for answered in waiting:
        if not answered.done():  # its request may have been cancelled
            answered.set_result(None)


@asynccontextmanager
async def watching(engine: AsyncEngine) -> AsyncIterator[ChangeWatch]:
    """For one event loop. Raises what opening the database again can raise."""
    path = engine.url.database
    if engine.dialect.name == "sqlite" and path:
        local = SqliteWatch(Path(path))
        try:
            yield local
        finally:
            local.close()
        return
    watch = PostgresWatch(engine)
    running = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        running.cancel()
        await asyncio.wait([running])
