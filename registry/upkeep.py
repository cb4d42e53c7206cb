"""What a running registry does by itself: drop uploads that nobody continues, collect what nobody needs."""

import asyncio
import logging
import random
from datetime import timedelta

from ocispec.errors import SeawallError
from registry.proxy.service import PullThrough
from registry.settings import Settings
from storage.gc.sweep import Collector
from storage.uploads.session import Uploads

log = logging.getLogger(__name__)


class Upkeep:
    """One of a registry's processes runs it; that two do is harmless and wasteful."""

    def __init__(self, collector: Collector, uploads: Uploads, proxy: PullThrough, settings: Settings) -> None:
        self._collector = collector
        self._uploads = uploads
        self._proxy = proxy
        self._gc = settings.gc
        self._sessions = settings.uploads
        self._unused_after = timedelta(seconds=settings.proxy.unused_after)

    async def run(self) -> None:
        """Until it is cancelled. The first turn comes at a random moment of the interval, so that replicas that were
        started together do not work at the same time."""
        if not self._gc.interval:
            return
        await asyncio.sleep(self._gc.interval * random.random())  # noqa: S311  # no secret
        while True:
            try:
                await self._once()
            except SeawallError as error:
                log.warning("upkeep: %s", error.message)
            except Exception:
                log.exception("upkeep")  # the next turn may go better, and serving does not depend on it
            await asyncio.sleep(self._gc.interval)

    async def _once(self) -> None:
        expired = await self._uploads.expire(timedelta(seconds=self._sessions.expire_after))
        expired += await self._proxy.expire(self._unused_after)
        report = await self._collector.run(grace=timedelta(seconds=self._gc.grace))
        if expired or report.removed:
            log.info("upkeep: %d uploads and cached tags expired, %d things removed, %d bytes freed", expired,
                     len(report.removed), report.freed)
