"""state.db: one SQLite file in WAL mode, migrated when it is opened.

`synchronous=NORMAL`: a killed daemon loses nothing; a power cut may lose the last transitions but never tears the
file, and the boot id tells the next daemon that nothing can be running anyway.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

import migrations
from ocispec.errors import Unavailable

PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000", "temp_store=MEMORY")


class StateUnusable(Unavailable):
    """state.db cannot be opened, read or written; the message says why."""


class State:
    """An open state.db. Row classes take it in their constructor and use `write` and `read`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed when the block ends and rolled back when it raises."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise StateUnusable(f"the node's state cannot be written: {error.orig}") from error

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except OperationalError as error:
            raise StateUnusable(f"the node's state cannot be read: {error.orig}") from error


@asynccontextmanager
async def open_state(path: Path) -> AsyncIterator[State]:
    """Raises StateTooNew when a later Seawall wrote the file, StateUnusable when it is no database of ours."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    event.listen(engine.sync_engine, "connect", _prepare)
    try:
        await asyncio.to_thread(_probe, path)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_migrate, path)
        except DatabaseError as error:
            raise StateUnusable(f"{path} cannot be opened: {error.orig}") from error
        yield State(engine)
    finally:
        await engine.dispose()


def _probe(path: Path) -> None:
    """Raises StateUnusable. Before aiosqlite, whose thread outlives a failure to open and complains when the event loop
    has ended by then."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        raise StateUnusable(f"{path} cannot be opened: {error}") from error


def _prepare(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(connection: Connection, path: Path) -> None:
    folder = Path(migrations.__file__).parent / "node" / "versions"
    if at_newest(connection, [file.name for file in folder.glob("v*.py")]):
        return
    # Late: alembic is of use once in a release, and would stay in memory.
    from node.state.upgrade import migrate

    migrate(connection, path)


def at_newest(connection: Connection, files: list[str]) -> bool:
    """Whether the database's revision is that of the last file (v<revision>_<what>.py)."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    found = [str(row[0]) for row in connection.exec_driver_sql("SELECT version_num FROM alembic_version")]
    return found == [max(files).removeprefix("v").partition("_")[0]]
