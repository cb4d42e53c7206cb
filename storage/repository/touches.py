"""Writing down what clients were told exists.

A client that asked `HEAD` and heard "yes" will not send the blob, and a little later pushes a manifest that needs it.
The collector must not take it in between, so the answer is a promise and the promise is a row: `touched`. To keep
that cheap it is believed for `touch_every` (half an hour) before it is written again, and the answers that wait for
a write share one transaction. The promise is written before the answer goes out: in memory alone another process's
collector would not know of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

from ocispec.errors import SeawallError
from storage.metadata.engine import Database, Transaction, retried

log = logging.getLogger(__name__)

Write = Callable[[Transaction, Collection[int], datetime], Awaitable[None]]


class Touches:
    """Group commit of touches for one kind of row; `write` is its query."""

    def __init__(self, database: Database, write: Write) -> None:
        self._database = database
        self._write = write
        self._waiting: set[int] = set()
        self._next: asyncio.Task[None] | None = None

    async def add(self, row: int) -> None:
        """Returns when the touch is durable, or could not be written: a database that is full or locked must not
        stop reading, and then the collector, which needs it for its own rows, takes nothing either."""
        self._waiting.add(row)
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        await asyncio.shield(self._next)

    async def _run(self) -> None:
        taken: list[Collection[int]] = []

        @retried
        async def write() -> None:
            async with self._database.write(beside=True) as tx:
                if not taken:
                    taken.append(self._take())
                await self._write(tx, taken[0], self._database.now())

        try:
            await write()
        except SeawallError as error:
            if self._next is asyncio.current_task():
                self._take()
            log.warning("cannot record what clients were told exists: %s", error.message)

    def _take(self) -> Collection[int]:
        """From here on newcomers wait for the next transaction: this one may be too far on for them."""
        rows, self._waiting, self._next = self._waiting, set(), None
        return rows
