"""What differs between SQLite and Postgres: connecting, transactions, and hearing of other processes' writes."""

import contextlib
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

WRITE = {"seawall_write": True}
"""Execution options of a connection that is going to write."""

_WRITERS = 0x5EA3A11  # any number that no other program takes in this database
# The timeout first: switching to WAL is the one thing that several processes may do to a new file at once.
_PRAGMAS = ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY")


def make_engine(url: str) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///file` or `postgresql+asyncpg://…`. Raises sqlalchemy's ArgumentError."""
    engine = create_async_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "postgresql":
        event.listen(engine.sync_engine, "begin", _begin_postgres)
        return engine
    if engine.dialect.name != "sqlite":
        raise ArgumentError(f"{engine.dialect.name} is not supported (want sqlite+aiosqlite or postgresql+asyncpg)")
    if engine.url.database in (None, "", ":memory:"):
        raise ArgumentError("SQLite must be a file: several connections share it")
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


def _begin_postgres(connection: sa.Connection) -> None:
    """One writer at a time, as in SQLite: what is argued once for a transaction (that marking and deleting see one
    state, that two pushes of one tag have an order) holds upon both. The lock ends with the transaction. Rejected for
    now: row locks in a fixed order, which every query would have to keep to."""
    if connection.get_execution_options().get("seawall_write"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def insert_or_ignore(connection: Any, table: sa.Table, values: Any) -> Any:
    """INSERT that leaves an existing row alone. `values` None: they come with `execute`, for many rows."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table) if values is None else insert(table).values(values)
    return statement.on_conflict_do_nothing()


def upsert(connection: Any, table: sa.Table, values: dict[str, Any], keys: list[str]) -> Any:
    """INSERT, or UPDATE of the row with these `keys`."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values)
    changed = {name: statement.excluded[name] for name in values if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def upsert_select(connection: Any, table: sa.Table, columns: list[str], source: Any, keys: list[str],
                  changed: Callable[[Any], dict[str, Any]]) -> Any:
    """INSERT of what `source` selects; where a row with these `keys` is, `changed` gives its new values from those that
    were to be inserted."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    # SQLite takes the ON of ON CONFLICT for a join's unless a WHERE stands before it.
    statement = insert(table).from_select(columns, source)
    return statement.on_conflict_do_update(index_elements=keys, set_=changed(statement.excluded))


def next_generation(connection: Any) -> Any:
    """A number for `generation`, as an SQL expression: greater than all before in SQLite, the transaction's own in
    Postgres, where two transactions that run side by side have no order yet."""
    if connection.dialect.name == "postgresql":
        return sa.literal_column("pg_current_xact_id()::text::bigint")
    return sa.literal_column(f"(({_NEWEST}) + 1)")


def transaction_number(connection: Any) -> sa.ColumnElement[int]:
    """For a column that orders rows by the transaction that wrote them, where transactions run beside each other."""
    if connection.dialect.name != "postgresql":
        return sa.literal(0, sa.BigInteger)
    return _number(sa.func.pg_current_xact_id())


def settled(connection: Any, written: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Rows that no row with a lower `written` can still appear before."""
    if connection.dialect.name != "postgresql":
        return sa.true()
    return written < _number(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()))


def _number(transaction: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    return sa.cast(sa.cast(transaction, sa.Text), sa.BigInteger)  # there is no cast from xid8 to bigint


class ChangeWatch(Protocol):
    """Tells cheaply, before every read from memory, what has stopped being true, whoever changed it."""

    def poll(self) -> Collection[str] | None:
        """Names of the repositories and, with a "!" before, topics that changed (`repositories.outdate`,
        `topics.outdate`) since the last poll, in any process: a commit that had returned when `poll` began is in it.
        None when this cannot be known now: believe no memory."""
        ...

    def close(self) -> None: ...


_NEWEST = """SELECT max((SELECT coalesce(max(generation), 0) FROM repositories),
                        (SELECT coalesce(max(generation), 0) FROM topics))"""
_CHANGED = """SELECT name, generation FROM repositories WHERE generation > ?1
              UNION ALL SELECT '!' || name, generation FROM topics WHERE generation > ?1"""


class SqliteWatch:
    """`PRAGMA data_version` of a connection that never writes: it changes with every commit by any other connection.

    It reads two words of shared memory under a read lock that never waits: 4 µs here, no disk, so it runs on the
    event loop. Only after a commit does it ask what is concerned, one look into two indexes (another 6 µs). The
    alternative, a thread hop for each request, costs 100 µs.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        self._version = -1
        self._generation: int = self._fetch(_NEWEST)[0][0]

    def poll(self) -> Collection[str] | None:
        try:
            version: int = self._fetch("PRAGMA data_version")[0][0]
            if version == self._version:
                return ()
            rows = self._fetch(_CHANGED, self._generation)
        except sqlite3.Error:
            return None
        self._version = version
        self._generation = max((row[1] for row in rows), default=self._generation)
        return [row[0] for row in rows]

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _fetch(self, sql: str, *values: int) -> list[Any]:
        # fetchall, because an unfinished cursor would hold the read lock and keep the WAL from being reset.
        return self._connection.execute(sql, values).fetchall()


class NoWatch:
    """Postgres, until LISTEN/NOTIFY is wired: every read asks the database."""

    def poll(self) -> Collection[str] | None:
        return None

    def close(self) -> None:
        """Nothing is held."""


def make_watch(engine: AsyncEngine) -> ChangeWatch:
    path = engine.url.database
    if engine.dialect.name == "sqlite" and path:
        return SqliteWatch(Path(path))
    return NoWatch()


def is_full(error: DBAPIError) -> bool:
    """Whether the database had no room for more."""
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
    return getattr(error.orig, "sqlstate", None) == "53100"  # disk_full
