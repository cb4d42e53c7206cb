"""SQLite's driver with one trip to its thread for a statement.

SQLAlchemy's adapter of aiosqlite makes four: for the cursor, the execution, the rows, and to close the cursor. Each
wakes a thread and the event loop, which costs more than what most of our statements do: half the processor time of a
push was spent on it. Rows are fetched whole anyway, so all four are one call here. It also leaves no open cursor
behind when its caller is cancelled.
"""

import collections
import sqlite3
from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection, AsyncAdapt_aiosqlite_cursor

_Result = tuple[list[Any], Any, int, int | None]


class OneHopCursor(AsyncAdapt_aiosqlite_cursor):
    __slots__ = ("_done",)

    _done: _Result

    def __init__(self, connection: Any) -> None:
        self._adapt_connection = connection
        self._connection = connection._connection  # noqa: SLF001  # the driver's, beneath SQLAlchemy's
        self._rows = collections.deque()
        self._done = ([], None, -1, None)

    @property
    def description(self) -> Any:
        return self._done[1]

    @property
    def rowcount(self) -> int:
        return self._done[2]

    @property
    def lastrowid(self) -> Any:
        return self._done[3]

    @property
    def arraysize(self) -> int:
        return 1

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        """`fetchmany` is always told how many."""

    def close(self) -> None:
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """Nothing is open."""

    async def _execute_async(self, operation: Any, parameters: Any) -> None:
        await self._run("execute", operation, () if parameters is None else parameters)

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> None:
        await self._run("executemany", operation, seq_of_parameters)

    async def _run(self, method: str, operation: Any, parameters: Any) -> None:
        driver: Any = self._connection
        async with self._adapt_connection._execute_mutex:  # noqa: SLF001
            self._done = await driver._execute(_run, driver._conn, method, operation, parameters)  # noqa: SLF001
        self._rows = collections.deque(self._done[0])


class OneHopConnection(AsyncAdapt_aiosqlite_connection):
    __slots__ = ()

    _cursor_cls = OneHopCursor  # type: ignore[assignment]  # it fetches rows as the other does


def connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> OneHopConnection:
    """SQLAlchemy's `do_connect`."""
    made = dialect.connect(*arguments, **options)
    return OneHopConnection(made.dbapi, made._connection)  # noqa: SLF001


def _run(connection: sqlite3.Connection, method: str, operation: str, parameters: Any) -> _Result:
    cursor = connection.cursor()
    try:
        getattr(cursor, method)(operation, parameters)
        rows = cursor.fetchall() if cursor.description else []
        return rows, cursor.description, cursor.rowcount, cursor.lastrowid
    finally:
        cursor.close()
