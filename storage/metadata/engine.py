"""Opening the content database, its transactions and its migrations."""

import asyncio
from collections.abc import AsyncIterator
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

import migrations
from ocispec.errors import FailedPrecondition, InvalidArgument, Unavailable
from storage.errors import StoreFull
from storage.metadata.dialect import WRITE, ChangeWatch, make_engine, make_watch


class DatabaseTooNew(FailedPrecondition):
    """A later Seawall wrote this database: an older program would misread it."""


class DatabaseBehind(FailedPrecondition):
    """The database wants migrating and the caller asked not to."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or the file is no database."""


def now() -> datetime:
    """UTC, naive, as the tables keep it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Database:
    """An open content database; made by `open_database`."""

    def __init__(self, engine: AsyncEngine, watch: ChangeWatch) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**WRITE)
        # One writer at a time within a process: SQLite has one write lock anyway, and queueing here is fair and
        # wakes at once, where its busy handler sleeps and may starve.
        self._lock = asyncio.Lock()
        self.watch = watch

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot: all its queries see the same state."""
        try:
            async with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise _translate(error) from error

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with self._lock:
            try:
                async with self._writer.begin() as connection:
                    yield connection
            except DBAPIError as error:
                raise _translate(error) from error


def _translate(error: DBAPIError) -> Exception:
    text = str(error.orig)
    if "disk is full" in text or "No space left" in text:
        return StoreFull(f"the metadata database took no more rows: {text}")
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return DatabaseUnavailable(f"the metadata database does not answer: {text}")
    return error


@asynccontextmanager
async def open_database(url: str, *, migrate: bool = True) -> AsyncIterator[Database]:
    """Open (and migrate) the database at `url`.

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
        yield Database(engine, watch)
    finally:
        if watch is not None:
            watch.close()
        await engine.dispose()


def _migrate(connection: Connection, migrate: bool) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent / "storage").replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    current = set(MigrationContext.configure(connection).get_current_heads())
    unknown = current - {revision.revision for revision in scripts.walk_revisions()}
    if unknown:
        raise DatabaseTooNew(f"the database is at revision {', '.join(sorted(unknown))}, which a later Seawall wrote: "
                             "upgrade this one")
    if current == set(scripts.get_heads()):
        return
    if not migrate:
        raise DatabaseBehind("the database is older than this program: run `seawall-registry migrate`")
    command.upgrade(config, "head")
