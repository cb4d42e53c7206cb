"""What a running registry does by itself: drop uploads that nobody continues, collect what nobody needs, read back
what it stores."""

import asyncio
import logging
import random
import time
from datetime import timedelta

from ocispec.errors import SeawallError
from registry.proxy.service import PullThrough
from registry.settings import GcSettings, ScrubSettings, Settings
from registry.telemetry.collection import CollectionMeter
from storage.gc.duty import Duty
from storage.gc.housekeeping import Housekeeping, Intervals
from storage.scrub import Damage, Scrubber, ScrubOptions
from storage.uploads.session import Uploads

log = logging.getLogger(__name__)

SCRUB = "scrub"
SCRUB_LOOK = 600.0
"""Seconds between two looks whether a scrub is due, or was left behind by a replica that died."""


class Upkeep:
    """One process of each replica runs it, and one of all of them has the duty. That two do is harmless and wasteful.
    """

    def __init__(self, housekeeping: Housekeeping, uploads: Uploads, proxy: PullThrough, settings: Settings,
                 meter: CollectionMeter) -> None:
        self._meter = meter
        self._housekeeping = housekeeping
        self._uploads = uploads
        self._proxy = proxy
        self._interval = settings.gc.interval
        self._intervals = intervals(settings.gc)
        self._expire_after = timedelta(seconds=settings.uploads.expire_after)
        self._unused_after = timedelta(seconds=settings.proxy.unused_after)

    async def run(self) -> None:
        """Until it is cancelled. The first turn comes at a random moment of the interval, so that replicas that were
        started together do not work at the same time."""
        if not self._interval:
            return
        await asyncio.sleep(self._interval * random.random())  # noqa: S311  # no secret
        while True:
            try:
                async with self._housekeeping.duty.hold() as mine:
                    if mine:
                        await self._once()
            except SeawallError as error:
                self._meter.failed()
                log.warning("upkeep: %s", error.message)
            except Exception:
                self._meter.failed()
                log.exception("upkeep")  # the next turn may go better, and serving does not depend on it
            await asyncio.sleep(self._interval)

    async def _once(self) -> None:
        expired = await self._uploads.expire(self._expire_after)
        expired += await self._proxy.expire(self._unused_after)
        began = time.monotonic()
        report = await self._housekeeping.turn(self._intervals)
        self._meter.ran(report, time.monotonic() - began)
        if expired or report.anything:
            log.info("upkeep: %d uploads and cached tags expired; %d manifests, %d blobs and %d stray files removed, "
                     "%d bytes freed", expired, report.counts["manifest"], report.counts["blob"],
                     report.counts["bytes"], report.freed)


class BackgroundScrub:
    """Reads everything that is stored again and again, slowly; in one process of all replicas. A pass that was
    interrupted goes on with the next start."""

    def __init__(self, scrubber: Scrubber, duty: Duty, settings: ScrubSettings) -> None:
        self._scrubber = scrubber
        self._duty = duty
        self._interval = timedelta(seconds=settings.interval)
        self._options = ScrubOptions(rate=settings.rate, jobs=1, quarantine=settings.quarantine)

    async def run(self) -> None:
        """Until it is cancelled."""
        if not self._interval:
            return
        pause = min(self._interval.total_seconds(), SCRUB_LOOK)
        await asyncio.sleep(pause * random.random())  # noqa: S311  # no secret
        while True:
            try:
                async with self._duty.hold() as mine:
                    if mine:
                        await self._once()
            except SeawallError as error:
                log.warning("scrub: %s", error.message)
            except Exception:
                log.exception("scrub")
            await asyncio.sleep(pause)

    async def _once(self) -> None:
        since = await self._duty.since_done(SCRUB)
        if since is not None and since < self._interval:
            return
        report = await self._scrubber.run(self._options, _tell)
        await self._duty.done(SCRUB, report.started)
        log.info("scrub: %d blobs (%d bytes) and %d manifests read, %d damaged", report.blobs, report.bytes,
                 report.manifests, report.damaged)


def _tell(damage: Damage) -> None:
    hit = ", ".join(f"{item.repository}@{item.manifest}" for item in damage.affected[:20])
    log.error("scrub: %s %s: %s%s; hits %s", damage.fault.value, damage.digest, damage.what,
              " (quarantined)" if damage.quarantined else "", hit or "no manifest")


def intervals(settings: GcSettings) -> Intervals:
    return Intervals(*(timedelta(seconds=seconds) for seconds in (
        settings.grace, settings.full_interval, settings.retention_interval)))
