"""Retention, immutable tags and quotas."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import msgspec

from ocispec.errors import NotFound
from ocispec.pattern import Pattern
from registry.api.admin.operation import Asked, Operation, Run, Strict
from storage.metadata.rules import ALL, ImmutableRule, Kind, QuotaRule, RetentionRule, UntaggedRule
from storage.rules.service import Rules

Seconds = Annotated[int, msgspec.Meta(gt=0, le=100 * 366 * 86400)]


class RuleUnknown(NotFound):
    """There is no such rule."""


class Retention(Strict, frozen=True):
    """Tags that match are kept when they are among the `last` pushed, or were pushed or pulled within so many seconds;
    all of them when no condition is given. What no clause for its repository keeps, goes."""

    repositories: str
    tags: str = ALL
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

    repositories: str
    keep: Seconds | None

    @classmethod
    def of(cls, rule: UntaggedRule) -> "Untagged":
        return cls(rule.repositories.text, _seconds(rule.keep))

    def rule(self) -> UntaggedRule:
        return UntaggedRule(Pattern.parse(self.repositories), _span(self.keep))


class Immutable(Strict, frozen=True):
    """A tag that matches, once it is there, stays what it is."""

    repositories: str
    tags: str = ALL

    @classmethod
    def of(cls, rule: ImmutableRule) -> "Immutable":
        return cls(rule.repositories.text, rule.tags.text)

    def rule(self) -> ImmutableRule:
        return ImmutableRule(Pattern.parse(self.repositories), Pattern.parse(self.tags))


class Quota(Strict, frozen=True):
    """`namespace`: a repository and all below it; `*`: each first component; `**`: the whole registry."""

    namespace: str
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

    repositories: str
    tags: str | None = None


class OfRepositories(Strict, frozen=True):
    repositories: str


class OfNamespace(Strict, frozen=True):
    namespace: str


class RuleOperations:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules

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
            Operation("PUT", "/rules/quotas", "Set a quota", self.put, body=Quota, result=None),
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
