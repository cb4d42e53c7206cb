"""What the namespaces of quotas hold: shown, folded, and counted anew."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage.metadata import usage
from storage.metadata.engine import Database
from storage.rules.book import Quota, RuleBook
from storage.rules.quotas import FOLD_AT
from storage.rules.service import Rules


@dataclass(frozen=True, slots=True)
class Usage:
    """`used` bytes as charged; `actual`, where it was counted, as the content weighs."""

    quota: Quota
    used: int
    actual: int | None = None

    @property
    def full(self) -> bool:
        """Whether a push of anything new is refused."""
        return (self.used if self.actual is None else self.actual) >= self.quota.limit


class Accounting:
    def __init__(self, database: Database, rules: Rules) -> None:
        self._database = database
        self._rules = rules

    async def usage(self, book: RuleBook | None = None, *, count: bool = False) -> Sequence[Usage]:
        """Of each namespace with a quota, under the rules of now or another book. `count`: also count the content,
        which reads every row of it."""
        async with self._database.read() as tx:
            book = book or await self._rules.book(tx)
            found = []
            for quota in book.quotas_over(await usage.namespaces(tx)):
                actual = (await usage.counted(tx, quota.namespace))[0] if count else None
                found.append(Usage(quota, await usage.used(tx, quota.namespace), actual))
        return found

    async def repair(self) -> Sequence[Usage]:
        """Count everything anew and put right what is charged; gives what was wrong. Pushes go on meanwhile."""
        wrong = []
        for quota in await self._quotas():
            async with self._database.read() as tx:
                weight, seen = await usage.counted(tx, quota.namespace)
            charged = sum(seen.values())
            if charged != weight or len(seen) > 1:
                async with self._database.write() as tx:
                    await usage.repair(tx, quota.namespace, weight, seen.keys())
            if charged != weight:
                wrong.append(Usage(quota, charged, weight))
        async with self._database.write() as tx:
            book = await self._rules.book(tx)
            listed = book.quotas_over(await usage.namespaces(tx))
            await usage.forget(tx, [quota.namespace for quota in listed])
        return wrong

    async def fold(self) -> None:
        """Make few rows of many, so that adding them up stays cheap."""
        for quota in await self._quotas():
            async with self._database.read() as tx:
                many = await usage.rows(tx, quota.namespace) > FOLD_AT
            if many:
                async with self._database.write() as tx:
                    await usage.fold(tx, quota.namespace)

    async def _quotas(self) -> Sequence[Quota]:
        async with self._database.read() as tx:
            return (await self._rules.book(tx)).quotas_over(await usage.namespaces(tx))
