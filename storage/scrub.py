"""Reading everything that is stored and comparing it with what it is called.

It runs beside whatever else uses the store: a blob that was deleted or replaced meanwhile is no damage. Bytes that no
row names are not its business but the collector's. How far it has come is in the rows (`verified`), so a pass that was
interrupted goes on, in whichever process.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.blobs.store import BlobReader, BytesMissing, StoreUnavailable
from storage.metadata import blobs as blob_rows
from storage.metadata import scrub as rows
from storage.metadata.engine import Database
from storage.metadata.scrub import Affected, BlobToRead, ManifestToRead
from storage.uploads.hashing import Hashed

PAGE = 500
MANIFEST_PAGE = 16  # of 4 MiB each, at worst
STAMP_BLOBS, STAMP_BYTES = 100, 512 * 1024 * 1024
"""So much is read before it is written down: what an interruption may cost."""

ATTEMPTS, PAUSE = 3, 1.0
HOPELESS = 20
"""Blobs in a row that cannot be read for another reason than their absence: the store is down, not the blobs bad."""


class Fault(Enum):
    """What is wrong, and what it means."""

    MISSING = "missing-bytes"
    CUT = "wrong-size"
    CHANGED = "wrong-digest"
    UNREADABLE = "unreadable"
    MANIFEST = "manifest-wrong-digest"


@dataclass(frozen=True, slots=True)
class ScrubOptions:
    """`rate`: bytes a second, 0 for as fast as it goes. `since`: what was found whole so shortly ago is not read
    again. `restart`: a pass that was interrupted is given up, not continued. `quarantine`: damaged blobs are served no
    more until their content is uploaded again."""

    rate: int = 0
    jobs: int = 2
    since: timedelta | None = None
    restart: bool = False
    quarantine: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """`where`: the storage key of a blob. `repositories` hold the content; `affected` are the manifests that cannot be
    pulled whole for it."""

    fault: Fault
    digest: Digest
    what: str
    size: int
    where: str = ""
    repositories: tuple[RepositoryName, ...] = ()
    affected: tuple[Affected, ...] = ()
    quarantined: bool = False


@dataclass(slots=True)
class ScrubReport:
    """`to_read` and `to_read_bytes`: of blobs, as counted at the beginning."""

    started: datetime
    continued: bool
    to_read: int = 0
    to_read_bytes: int = 0
    blobs: int = 0
    bytes: int = 0
    manifests: int = 0
    gone: int = 0
    damaged: int = 0


Found = Callable[[Damage], None]


class Pace:
    """Spreads bytes over time, whoever reads them."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def spend(self, count: int) -> None:
        if not self._rate:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + count / self._rate
        await asyncio.sleep(self._free_at - now)


@dataclass(slots=True)
class _Run:
    """What one call of `Scrubber.run` shares among its readers."""

    options: ScrubOptions
    report: ScrubReport
    found: Found
    pace: Pace
    whole: list[BlobToRead] = field(default_factory=list)
    unreadable: int = 0


