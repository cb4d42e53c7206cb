"""One repository: read it, mark it, remove the dead a few at a time.

Reading and marking hold no lock and see no single moment. That is safe because whatever makes something wanted again
leaves a trace in its own row, which each deleting transaction looks at: a push touches what it names, a client that is
told of a blob touches it, a tag and a lease are rows. What is then found alive takes out of the plan whatever lives
with it, none of which has gone yet (`plan`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from ocispec.reference import RepositoryName
from storage.gc.mark import Marked, Rules, mark
from storage.gc.plan import Plan
from storage.gc.report import GcReport, Item
from storage.metadata import blobs as blob_rows
from storage.metadata import garbage, leases, repositories
from storage.metadata.engine import Database, Transaction
from storage.metadata.garbage import HeldManifest, RepositoryContent
from storage.rules.quotas import Quotas
from storage.rules.service import Rules as RuleService

MANIFESTS, LINKS = 50, 100
"""What one transaction deletes: a few milliseconds of the writer lock."""


class Reviewer:
    """`keep_untagged`: where no rule says otherwise, an untagged manifest lives as long as it is pinned."""

    def __init__(self, database: Database, rules: RuleService, *, keep_untagged: bool) -> None:
        self._database = database
        self._rules = rules
        self._quotas = Quotas(rules)
        self._keep_untagged = keep_untagged

    async def review(self, number: int, grace: timedelta, report: GcReport) -> datetime | None:
        """Since when the repository has to be taken for dirty again; None: when something changes."""
        marked = await self._look(number, grace)
        if marked is None:
            return None
        report.repositories += 1
        _record_living(marked, report)
        if report.dry_run:
            _record_dead(marked, report)
            return None
        plan = await asyncio.to_thread(Plan, marked)
        if plan.empty:
            return marked.look
        alive = await self._remove_manifests(number, plan, marked, report)
        alive |= await self._remove_links(number, plan, marked, report)
        if not alive:
            return marked.look
        now = self._database.now()
        return now if marked.look is None else min(marked.look, now)

    async def _look(self, number: int, grace: timedelta) -> Marked | None:
        async with self._database.read() as tx:
            name = await garbage.name_of(tx, number)
            if name is None:
                return None
            rules = await self._policy(tx, name, grace)
            content = await garbage.content(tx, name, number)
        # In a thread: a repository of many thousand manifests takes longer than the event loop should be away.
        return await asyncio.to_thread(mark, content, rules)

    async def _policy(self, tx: Transaction, name: RepositoryName, grace: timedelta) -> Rules:
        now = self._database.now()
        leased = await leases.leased(tx, now)
        rule = (await self._rules.book(tx)).untagged(name)
        if rule is None:
            return Rules(now - grace, leased, self._keep_untagged, grace=grace)
        since = None if rule.keep is None else now - rule.keep
        return Rules(now - grace, leased, rule.keep is None, since, rule.repositories.text, grace)

    async def _remove_manifests(self, number: int, plan: Plan, marked: Marked, report: GcReport) -> bool:
        """Whether something was alive after all."""
        name, cutoff = marked.content.name, marked.rules.cutoff
        for batch in plan.manifests(MANIFESTS):
            async with holding(self._database, report) as tx:
                dead = await garbage.dead_manifests(tx, number, [item.digest for item in batch], cutoff,
                                                    self._database.now())
                plan.save(item.digest for item in batch if item.digest not in dead)
                gone = [item for item in batch if item.digest not in plan.saved]
                if gone:
                    await garbage.delete_manifests(tx, number, [dead[item.digest].id for item in gone])
                    await self._quotas.manifests_gone(tx, name, [item.size for item in gone])
                    await repositories.outdate(tx, number, since=None)
            for item in gone:
                report.remove(_manifest(item, marked, report))
        return bool(plan.saved)

    async def _remove_links(self, number: int, plan: Plan, marked: Marked, report: GcReport) -> bool:
        alive = False
        for batch in plan.blobs(LINKS):
            async with holding(self._database, report) as tx:
                dead = await garbage.dead_links(tx, number, batch, marked.rules.cutoff, self._database.now())
                alive |= len(dead) < len(batch)
                if dead:
                    await blob_rows.unlink_rows(tx, number, [row.id for row in dead.values()])
                    await self._quotas.blobs_gone(tx, marked.content.name, {row.id: row.size for row in dead.values()})
                    await repositories.outdate(tx, number, since=None)
            for digest, row in dead.items():
                report.remove(Item("membership", "no manifest here names it", row.size, marked.content.name, digest))
        return alive


@asynccontextmanager
async def holding(database: Database, report: GcReport) -> AsyncIterator[Transaction]:
    """A write transaction whose hold of the writer lock is measured, from getting it to the commit."""
    began = time.perf_counter()
    try:
        async with database.write() as tx:
            began = time.perf_counter()
            yield tx
    finally:
        report.held_lock(time.perf_counter() - began)


def _manifest(item: HeldManifest, marked: Marked, report: GcReport) -> Item:
    why = marked.manifest(item).why if report.detailed else ""
    return Item("manifest", why, item.size, marked.content.name, item.digest)


def _record_living(marked: Marked, report: GcReport) -> None:
    content = marked.content
    if not report.dry_run:
        report.kept += len(content.manifests) - len(marked.dead_manifests)
        report.kept += len(content.blobs) - len(marked.dead_blobs)
        return
    for lives, item in _items(content, marked):
        if lives:
            report.keep(item)


def _record_dead(marked: Marked, report: GcReport) -> None:
    for lives, item in _items(marked.content, marked):
        if not lives:
            report.remove(item)


def _items(content: RepositoryContent, marked: Marked) -> Sequence[tuple[bool, Item]]:
    """Manifests, then memberships."""
    found = []
    for manifest in content.manifests:
        verdict = marked.manifest(manifest)
        found.append((verdict.lives, Item("manifest", verdict.why, manifest.size, content.name, manifest.digest)))
    for blob in content.blobs:
        verdict = marked.blob(blob)
        found.append((verdict.lives, Item("membership", verdict.why, blob.size, content.name, blob.digest)))
    return found

