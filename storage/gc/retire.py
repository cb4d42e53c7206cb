"""Taking tags away that retention does not keep. What they named is garbage a grace later, like that of any other tag
that went."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from ocispec.reference import RepositoryName, Tag
from storage.events import Action, Event, Origin
from storage.metadata import events, repositories
from storage.metadata import manifests as manifest_rows
from storage.metadata import tags as rows
from storage.metadata.engine import Database
from storage.metadata.tags import HeldTag
from storage.rules.book import RuleBook
from storage.rules.retention import TagVerdict, judge
from storage.rules.service import Rules

PAGE = 500
BATCH = 100
"""Tags that one transaction deletes."""

BY = Origin.of(actor="retention", request_id="")
"""In the event log."""


@dataclass(slots=True)
class RetentionReport:
    """`removed` by repository; `changed`: tags that a push moved, or somebody deleted, after they were judged."""

    removed: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    changed: int = 0

    @property
    def total(self) -> int:
        return sum(self.removed.values())


class Retention:
    def __init__(self, database: Database, rules: Rules) -> None:
        self._database = database
        self._rules = rules

    async def run(self) -> RetentionReport:
        """Remove what the rules of now do not keep."""
        report = RetentionReport()
        book = await self._rules.current()
        async for number, name in self._retained(book):
            verdicts = await self._judge(number, name, book)
            doomed = [verdict.tag for verdict in verdicts if not verdict.lives]
            report.kept += len(verdicts) - len(doomed)
            for first in range(0, len(doomed), BATCH):
                gone = await self._remove(number, name, doomed[first : first + BATCH])
                report.removed[name.value] += gone
                report.changed += len(doomed[first : first + BATCH]) - gone
        return report

    async def explain(self, book: RuleBook | None = None) -> AsyncIterator[tuple[RepositoryName, Sequence[TagVerdict]]]:
        """What `run` would do, under the rules of now or another book, repository by repository."""
        book = book or await self._rules.current()
        async for number, name in self._retained(book):
            yield name, await self._judge(number, name, book)

    async def _retained(self, book: RuleBook) -> AsyncIterator[tuple[int, RepositoryName]]:
        after = ""
        while book.retains:
            async with self._database.read() as tx:
                page = await repositories.page(tx, after, PAGE)
            for number, name in page:
                if book.retention(name):
                    yield number, name
            if len(page) < PAGE:
                return
            after = page[-1][1].value

    async def _judge(self, number: int, name: RepositoryName, book: RuleBook) -> Sequence[TagVerdict]:
        tags: list[HeldTag] = []
        while True:
            async with self._database.read() as tx:
                page = await rows.held(tx, number, tags[-1].name if tags else "", PAGE)
            tags += page
            if len(page) < PAGE:
                break
        now, clauses = self._database.now(), book.retention(name)
        return await asyncio.to_thread(
            judge, tags, clauses, now, lambda tag: book.immutable(name, Tag(tag)) is not None)

    async def _remove(self, number: int, name: RepositoryName, doomed: Sequence[HeldTag]) -> int:
        """A tag that a push moved or repeated since it was judged stays."""
        async with self._database.write() as tx:
            now = self._database.now()
            gone = await rows.delete_unchanged(tx, number, doomed)
            if gone:
                await manifest_rows.touch_rows(tx, {tag.manifest for tag in gone}, now)
                await repositories.outdate(tx, number, since=now)
                await events.record_all(
                    tx, [Event(Action.TAG_DELETE, BY, name, tag.digest, Tag(tag.name)) for tag in gone], now)
        return len(gone)
