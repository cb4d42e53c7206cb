"""Rules as they are kept: what kind, for which repositories and tags, and how."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import sqlalchemy as sa

from ocispec.errors import InvalidArgument
from ocispec.pattern import Pattern
from storage.metadata.dialect import upsert
from storage.metadata.engine import Transaction
from storage.metadata.tables import rules
from storage.metadata.topics import outdate

TOPIC = "rules"
ALL = "**"


class Kind(Enum):
    RETENTION = "retention"
    UNTAGGED = "untagged"
    IMMUTABLE = "immutable"
    QUOTA = "quota"


class InvalidRule(InvalidArgument):
    """What the rule says cannot be meant."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """One clause of the retention of the repositories that match: tags that match `tags` are kept when they are among
    the `last` pushed, or were pushed or pulled within so long; all of them when it names no condition."""

    repositories: Pattern
    tags: Pattern
    last: int | None = None
    pushed_within: timedelta | None = None
    pulled_within: timedelta | None = None

    @property
    def unconditional(self) -> bool:
        return self.last is None and self.pushed_within is None and self.pulled_within is None


@dataclass(frozen=True, slots=True)
class UntaggedRule:
    """How long a manifest lives that nothing names; None: until it is deleted."""

    repositories: Pattern
    keep: timedelta | None


@dataclass(frozen=True, slots=True)
class ImmutableRule:
    """A tag, once it is there, stays what it is."""

    repositories: Pattern
    tags: Pattern


@dataclass(frozen=True, slots=True)
class QuotaRule:
    """`namespace`: a repository and all below it; `*`: each first component that has no rule of its own; `**`: the
    whole registry. `limit` in bytes."""

    namespace: str
    limit: int


Rule = RetentionRule | UntaggedRule | ImmutableRule | QuotaRule


async def all_rules(tx: Transaction) -> Sequence[Rule]:
    query = sa.select(rules.c.kind, rules.c.repositories, rules.c.tags, rules.c.options).order_by(
        rules.c.kind, rules.c.repositories, rules.c.tags)
    return [_read(Kind(row[0]), row[1], row[2], json.loads(row[3])) for row in await tx.execute(query)]


async def put(tx: Transaction, rule: Rule, now: datetime) -> None:
    """In place of the one with the same kind and patterns. Every process hears of it with the commit."""
    kind, repositories, tags, options = _written(rule)
    await tx.execute(upsert(tx, rules, {
        "kind": kind.value, "repositories": repositories, "tags": tags, "options": json.dumps(options),
        "created": now}, ["kind", "repositories", "tags"]))
    await outdate(tx, TOPIC)


async def delete(tx: Transaction, kind: Kind, repositories: str, tags: str | None) -> int:
    """How many there were; `tags` None: whatever their tag pattern."""
    where = [rules.c.kind == kind.value, rules.c.repositories == repositories]
    if tags is not None:
        where.append(rules.c.tags == tags)
    gone = (await tx.execute(sa.delete(rules).where(*where))).rowcount
    await outdate(tx, TOPIC)
    return gone


def kind_of(rule: Rule) -> Kind:
    return _written(rule)[0]


def _written(rule: Rule) -> tuple[Kind, str, str, Mapping[str, Any]]:
    if isinstance(rule, RetentionRule):
        return Kind.RETENTION, rule.repositories.text, rule.tags.text, {
            "last": rule.last, "pushed_within": _seconds(rule.pushed_within),
            "pulled_within": _seconds(rule.pulled_within)}
    if isinstance(rule, UntaggedRule):
        return Kind.UNTAGGED, rule.repositories.text, ALL, {"keep": _seconds(rule.keep)}
    if isinstance(rule, ImmutableRule):
        return Kind.IMMUTABLE, rule.repositories.text, rule.tags.text, {}
    return Kind.QUOTA, rule.namespace, ALL, {"limit": rule.limit}


def _read(kind: Kind, repositories: str, tags: str, options: Mapping[str, Any]) -> Rule:
    if kind is Kind.QUOTA:
        return QuotaRule(repositories, options["limit"])
    pattern = Pattern.parse(repositories)
    if kind is Kind.RETENTION:
        return RetentionRule(pattern, Pattern.parse(tags), options["last"], _duration(options["pushed_within"]),
                             _duration(options["pulled_within"]))
    if kind is Kind.UNTAGGED:
        return UntaggedRule(pattern, _duration(options["keep"]))
    return ImmutableRule(pattern, Pattern.parse(tags))


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
