"""Work that one process of all replicas does at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from ocispec.errors import SeawallError
from storage.metadata import reviews as rows
from storage.metadata.engine import Database

log = logging.getLogger(__name__)

TTL = timedelta(seconds=60)
"""After the death of its holder a duty is free in so long."""

RENEWALS = 4


class Duty:
    """`holder` names this process among all. That two believe to hold it (one was stopped for longer than `TTL`) must
    be harmless: this saves work, it does not exclude."""

    def __init__(self, database: Database, name: str, holder: str) -> None:
        self._database = database
        self._name = name
        self._holder = holder

    def beside(self, name: str) -> "Duty":
        """Another duty of the same process."""
        return Duty(self._database, name, self._holder)

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[bool]:
        """Whether it is ours for the block."""
        if not await self._take():
            yield False
            return
        renewing = asyncio.create_task(self._renew())
        try:
            yield True
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            try:
                async with self._database.write() as tx:
                    await rows.drop_duty(tx, self._name, self._holder)
            except SeawallError as error:  # it expires by itself
                log.warning("duty %s is not given back: %s", self._name, error.message)

    async def since_done(self, what: str) -> timedelta | None:
        """How long ago `what` was completed; None: never, or it is wanted again."""
        async with self._database.read() as tx:
            at = await rows.last_done(tx, what)
        return None if at is None else self._database.now() - at

    async def done(self, what: str, at: datetime) -> None:
        async with self._database.write() as tx:
            await rows.note_done(tx, what, at)

    async def _take(self) -> bool:
        now = self._database.now()
        async with self._database.write() as tx:
            return await rows.take_duty(tx, self._name, self._holder, now, now + TTL)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(TTL.total_seconds() / RENEWALS)
            try:
                await self._take()
            except SeawallError as error:
                log.warning("duty %s is not renewed: %s", self._name, error.message)
