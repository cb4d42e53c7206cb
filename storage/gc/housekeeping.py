"""All that keeps a store in order by itself, each part when it is due: what changed at every turn, retention and a pass
over everything at intervals that all processes share."""

import logging
from dataclasses import dataclass
from datetime import timedelta

from storage.gc.duty import Duty
from storage.gc.report import GcReport
from storage.gc.retire import Retention
from storage.gc.sweep import Collector
from storage.metadata.engine import Database
from storage.metadata.reviews import EVERYTHING, RETENTION
from storage.rules.accounting import Accounting
from storage.rules.service import Rules

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intervals:
    """`grace`: see `Collector.run`. Between two passes over everything, and between two applications of retention."""

    grace: timedelta = timedelta(days=1)
    between_passes: timedelta = timedelta(days=1)
    between_retentions: timedelta = timedelta(hours=1)


class Housekeeping:
    """`holder` names this process among all. Who calls `turn` holds the `duty`."""

    def __init__(self, database: Database, collector: Collector, rules: Rules, holder: str) -> None:
        self._database = database
        self._collector = collector
        self.retention = Retention(database, rules)
        self.accounting = Accounting(database, rules)
        self.duty = Duty(database, "housekeeping", holder)

    async def turn(self, intervals: Intervals) -> GcReport:
        """What went, of tags only in the log and in the collector's statistics."""
        if await self._due(RETENTION, intervals.between_retentions):
            await self._retire()
        report = await self._collector.turn(grace=intervals.grace)
        await self.accounting.fold()
        if await self._due(EVERYTHING, intervals.between_passes):
            report.join(await self._pass(intervals.grace))
        return report

    async def _due(self, what: str, interval: timedelta) -> bool:
        """Also when a rule changed since (`storage.rules.service`)."""
        ago = await self.duty.since_done(what)
        return ago is None or ago >= interval

    async def _retire(self) -> None:
        began = self._database.now()
        report = await self.retention.run()
        self._collector.stats.tags_retired += report.total
        await self.duty.done(RETENTION, began)
        for repository, count in report.removed.items():
            log.info("retention: %d tags of %s removed", count, repository)

    async def _pass(self, grace: timedelta) -> GcReport:
        began = self._database.now()
        report = await self._collector.run(grace=grace, detailed=False)
        for wrong in await self.accounting.repair():
            log.warning("%s was charged %d bytes for %s", wrong.quota, wrong.used, wrong.actual)
        await self.duty.done(EVERYTHING, began)
        return report
