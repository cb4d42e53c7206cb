"""Retention, immutable tags and quotas."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import msgspec

from ocispec.errors import NotFound
from ocispec.pattern import Pattern
from registry.api.admin.operation import Asked, NamePattern, Operation, Run, Strict
from storage.gc.housekeeping import Housekeeping
from storage.metadata.rules import ALL, ImmutableRule, Kind, QuotaRule, RetentionRule, UntaggedRule
from storage.rules.book import RuleBook as Book
from storage.rules.service import Rules

MAX_PREVIEW = 10_000

Namespace = Annotated[str, msgspec.Meta(pattern=r"^(?:\*\*?|[a-z0-9][a-z0-9._/-]*)$", max_length=255)]

Seconds = Annotated[int, msgspec.Meta(gt=0, le=100 * 366 * 86400)]


class RuleUnknown(NotFound):
    """There is no such rule."""


class Retention(Strict, frozen=True):
    """Tags that match are kept when they are among the `last` pushed, or were pushed or pulled within so many seconds;
    all of them when no condition is given. What no clause for its repository keeps, goes."""

    repositories: NamePattern
    tags: NamePattern = ALL
    last: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    pushed_within: Seconds | None = None
    pulled_within: Seconds | None = None

    @classmethod
    def of(cls, rule: RetentionRule) -> "Retention":
        return cls(rule.repositories.text, rule.tags.text, rule.last, _seconds(rule.pushed_within),
                   _seconds(rule.pulled_within))

    def rule(self) -> RetentionRule:
        return RetentionRule(Pattern.parse(self.repositories), Pattern.parse(self.tags), self.last,
                             _span(self.pushed_within), _span(self.pulled_within))


class Untagged(Strict, frozen=True):
    """How many seconds a manifest lives that nothing names; null: until it is deleted."""

    repositories: NamePattern
    keep: Seconds | None

    @classmethod
    def of(cls, rule: UntaggedRule) -> "Untagged":
        return cls(rule.repositories.text, _seconds(rule.keep))

    def rule(self) -> UntaggedRule:
        return UntaggedRule(Pattern.parse(self.repositories), _span(self.keep))


class Immutable(Strict, frozen=True):
    """A tag that matches, once it is there, stays what it is."""

    repositories: NamePattern
    tags: NamePattern = ALL

    @classmethod
    def of(cls, rule: ImmutableRule) -> "Immutable":
        return cls(rule.repositories.text, rule.tags.text)

    def rule(self) -> ImmutableRule:
        return ImmutableRule(Pattern.parse(self.repositories), Pattern.parse(self.tags))


class Quota(Strict, frozen=True):
    """`namespace`: a repository and all below it; `*`: each first component; `**`: the whole registry."""

    namespace: Namespace
    bytes: Annotated[int, msgspec.Meta(ge=0, le=2**62)]

    @classmethod
    def of(cls, rule: QuotaRule) -> "Quota":
        return cls(rule.namespace, rule.limit)

    def rule(self) -> QuotaRule:
        return QuotaRule(self.namespace, self.bytes)


class RuleBook(msgspec.Struct, frozen=True):
    retention: list[Retention]
    untagged: list[Untagged]
    immutable: list[Immutable]
    quotas: list[Quota]


class Clause(Strict, frozen=True):
    """`tags` left out: whatever their tag pattern."""

    repositories: NamePattern
    tags: NamePattern | None = None


class OfRepositories(Strict, frozen=True):
    repositories: NamePattern


class OfNamespace(Strict, frozen=True):
    namespace: Namespace


class QuotaUse(msgspec.Struct, frozen=True):
    """`namespace` is empty for the whole registry. `counted` is what the content weighs, where that was asked for;
    `full`: pushes of anything new are refused."""

    namespace: str
    limit: int
    used: int
    counted: int | None
    full: bool


class QuotaUses(msgspec.Struct, frozen=True):
    items: list[QuotaUse]


class Counting(Strict, frozen=True):
    """`count`: read all content instead of believing what is charged."""

    count: bool = False


class Preview(Strict, frozen=True):
    """What would retention do: with the clauses of now, or with these instead. `everything`: also tags that stay."""

    clauses: Annotated[list[Retention], msgspec.Meta(max_length=1000)] | None = None
    repositories: NamePattern = ALL
    everything: bool = False


class Judged(msgspec.Struct, frozen=True):
    repository: str
    tag: str
    lives: bool
    why: str


class Previewed(msgspec.Struct, frozen=True):
    """`items` are the first of them; the numbers are of all."""

    items: list[Judged]
    stay: int
    go: int


class RuleOperations:
    def __init__(self, rules: Rules, housekeeping: Housekeeping) -> None:
        self._rules = rules
        self._housekeeping = housekeeping

    def operations(self) -> Sequence[Operation]:
        return (
            Operation("GET", "/rules", "All rules", self.list, result=RuleBook),
            Operation("PUT", "/rules/retention", "Set a clause of retention", self.put, body=Retention,
                      result=None),
            Operation("DELETE", "/rules/retention", "Remove clauses of retention", self.remove(Kind.RETENTION),
                      query=Clause, result=None),
            Operation("PUT", "/rules/untagged", "Set how long untagged manifests live", self.put, body=Untagged,
                      result=None),
            Operation("DELETE", "/rules/untagged", "Remove such a rule", self.remove(Kind.UNTAGGED),
                      query=OfRepositories, result=None),
            Operation("PUT", "/rules/immutable", "Make tags immutable", self.put, body=Immutable, result=None),
            Operation("DELETE", "/rules/immutable", "Remove such a rule", self.remove(Kind.IMMUTABLE), query=Clause,
                      result=None),
            Operation("POST", "/rules/retention/preview", "Which tags would go, and why", self.preview, body=Preview,
                      result=Previewed),
            Operation("PUT", "/rules/quotas", "Set a quota", self.quota, body=Quota, result=None),
            Operation("GET", "/rules/quotas/usage", "What of the quotas is used", self.usage, query=Counting,
                      result=QuotaUses),
            Operation("DELETE", "/rules/quotas", "Remove a quota", self.remove(Kind.QUOTA), query=OfNamespace,
                      result=None),
        )

    async def list(self, _asked: Asked) -> RuleBook:
        book = RuleBook([], [], [], [])
        for rule in (await self._rules.current()).rules:
            match rule:
                case RetentionRule():
                    book.retention.append(Retention.of(rule))
                case UntaggedRule():
                    book.untagged.append(Untagged.of(rule))
                case ImmutableRule():
                    book.immutable.append(Immutable.of(rule))
                case QuotaRule():
                    book.quotas.append(Quota.of(rule))
        return book

    async def put(self, asked: Asked) -> None:
        await self._rules.put(asked.body.rule(), origin=asked.origin)

    async def quota(self, asked: Asked) -> None:
        await self.put(asked)
        await self._housekeeping.accounting.repair()  # what the namespace holds already was charged to nobody

    async def usage(self, asked: Asked) -> QuotaUses:
        found = await self._housekeeping.accounting.usage(count=asked.query.count)
        return QuotaUses([QuotaUse(item.quota.namespace, item.quota.limit, item.used, item.actual, item.full)
                          for item in found])

    async def preview(self, asked: Asked) -> Previewed:
        wanted: Preview = asked.body
        book, pattern = None, Pattern.parse(wanted.repositories)
        if wanted.clauses is not None:
            now = [rule for rule in (await self._rules.current()).rules if not isinstance(rule, RetentionRule)]
            book = Book([*now, *(clause.rule() for clause in wanted.clauses)])
        items: list[Judged] = []
        numbers = {True: 0, False: 0}
        async for name, verdicts in self._housekeeping.retention.explain(book):
            for verdict in verdicts if pattern.matches(name.value) else ():
                numbers[verdict.lives] += 1
                if len(items) < MAX_PREVIEW and (wanted.everything or not verdict.lives):
                    items.append(Judged(name.value, verdict.tag.name, verdict.lives, verdict.why))
        return Previewed(items, stay=numbers[True], go=numbers[False])

    def remove(self, kind: Kind) -> Run:
        async def run(asked: Asked) -> None:
            where = asked.query.namespace if kind is Kind.QUOTA else asked.query.repositories
            tags = getattr(asked.query, "tags", None)
            if not await self._rules.remove(kind, where, tags, origin=asked.origin):
                raise RuleUnknown(f"there is no {kind.value} rule for {where[:100]!r}")
        return run


def _span(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())
