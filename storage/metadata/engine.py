"""Opening the content database, its transactions and its migrations."""

import asyncio
import functools
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import migrations.storage
from ocispec.errors import FailedPrecondition, InvalidArgument, Unavailable
from storage.errors import StoreFull
from storage.metadata.changes import Changes
from storage.metadata.dialect import (
    ALONE,
    BESIDE,
    MIGRATING,
    is_conflict,
    is_full,
    is_no_text,
    is_unavailable,
    make_engine,
    newest_state,
    one_state,
    probe,
    takes_memory,
)
from storage.metadata.options import PostgresOptions
from storage.metadata.watch import ChangeWatch, watching
from storage.observation import Observer, Unobserved

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

ATTEMPTS = 5
"""Of a transaction that the database gave up for the sake of another."""


class DatabaseTooNew(FailedPrecondition):
    """A later Seawall wrote this database: an older program would misread it."""


class DatabaseBehind(FailedPrecondition):
    """The database wants migrating and the caller asked not to."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or the file is no database."""


class TransactionConflict(Unavailable):
    """Postgres gave this transaction up for another's sake; nothing of it was done, and it may be tried again."""


def retried(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """For a method with one transaction, and before it nothing that may not be done twice: a conflict begins it anew,
    a few times."""

    @functools.wraps(method)
    async def again(*args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in range(1, ATTEMPTS):
            try:
                return await method(*args, **kwargs)
            except TransactionConflict:
                await asyncio.sleep(random.random() * 0.01 * 2**attempt)  # noqa: S311  # no secret
        return await method(*args, **kwargs)

    return again


Transaction = AsyncConnection
"""What `Database.read` and `write` hand out and every query takes."""

Clock = Callable[[], datetime]
"""Gives an aware datetime."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Database:
    """An open content database; made by `open_database`."""

    def __init__(self, engine: AsyncEngine, watch: ChangeWatch, clock: Clock = utc_now,
                 observer: Observer | None = None) -> None:
        self._reader = one_state(engine)
        self._alone = newest_state(engine).execution_options(**ALONE)
        self._beside = newest_state(engine).execution_options(**BESIDE)
        self._single = engine.dialect.name == "sqlite"
        # One writer at a time within a process: SQLite has one write lock anyway, and queueing here is fair and
        # wakes at once, where its busy handler sleeps and may starve.
        self._lock = asyncio.Lock()
        self._names: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.changes = Changes(watch)
        self.now = clock
        self.observer: Observer = observer or Unobserved()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A snapshot: all its queries see the same state."""
        with self.observer.span("database", "read"):
            try:
                async with self._reader.connect() as connection:
                    yield connection
            except (DBAPIError, PoolTimeout, OSError) as error:
                raise _translate(error) from error

    async def check(self) -> None:
        """Whether it answers and has the schema of this program. Raises DatabaseUnavailable, DatabaseTooNew,
        DatabaseBehind."""
        async with self.read() as tx:
            await tx.run_sync(_check_current)

    @asynccontextmanager
    async def write(self, *, beside: bool = False, about: str | None = None) -> AsyncIterator[Transaction]:
        """One transaction: committed when the block ends, rolled back when it raises.

        No other writes at the same time, in any process, so what it has read stays true until it commits. With
        `beside`, on Postgres, others that say so as well do: for work that clients wait for, whose author has thought
        of what meets what (docs/postgres.md); those `about` the same repository queue here, and not in the database
        with a connection each. Raises Unavailable kinds; after one nothing or, when the connection was
        lost in the very commit, everything is done.
        """
        lock = self._lock if self._single or not beside else self._named(about)
        with self.observer.span("database", "write"):
            with self.observer.span("database", "wait"):
                if lock is not None:
                    await lock.acquire()
            try:
                async with (self._beside if beside else self._alone).begin() as connection:
                    takes_memory(connection)
                    yield connection
                    outdates = takes_memory(connection)
            except (DBAPIError, PoolTimeout, OSError) as error:
                raise _translate(error) from error
            finally:
                if lock is not None:
                    lock.release()
            if outdates:
                self.changes.changed_here()

    def _named(self, name: str | None) -> asyncio.Lock | None:
        return None if name is None else self._names.setdefault(name, asyncio.Lock())


def _translate(error: DBAPIError | PoolTimeout | OSError) -> Exception:
    """An OSError is asyncpg's when no server listens: SQLAlchemy passes it on as it is."""
    if not isinstance(error, DBAPIError):
        return DatabaseUnavailable(f"the metadata database does not answer: {error or type(error).__name__}")
    text = str(error.orig)
    if is_full(error):
        return StoreFull(f"the metadata database took no more rows: {text}")
    if is_no_text(error):
        return InvalidArgument("there is a NUL character in what was asked for")
    if is_conflict(error):
        return TransactionConflict(f"the metadata database gave the change up for another: {text}")
    if isinstance(error, OperationalError) or is_unavailable(error):
        return DatabaseUnavailable(f"the metadata database does not answer: {text}")
    return error


@asynccontextmanager
async def open_database(url: str, *, migrate: bool = True, clock: Clock = utc_now, patience: timedelta = timedelta(0),
                        options: PostgresOptions | None = None,
                        observer: Observer | None = None) -> AsyncIterator[Database]:
    """Open (and migrate) the database at `url`: `sqlite+aiosqlite:///<file>` or `postgresql+asyncpg://…`.

    A database that does not answer yet is asked again for `patience`. Raises InvalidArgument for a URL that names no
    driver we have, DatabaseUnavailable, DatabaseTooNew, and DatabaseBehind when `migrate` is False and the schema is
    older than the program.
    """
    try:
        engine = make_engine(url, options or PostgresOptions())
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise InvalidArgument(f"database URL is not usable: {error}") from error
    try:
        await _prepare(engine, migrate, time.monotonic() + patience.total_seconds())
        async with watching(engine) as watch:
            yield Database(engine, watch, clock, observer)
    finally:
        await engine.dispose()


async def _prepare(engine: AsyncEngine, migrate: bool, deadline: float) -> None:
    wrong = await asyncio.to_thread(probe, engine)
    if wrong is not None:
        raise DatabaseUnavailable(f"the metadata database cannot be opened: {wrong}")
    pause = 0.1
    while True:
        try:
            # Alone: of several replicas that start together one migrates, the others find it done.
            async with newest_state(engine).execution_options(**MIGRATING).begin() as connection:
                await connection.run_sync(_migrate, migrate)
                return
        except (DBAPIError, OSError) as error:
            text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
            absent = isinstance(error, OSError) or is_unavailable(error)
            if not absent or time.monotonic() + pause > deadline:
                raise DatabaseUnavailable(f"the metadata database cannot be opened: {text}") from error
            log.warning("the metadata database does not answer yet, asking again: %s", text)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 2.0)


def _migrate(connection: Connection, migrate: bool) -> None:
    if _at_newest(connection):
        return
    # Late: alembic is of use once in a release, and would stay in memory.
    from storage.metadata import upgrade

    upgrade.run(connection, migrate)


def _check_current(connection: Connection) -> None:
    """Raises DatabaseTooNew, DatabaseBehind."""
    if not _at_newest(connection):
        from storage.metadata import upgrade

        upgrade.is_current(connection, upgrade.scripts_of(connection)[1])


def _at_newest(connection: Connection) -> bool:
    """Whether the schema's revision is that of the last file of migrations (v<revision>_<what>.py)."""
    files = (Path(migrations.storage.__file__).parent / "versions").glob("v*.py")
    newest = max(file.name for file in files).removeprefix("v").partition("_")[0]
    if not inspect(connection).has_table("alembic_version"):
        return False
    return [str(row[0]) for row in connection.exec_driver_sql("SELECT version_num FROM alembic_version")] == [newest]
