"""Opening the content database, its transactions and its migrations."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import migrations.storage
from ocispec.errors import FailedPrecondition, InvalidArgument, Unavailable
from storage.errors import StoreFull
from storage.metadata.changes import Changes
from storage.metadata.dialect import WRITE, ChangeWatch, is_full, make_engine, make_watch
from storage.observation import Observer, Unobserved


class DatabaseTooNew(FailedPrecondition):
    """A later Seawall wrote this database: an older program would misread it."""


class DatabaseBehind(FailedPrecondition):
    """The database wants migrating and the caller asked not to."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or the file is no database."""


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
        self._engine = engine
        self._writer = engine.execution_options(**WRITE)
        # One writer at a time within a process: SQLite has one write lock anyway, and queueing here is fair and
        # wakes at once, where its busy handler sleeps and may starve.
        self._lock = asyncio.Lock()
        self.changes = Changes(watch)
        self.now = clock
        self.observer: Observer = observer or Unobserved()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A snapshot: all its queries see the same state."""
        with self.observer.span("database", "read"):
            try:
                async with self._engine.connect() as connection:
                    yield connection
            except (DBAPIError, OSError) as error:
                raise _translate(error) from error

    async def check(self) -> None:
        """Whether it answers and has the schema of this program. Raises DatabaseUnavailable, DatabaseTooNew,
        DatabaseBehind."""
        async with self.read() as tx:
            await tx.run_sync(lambda connection: _is_current(connection, _scripts(connection)[1]))

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        with self.observer.span("database", "write"):
            with self.observer.span("database", "wait"):
                await self._lock.acquire()
            try:
                async with self._writer.begin() as connection:
                    yield connection
            except (DBAPIError, OSError) as error:
                raise _translate(error) from error
            finally:
                self._lock.release()


def _translate(error: DBAPIError | OSError) -> Exception:
    """An OSError is asyncpg's when no server listens: SQLAlchemy passes it on as it is."""
    if isinstance(error, OSError):
        return DatabaseUnavailable(f"the metadata database does not answer: {error}")
    text = str(error.orig)
    if is_full(error):
        return StoreFull(f"the metadata database took no more rows: {text}")
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return DatabaseUnavailable(f"the metadata database does not answer: {text}")
    return error


@asynccontextmanager
async def open_database(url: str, *, migrate: bool = True, clock: Clock = utc_now,
                        observer: Observer | None = None) -> AsyncIterator[Database]:
    """Open (and migrate) the database at `url`: `sqlite+aiosqlite:///<file>` or `postgresql+asyncpg://…`.

    Raises InvalidArgument for a URL that names no driver we have, DatabaseUnavailable, DatabaseTooNew, and
    DatabaseBehind when `migrate` is False and the schema is older than the program.
    """
    try:
        engine = make_engine(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise InvalidArgument(f"database URL is not usable: {error}") from error
    watch: ChangeWatch | None = None
    try:
        try:
            async with engine.execution_options(**WRITE).begin() as connection:
                await connection.run_sync(_migrate, migrate)
        except DBAPIError as error:
            raise DatabaseUnavailable(f"the metadata database cannot be opened: {error.orig}") from error
        except OSError as error:
            raise DatabaseUnavailable(f"the metadata database does not answer: {error}") from error
        watch = make_watch(engine)
        yield Database(engine, watch, clock, observer)
    finally:
        if watch is not None:
            watch.close()
        await engine.dispose()


def _migrate(connection: Connection, migrate: bool) -> None:
    config, scripts = _scripts(connection)
    if _is_current(connection, scripts, behind=migrate):
        return
    command.upgrade(config, "head")


def _scripts(connection: Connection) -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.storage.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config, ScriptDirectory.from_config(config)


def _is_current(connection: Connection, scripts: ScriptDirectory, *, behind: bool = False) -> bool:
    """Raises DatabaseTooNew, and DatabaseBehind unless `behind` is allowed."""
    current = set(MigrationContext.configure(connection).get_current_heads())
    unknown = current - {revision.revision for revision in scripts.walk_revisions()}
    if unknown:
        raise DatabaseTooNew(f"the database is at revision {', '.join(sorted(unknown))}, which a later Seawall wrote: "
                             "upgrade this one")
    if current == set(scripts.get_heads()):
        return True
    if not behind:
        raise DatabaseBehind("the database is older than this program: run `seawall-registry migrate`")
    return False
