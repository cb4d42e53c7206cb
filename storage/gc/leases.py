"""Leases: what a lease names is not collected while it is held, tagged or not, stored already or still to come."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from ocispec.digest import Digest
from ocispec.errors import SeawallError
from storage.metadata import leases as rows
from storage.metadata.engine import Database

log = logging.getLogger(__name__)

RENEWALS = 3  # so many within a lease's time to live: two may fail


class Lease:
    """Held until the `hold` block ends."""

    def __init__(self, database: Database, lease_id: str) -> None:
        self._database = database
        self.id = lease_id

    async def add(self, *digests: Digest) -> None:
        """Before one looks whether the content is there: then what was found stays."""
        async with self._database.write() as tx:
            await rows.add(tx, self.id, digests)


class Leases:
    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def hold(self, owner: str, *, ttl: timedelta) -> AsyncIterator[Lease]:
        """A lease for the block. `owner` says in reports who holds it. It is renewed while the block runs, and when
        the process dies it expires after `ttl`."""
        lease = Lease(self._database, str(uuid.uuid4()))
        async with self._database.write() as tx:
            await rows.insert(tx, lease.id, owner, self._database.now() + ttl)
        renewing = asyncio.create_task(self._renew(lease.id, ttl))
        try:
            yield lease
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            await self._release(lease.id)

    async def _release(self, lease_id: str) -> None:
        try:
            async with self._database.write() as tx:
                await rows.delete(tx, lease_id)
        except SeawallError as error:  # it expires by itself, and must not hide why the block ended
            log.warning("lease %s is not released: %s", lease_id, error.message)

    async def _renew(self, lease_id: str, ttl: timedelta) -> None:
        while True:
            await asyncio.sleep(ttl.total_seconds() / RENEWALS)
            try:
                async with self._database.write() as tx:
                    await rows.renew(tx, lease_id, self._database.now() + ttl)
            except SeawallError as error:
                log.warning("lease %s is not renewed: %s", lease_id, error.message)
