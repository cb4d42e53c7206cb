"""What differs between SQLite and Postgres: connecting, transactions, and a few statements (`watch` has the rest)."""

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util.concurrency import in_greenlet

from storage.metadata import onehop
from storage.metadata.options import PostgresOptions

ALONE = {"seawall_turn": "alone"}
"""Execution options of a connection that is going to write while nobody else does."""
BESIDE = {"seawall_turn": "beside"}
"""…while others that said the same may write as well."""
MIGRATING = {**ALONE, "seawall_patient": True}
"""…alone, however long it takes and others before it take."""

# Any numbers that no other program takes in this database; the second is the first half of a pair.
_WRITERS, _NAMES = 0x5EA3A11, 0x5EA3A12
# The timeout first: switching to WAL is the one thing that several processes may do to a new file at once.
_PRAGMAS = ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY")


def make_engine(url: str, options: PostgresOptions) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///file` or `postgresql+asyncpg://…`. Raises sqlalchemy's ArgumentError."""
    if sa.make_url(url).get_backend_name() == "postgresql":
        return _make_postgres(url, options)
    # What leaves a transaction ends it: another rollback when the connection goes back to the pool is one trip wasted.
    engine = create_async_engine(url, pool_reset_on_return=None)
    if engine.dialect.name != "sqlite":
        raise ArgumentError(f"{engine.dialect.name} is not supported (want sqlite+aiosqlite or postgresql+asyncpg)")
    if engine.url.database in (None, "", ":memory:"):
        raise ArgumentError("SQLite must be a file: several connections share it")
    event.listen(engine.sync_engine, "do_connect", onehop.connect)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    event.listen(engine.sync_engine.pool, "invalidate", _roll_back)
    return engine


