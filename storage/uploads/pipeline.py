"""One append: while a batch is written and hashed, the next one arrives. Two batches are in memory at most."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from storage.blobs.store import BlobWriter
from storage.settings import ContentSettings
from storage.uploads.batch import Batch, Shares
from storage.uploads.hashing import Hashed


class Checkpoint(Protocol):
    """Makes what the writer holds durable and records it. After the `last` one nothing more is written."""

    def __call__(self, writer: BlobWriter, hashed: Hashed, *, last: bool) -> Awaitable[None]: ...


class Pipeline:
    """Used once. Writer and hash agree whenever `checkpoint` is called, and after a failure it is called no more."""

    def __init__(self, writer: BlobWriter, hashed: Hashed, settings: ContentSettings, shares: Shares,
                 checkpoint: Checkpoint) -> None:
        self._writer = writer
        self._hashed = hashed
        self._settings = settings
        self._shares = shares
        self._record = checkpoint
        self._in_flight: asyncio.Task[None] | None = None
        self._failed = False
        self._plan_checkpoint()

    async def run(self, chunks: AsyncIterator[bytes]) -> None:
        """Raises what `chunks` raises, after what had arrived was stored, and what writer or checkpoint raise."""
        batch = Batch(self._shares.batch)
        try:
            try:
                async for chunk in chunks:
                    batch.add(chunk)
                    if batch.full:
                        await self._dispatch(batch)
                        batch = Batch(self._shares.batch)
            finally:
                await self._finish(batch)
        finally:
            await self._abandon()

    async def _finish(self, batch: Batch) -> None:
        """Also when the source broke off or the caller was cancelled: the client resumes behind what arrived. Not
        when a write failed, since what came after it would leave a gap."""
        await self._settle()
        if not self._failed:
            await self._dispatch(batch)
            await self._settle()
            await self._checkpoint(last=True)

    async def _dispatch(self, batch: Batch) -> None:
        """Begin to store the batch, once the one before is stored. Taken if this returns, untouched if it raises."""
        await self._settle()
        if self._writer.offset >= self._checkpoint_at or time.monotonic() >= self._checkpoint_by:
            await self._checkpoint(last=False)
        if batch.size:
            self._in_flight = asyncio.create_task(self._store(batch))

    async def _settle(self) -> None:
        """Wait for the batch in flight; its failure is raised here, once. Cancelling the caller does not cancel it:
        writer and hash must come to agree before anybody looks at them."""
        task = self._in_flight
        if task is None:
            return
        try:
            await asyncio.shield(task)
        finally:
            if task.done():
                self._in_flight = None

    async def _abandon(self) -> None:
        """Nothing may still write when the caller closes the writer, however often it is cancelled."""
        while self._in_flight is not None and not self._in_flight.done():
            try:
                await asyncio.wait([self._in_flight])
            except asyncio.CancelledError:
                continue

    async def _store(self, batch: Batch) -> None:
        # Both at once, each in a thread: on two cores a batch costs the slower of the two.
        try:
            write = self._writer.write(batch.chunks)
            for error in await asyncio.gather(write, self._hashed.update(batch.chunks), return_exceptions=True):
                if error is not None:
                    raise error
        except BaseException:
            self._failed = True
            raise

    async def _checkpoint(self, *, last: bool) -> None:
        try:
            await self._record(self._writer, self._hashed, last=last)
        except BaseException:
            self._failed = True
            raise
        self._plan_checkpoint()

    def _plan_checkpoint(self) -> None:
        # At multiples, and not so much further on: in a bucket, what lies beyond a whole part is stored twice then.
        every = self._settings.checkpoint_bytes
        self._checkpoint_at = (self._writer.offset // every + 1) * every
        self._checkpoint_by = time.monotonic() + self._settings.checkpoint_every.total_seconds()
