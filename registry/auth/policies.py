"""Policies as they are kept, changed and remembered."""

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ocispec.errors import InvalidArgument, NotFound
from ocispec.reference import RepositoryName
from registry.auth import subjects
from registry.auth.actions import Action, parse_words
from registry.auth.patterns import Pattern
from registry.auth.principal import Principal
from registry.auth.rules import Rule, RuleSet, Shown, holds, permits
from storage.events import Action as EventAction
from storage.events import Event, Origin
from storage.metadata import events
from storage.metadata import policies as rows
from storage.metadata.engine import Database, Transaction
from storage.metadata.policies import TOPIC, PolicyRow

MAX_RULES = 10_000
MAX_DECIDED = 20_000
"""Decisions that are remembered: about 6 MiB."""


class PolicyUnknown(NotFound):
    """There is no such policy."""


class InvalidPolicies(InvalidArgument):
    """A file of policies cannot be used as it is; the message says where."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `check` found, and by which pattern."""

    allowed: frozenset[str]
    pattern: str | None


class Policies:
    """Changing and showing them. What is committed counts in every process before its next decision."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Rule]:
        """By pattern and subject."""
        async with self._database.read() as tx:
            return [_rule(row) for row in await rows.all_rows(tx)]

    async def set(self, pattern: str, subject: str, words: Collection[str], *,
                  origin: Origin | None = None) -> Rule:
        """Replace what `subject` may in repositories of `pattern`; no words: nothing, and the pattern still decides.
        Raises InvalidPattern, InvalidName, InvalidActions."""
        rule = make_rule(pattern, subject, words)
        async with self._database.write() as tx:
            await rows.put(tx, _row(rule), self._database.now())
            await self._record(tx, origin, pattern=pattern, subject=subject, actions=sorted(rule.words))
        return rule

    async def remove(self, pattern: str, subject: str | None = None, *, origin: Origin | None = None) -> int:
        """Of one subject, or the whole pattern. Raises PolicyUnknown."""
        async with self._database.write() as tx:
            gone = await rows.delete(tx, pattern, subject)
            if not gone:
                raise PolicyUnknown(f"no policy for {pattern!r}" + (f" and {subject}" if subject else ""))
            await self._record(tx, origin, pattern=pattern, subject=subject or "", removed=gone)
        return gone

    async def replace(self, rules: Sequence[Rule], *, origin: Origin | None = None) -> None:
        """These and no others, in one transaction."""
        async with self._database.write() as tx:
            await rows.replace(tx, map(_row, rules), self._database.now())
            await self._record(tx, origin, replaced=len(rules))

    async def _record(self, tx: Transaction, origin: Origin | None, **detail: object) -> None:
        if origin is not None:
            await events.record(tx, Event(EventAction.POLICY_CHANGE, origin, detail=detail), self._database.now())

    async def check(self, principal: Principal, repository: RepositoryName) -> Verdict:
        """What `principal` may there as things are."""
        return decide(await self.all(), principal, repository)


def decide(policies: Sequence[Rule], principal: Principal, repository: RepositoryName) -> Verdict:
    """What `principal` may there by these policies."""
    rules = RuleSet(policies)
    deciding = rules.deciding(repository)
    allowed = frozenset(action.value for action in Action
                        if action is not Action.LIST and holds(rules, principal, action, repository))
    return Verdict(allowed, deciding.text if deciding else None)


class PolicyMemory:
    """The rules in memory, as old as the last `refresh`. It is the `Policy` of a registry with accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rules = RuleSet(())
        self._decided: dict[tuple[int, str, str], tuple[Principal, bool]] = {}
        self._mark: int | None = None

    def current(self) -> bool:
        return self._mark is not None and self._mark == self._database.changes.mark(f"!{TOPIC}")

    async def refresh(self) -> None:
        mark = self._database.changes.before(f"!{TOPIC}")
        async with self._database.read() as tx:
            found = await rows.all_rows(tx)
        self._rules = RuleSet(map(_rule, found))
        self._decided.clear()
        self._mark = mark

    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        if repository is None:
            return permits(self._rules, principal, action, None)
        # By identity: what is remembered of a credential is one object as long as it is believed. The object is kept
        # beside the decision, so that its number cannot become another's.
        key = (id(principal), action.value, repository.value)
        known = self._decided.get(key)
        if known is not None:
            return known[1]
        allowed = permits(self._rules, principal, action, repository)
        if len(self._decided) >= MAX_DECIDED:
            self._decided.clear()
        self._decided[key] = (principal, allowed)
        return allowed

    def forbids(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        return not holds(self._rules, principal, action, repository)

    def shown(self, principal: Principal) -> Shown | None:
        return None if principal.admin and principal.scope is None else self._rules.shown(principal)

    def admits(self, principal: Principal) -> bool:
        """Strangers must ask for a token first, also where they may pull: docker asks `GET /v2/` once and never shows
        its credentials to a registry that answered without a challenge. A token for nobody in particular will do."""
        return not principal.is_anonymous or principal.grants is not None


def make_rule(pattern: str, subject: str, words: Collection[str]) -> Rule:
    """From what somebody wrote. Raises InvalidPattern, InvalidName, InvalidActions."""
    return Rule(Pattern.parse(pattern), subjects.parse(subject), parse_words(words))


def parse_file(text: str) -> list[Rule]:
    """Policies from TOML: a table for each pattern, `[policies."team/**"]`, with `"group:dev" = ["pull"]` in it.
    Raises InvalidPolicies."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidPolicies(f"not TOML: {error}") from error
    unknown = sorted(set(document) - {"policies"})
    if unknown:
        raise InvalidPolicies(f"unknown key {unknown[0]!r} (want a table `policies`)")
    tables = document.get("policies", {})
    if not isinstance(tables, dict):
        raise InvalidPolicies("`policies` is not a table")
    rules = [rule for pattern, table in tables.items() for rule in _parse_table(pattern, table)]
    if len(rules) > MAX_RULES:
        raise InvalidPolicies(f"more than {MAX_RULES} policies")
    return rules


def _parse_table(pattern: str, table: object) -> list[Rule]:
    if not isinstance(table, dict):
        raise InvalidPolicies(f"policies.{pattern!r} is not a table of subjects")
    found = []
    for subject, words in table.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InvalidPolicies(f"policies.{pattern!r}.{subject!r} is not a list of actions")
        try:
            found.append(make_rule(pattern, subject, words))
        except InvalidArgument as error:
            raise InvalidPolicies(f"policies.{pattern!r}.{subject!r}: {error.message}") from error
    return found


def _rule(row: PolicyRow) -> Rule:
    return Rule(Pattern.parse(row.pattern), row.subject, frozenset(filter(None, row.actions.split(","))))


def _row(rule: Rule) -> PolicyRow:
    return PolicyRow(rule.pattern.text, rule.subject, ",".join(sorted(rule.words)))