def _make_postgres(url: str, options: PostgresOptions) -> AsyncEngine:
    def milliseconds(seconds: float) -> str:
        return str(round(seconds * 1000))

    # A replica that vanishes without a word (its machine died) must not keep its locks: the server drops it by itself.
    server = {"application_name": "seawall", "statement_timeout": milliseconds(options.statement_timeout),
              "lock_timeout": milliseconds(options.lock_timeout),
              "idle_in_transaction_session_timeout": milliseconds(options.statement_timeout),
              "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
    # One connection more than asked for: the watch has it. And an answer that does not come at all, from a server that
    # vanished, ends a little after the server itself would have ended the statement.
    engine = create_async_engine(
        url, pool_size=options.connections + 1, max_overflow=0, pool_timeout=options.statement_timeout,
        connect_args={"timeout": options.connect_timeout, "command_timeout": options.statement_timeout + 5,
                      "server_settings": server})
    event.listen(engine.sync_engine, "begin", _begin_postgres)
    event.listen(engine.sync_engine, "checkout", _check_postgres)
    return engine


def _check_postgres(connection: Any, _record: Any, _proxy: Any) -> None:
    # A server that closed the connection said so, and the event loop has heard it: a ping at each check-out, which is
    # SQLAlchemy's way, would cost two more ways to the server and back.
    if connection._connection.is_closed():  # noqa: SLF001 - the driver's connection has no public name here
        raise DisconnectionError("the server closed the connection")


def probe(engine: AsyncEngine) -> str | None:
    """What is wrong with a SQLite file, if something is. Blocks. aiosqlite leaves a thread behind when it cannot open a
    file, which fails loudly when the event loop has ended before it."""
    if engine.dialect.name != "sqlite":
        return None
    try:
        with contextlib.closing(sqlite3.connect(engine.url.database or "", timeout=30)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own idea of when a transaction begins is off: with it a transaction that reads before it writes
    # starts as a reader and fails with SQLITE_BUSY when somebody else wrote in between.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _roll_back(connection: Any, _record: Any, _error: Any) -> None:
    """SQLAlchemy closes the connection of a task that was cancelled within a statement. But a statement that somebody
    still refers to (the exception's traceback does) keeps a closed SQLite connection half alive (sqlite3_close_v2),
    and with it the write lock: everybody else would wait, and fail."""
    if in_greenlet():
        connection.rollback()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if "seawall_turn" in connection.get_execution_options() else "BEGIN")


def _begin_postgres(connection: sa.Connection) -> None:
    """A writer alone, as every writer of SQLite is: what is argued once (that marking and deleting see one state)
    holds upon both. Or beside others; never both at once. The lock ends with the transaction, however that ends, and
    a statement's snapshot is taken after it (READ COMMITTED), so a writer sees all that the one before did."""
    options = connection.get_execution_options()
    if options.get("seawall_patient"):
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {name} = 0")
    turn = options.get("seawall_turn")
    if turn is not None:
        shared = "_shared" if turn == "beside" else ""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{shared}({_WRITERS})")


def one_state(engine: AsyncEngine) -> AsyncEngine:
    """For transactions that only read, with one snapshot for all their queries; SQLite has no other."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine


def newest_state(engine: AsyncEngine) -> AsyncEngine:
    """For transactions that write: each statement sees what was committed before it. Not left to the server's default,
    for with another one the snapshot would be as old as the wait for the lock."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="READ COMMITTED")
    return engine


def sees_newest(connection: AsyncConnection) -> bool:
    """Whether what this transaction reads next is as new as every change that was known of before. A reader's snapshot
    is as old as its first query; a writer's is the newest (SQLite: nobody else writes; Postgres: READ COMMITTED)."""
    return connection.sync_connection is not None and (
        "seawall_turn" in connection.sync_connection.get_execution_options())


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


def joined_lines(connection: Any, column: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    """The column's values with a newline between; NULL of none."""
    if connection.dialect.name == "postgresql":
        return sa.func.string_agg(column, "\n")
    return sa.func.group_concat(column, "\n")


def position(connection: Any, column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[int]:
    """Where the text begins in the column, from 1; 0: nowhere. Case matters."""
    return (sa.func.strpos if connection.dialect.name == "postgresql" else sa.func.instr)(column, text)


def locked(connection: Any, query: sa.Select[Any]) -> sa.Select[Any]:
    """The query, its rows kept from other writers until the transaction ends. SQLite's one writer has all rows."""
    # Not FOR UPDATE: that would also keep out who merely refers to the row by a foreign key.
    return query.with_for_update(key_share=True) if connection.dialect.name == "postgresql" else query


async def lock_name(connection: AsyncConnection, name: str) -> None:
    """Keeps out others that lock the same name until the transaction ends. Two names may share a lock, by a hash."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_NAMES, sa.func.hashtext(name))))


def next_generation(connection: Any) -> Any:
    """A number for `generation`, as an SQL expression: greater than all before in SQLite, the transaction's own in
    Postgres, where two transactions that run side by side have no order yet. Also notes upon the connection that its
    transaction makes memory false (`takes_memory`)."""
    connection.info[_OUTDATES] = True
    if connection.dialect.name == "postgresql":
        return sa.literal_column("pg_current_xact_id()::text::bigint")
    return sa.literal_column("(max((SELECT coalesce(max(generation), 0) FROM repositories), "
                             "(SELECT coalesce(max(generation), 0) FROM topics)) + 1)")


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


_OUTDATES = "seawall_outdates"


def takes_memory(connection: Any) -> bool:
    """Whether `next_generation` was asked for since this was asked last."""
    return bool(connection.info.pop(_OUTDATES, False))


def is_conflict(error: DBAPIError) -> bool:
    """Whether the same transaction may well succeed when it is tried again."""
    return getattr(error.orig, "sqlstate", None) in ("40001", "40P01")  # serialization_failure, deadlock_detected


def is_no_text(error: DBAPIError) -> bool:
    """Whether the client wrote a NUL where text is wanted: Postgres keeps none, SQLite any."""
    return getattr(error.orig, "sqlstate", None) == "22021"  # character_not_in_repertoire


def is_unavailable(error: DBAPIError) -> bool:
    """Whether the database is not there, or could not do it in time; nothing is wrong with the statement."""
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    # Classes 08 connection, 57 operator intervention (shutting down, starting, cancelled by timeout), 53 resources;
    # 55P03 lock_not_available; 25P03 idle_in_transaction_session_timeout; 25006 read only: a standby was promoted or
    # demoted beneath us.
    return state[:2] in ("08", "57", "53") or state in ("55P03", "25P03", "25006")


def is_full(error: DBAPIError) -> bool:
    """Whether the database had no room for more."""
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
    return getattr(error.orig, "sqlstate", None) == "53100"  # disk_full