class Scrubber:
    def __init__(self, database: Database, blobs: BlobReader) -> None:
        self._database = database
        self._blobs = blobs

    async def run(self, options: ScrubOptions, found: Found, report: Callable[[ScrubReport], None] | None = None,
                  ) -> ScrubReport:
        """One pass, or the rest of one. `found` hears of each damage; `report` is given the report to watch, at the
        beginning. Raises StoreUnavailable when nothing can be read at all."""
        now = self._database.now()
        async with self._database.write() as tx:
            interrupted = None if options.restart else await rows.unfinished(tx)
            current = interrupted or await rows.begin(tx, now)
        cutoff = current.started
        if options.since is not None:
            cutoff = min(cutoff, now - options.since)
        run = _Run(options, ScrubReport(current.started, interrupted is not None), found, Pace(options.rate))
        async with self._database.read() as tx:
            run.report.to_read, run.report.to_read_bytes = await rows.amount(tx, cutoff)
        if report:
            report(run.report)
        await self._blobs_of(run, cutoff)
        await self._manifests_of(run)
        async with self._database.write() as tx:
            await rows.finish(tx, current.id, self._database.now())
        return run.report

    async def _blobs_of(self, run: _Run, cutoff: datetime) -> None:
        pending = self._pages(cutoff)
        turn = asyncio.Lock()

        async def reader() -> None:
            while True:
                async with turn:  # an asynchronous generator is for one caller at a time
                    blob = await anext(pending, None)
                if blob is None:
                    return
                await self._blob(run, blob)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(max(1, run.options.jobs)):
                    group.create_task(reader())
        except ExceptionGroup as failures:  # they are alike: the store, or the database
            raise failures.exceptions[0] from None
        finally:
            await self._stamp(run)

    async def _pages(self, cutoff: datetime) -> AsyncIterator[BlobToRead]:
        last = 0
        while True:
            async with self._database.read() as tx:
                page = await rows.to_read(tx, last, cutoff, PAGE)
            if not page:
                return
            for blob in page:
                yield blob
            last = page[-1].id

    async def _blob(self, run: _Run, blob: BlobToRead) -> None:
        fault, what = await self._examine(run, blob)
        if fault is not None and fault is not Fault.UNREADABLE:
            fault, what = await self._examine(run, blob)  # memory and cables flip bits too
        if fault is None:
            run.report.blobs += 1
            run.report.bytes += blob.info.size
            run.whole.append(blob)
            if len(run.whole) >= STAMP_BLOBS or sum(b.info.size for b in run.whole) >= STAMP_BYTES:
                await self._stamp(run)
            return
        async with self._database.read() as tx:
            if not await rows.holds(tx, blob.info):
                run.report.gone += 1
                return
            repositories = tuple(await blob_rows.holders(tx, blob.info.digest))
            affected = tuple(await rows.affected(tx, blob.info.digest))
        run.report.blobs += 1
        run.report.damaged += 1
        quarantined = blob.quarantined
        if run.options.quarantine and fault is not Fault.UNREADABLE:
            async with self._database.write() as tx:
                quarantined = await rows.quarantine(tx, blob, self._database.now())
        run.found(Damage(fault, blob.info.digest, what, blob.info.size, blob.info.key, repositories, affected,
                         quarantined))

    async def _examine(self, run: _Run, blob: BlobToRead) -> tuple[Fault | None, str]:
        for attempt in range(ATTEMPTS):
            try:
                verdict = await self._read(run, blob)
            except StoreUnavailable as error:
                failure = error
                await asyncio.sleep(PAUSE * attempt)
            else:
                run.unreadable = 0
                return verdict
        run.unreadable += 1
        if run.unreadable >= HOPELESS:
            raise failure
        return Fault.UNREADABLE, failure.message

    async def _read(self, run: _Run, blob: BlobToRead) -> tuple[Fault | None, str]:
        info = blob.info
        hashed = Hashed.nothing(info.digest.algorithm)
        try:
            size = await self._blobs.size(info.key)
            if size != info.size:
                return Fault.CUT, f"{size} bytes are stored, {info.size} were"
            async for chunk in self._blobs.read(info.key):
                await run.pace.spend(len(chunk))
                await hashed.update([chunk])
        except BytesMissing:
            return Fault.MISSING, "no bytes are stored"
        if hashed.digest() != info.digest:
            return Fault.CHANGED, f"the stored bytes have digest {hashed.digest()}"
        return None, ""

    async def _stamp(self, run: _Run) -> None:
        whole, run.whole = run.whole, []
        if whole:
            async with self._database.write() as tx:
                await rows.verified(tx, whole, self._database.now())

    async def _manifests_of(self, run: _Run) -> None:
        """All of them, every time: they are small, and lie in the database."""
        last = 0
        while True:
            async with self._database.read() as tx:
                page = await rows.manifests_to_read(tx, last, MANIFEST_PAGE)
            if not page:
                return
            await run.pace.spend(sum(len(manifest.stored.raw) for manifest in page))
            for manifest, actual in zip(page, await asyncio.to_thread(_digests, page), strict=True):
                run.report.manifests += 1
                if actual != manifest.stored.digest or len(manifest.stored.raw) != manifest.size:
                    await self._manifest(run, manifest, actual)
            last = page[-1].id

    async def _manifest(self, run: _Run, manifest: ManifestToRead, actual: Digest) -> None:
        digest = manifest.stored.digest
        async with self._database.read() as tx:
            own = Affected(manifest.repository, digest, await rows.tags_of(tx, manifest.id))
            above = [item for item in await rows.affected(tx, digest) if item.repository == manifest.repository]
        run.report.damaged += 1
        run.found(Damage(Fault.MANIFEST, digest, f"the stored bytes have digest {actual}", manifest.size,
                         repositories=(manifest.repository,), affected=(own, *above)))


def _digests(page: Sequence[ManifestToRead]) -> list[Digest]:
    return [Digest.of(manifest.stored.raw, manifest.stored.digest.algorithm) for manifest in page]
