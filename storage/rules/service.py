"""The rules as a service: a book in memory that is current in every process, and the ways to change it."""

from collections.abc import Sequence

from storage.events import Action, Event, Origin
from storage.metadata import events, reviews
from storage.metadata import rules as rows
from storage.metadata.dialect import sees_newest
from storage.metadata.engine import Database, Transaction
from storage.metadata.rules import TOPIC, InvalidRule, Kind, QuotaRule, RetentionRule, Rule
from storage.metadata.topics import PREFIX
from storage.rules.book import EACH, WHOLE, RuleBook


class Rules:
    """For one event loop. `standing`: rules of the program's own settings; a stored one with the same pattern wins."""

    def __init__(self, database: Database, standing: Sequence[Rule] = ()) -> None:
        self._database = database
        self._standing = standing
        self._known: tuple[int, RuleBook] | None = None

    async def book(self, tx: Transaction) -> RuleBook:
        """As of now; on Postgres as of this process's last look at what changed, which every request begins with. To be
        asked in the transaction that the answer decides."""
        mark = self._database.changes.mark(PREFIX + TOPIC)
        if mark is not None and self._known is not None and self._known[0] == mark:
            return self._known[1]
        book = await self._read(tx)
        if mark is not None and sees_newest(tx):  # else it may be older than the mark
            self._known = mark, book
        return book

    async def current(self) -> RuleBook:
        """For whoever has no transaction."""
        number = self._database.changes.before(PREFIX + TOPIC)
        async with self._database.read() as tx:
            book = await self._read(tx)
        self._known = number, book
        return book

    async def _read(self, tx: Transaction) -> RuleBook:
        return RuleBook([*await rows.all_rules(tx), *self._standing])

    async def put(self, rule: Rule, *, origin: Origin | None = None) -> None:
        """In place of the one with the same kind and patterns. Raises InvalidRule."""
        check(rule)
        async with self._database.write() as tx:
            await rows.put(tx, rule, self._database.now())
            await _ask(tx, rows.kind_of(rule))
            await self._record(tx, origin, rule=str(rule)[:500])

    async def remove(self, kind: Kind, repositories: str, tags: str | None = None, *,
                     origin: Origin | None = None) -> int:
        """How many rules there were; `tags` None: whatever their tag pattern."""
        async with self._database.write() as tx:
            await _ask(tx, kind)
            gone = await rows.delete(tx, kind, repositories, tags)
            await self._record(tx, origin if gone else None, removed=gone, kind=kind.value, pattern=repositories)
            return gone

    async def _record(self, tx: Transaction, origin: Origin | None, **detail: object) -> None:
        if origin is not None:
            await events.record(tx, Event(Action.RULE_CHANGE, origin, detail=detail), self._database.now())


async def _ask(tx: Transaction, kind: Kind) -> None:
    """Have upkeep do next what the rule is about, rather than when its time comes."""
    if kind is Kind.RETENTION:
        await reviews.note_done(tx, reviews.RETENTION, None)
    elif kind in (Kind.UNTAGGED, Kind.QUOTA):
        await reviews.note_done(tx, reviews.EVERYTHING, None)


def check(rule: Rule) -> None:
    """Raises InvalidRule."""
    if isinstance(rule, QuotaRule):
        if rule.limit < 0:
            raise InvalidRule(f"a quota of {rule.limit} bytes")
        if rule.namespace not in (EACH, WHOLE) and ("*" in rule.namespace or "?" in rule.namespace):
            raise InvalidRule(f"a quota is for a namespace, for `*` (each first component) or for `**` (the whole "
                              f"registry), not for a pattern: {rule.namespace!r}")
    if isinstance(rule, RetentionRule):
        if rule.last is not None and rule.last < 1:
            raise InvalidRule("to keep the last tags means at least one")
        spans = [span for span in (rule.pushed_within, rule.pulled_within) if span is not None]
        if any(span.total_seconds() <= 0 for span in spans):
            raise InvalidRule("a time span must be longer than nothing")
