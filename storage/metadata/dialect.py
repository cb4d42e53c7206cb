"""What differs between SQLite and Postgres: connecting, transactions, and hearing of other processes' writes."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

WRITE = {"seawall_write": True}
"""Execution options of a connection that is going to write."""

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000", "temp_store=MEMORY")


def make_engine(url: str) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///file` or `postgresql+asyncpg://…`."""
    if not url.startswith("sqlite"):
        return create_async_engine(url, pool_pre_ping=True)
    engine = create_async_engine(url)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own idea of when a transaction begins is off: with it a transaction that reads before it writes
    # starts as a reader and fails with SQLITE_BUSY when somebody else wrote in between.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("seawall_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def insert_or_ignore(connection: Any, table: sa.Table, values: Any) -> Any:
    """INSERT that leaves an existing row alone; `rowcount` says whether it was new."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table).values(values).on_conflict_do_nothing()


def upsert(connection: Any, table: sa.Table, values: dict[str, Any], keys: list[str]) -> Any:
    """INSERT, or UPDATE of the row with these `keys`."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values)
    changed = {name: statement.excluded[name] for name in values if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


class ChangeWatch(Protocol):
    """Tells cheaply whether anybody, in any process, has committed since."""

    def version(self) -> int | None:
        """A number that differs after every commit; None when this cannot be known, so nothing may be cached."""
        ...

    def close(self) -> None: ...


class SqliteWatch:
    """`PRAGMA data_version` of a connection that never writes: it changes with every commit by any other connection.

    It reads a word of shared memory (about 2 µs here, no lock, no disk), so it may run on the event loop.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._cursor = self._connection.cursor()

    def version(self) -> int | None:
        try:
            row: tuple[int] = self._cursor.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return None
        return row[0]

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


class NoWatch:
    """Postgres, until LISTEN/NOTIFY is wired: every read asks the database."""

    def version(self) -> int | None:
        return None

    def close(self) -> None:
        """Nothing is held."""


def make_watch(engine: AsyncEngine) -> ChangeWatch:
    path = engine.url.database
    if engine.dialect.name == "sqlite" and path and path != ":memory:":
        return SqliteWatch(Path(path))
    return NoWatch()
