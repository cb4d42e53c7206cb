"""Deciding from rules alone: pure, in memory, the same for every way of asking."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ocispec.reference import InvalidName, RepositoryName
from registry.auth import subjects
from registry.auth.actions import GRANTING, Action, actions_of
from registry.auth.patterns import Pattern
from registry.auth.principal import Grant, Kind, Principal

MAX_REMEMBERED = 20_000
"""Names for which the deciding pattern is remembered: about 4 MiB."""


@dataclass(frozen=True, slots=True)
class Rule:
    """In repositories of `pattern`, `subject` may do `words` (see `actions.WORDS`)."""

    pattern: Pattern
    subject: str
    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What one pattern gives, by subject."""

    pattern: Pattern
    actions: dict[str, frozenset[Action]]

    def gives(self, names: frozenset[str], action: Action) -> bool:
        return any(action in self.actions[name] for name in names & self.actions.keys())


class RuleSet:
    """Of the patterns that match a name the most specific decides alone; who it does not mention may nothing."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        by_pattern: dict[str, _Pattern] = {}
        for rule in rules:
            known = by_pattern.setdefault(rule.pattern.text, _Pattern(rule.pattern, {}))
            known.actions[rule.subject] = actions_of(rule.words)
        self._patterns: Sequence[_Pattern] = sorted(
            by_pattern.values(), key=lambda item: (item.pattern.rank, item.pattern.text), reverse=True)
        self._deciding: dict[str, _Pattern | None] = {}

    def allows(self, principal: Principal, action: Action, repository: RepositoryName) -> bool:
        """What the principal may in itself, whatever the credential it came with."""
        deciding = self._decides(repository)
        if deciding is not None and deciding.gives(_STRANGERS, action):
            return True  # also for a robot whose scope has it not: it could ask without its token
        if principal.scope is not None:
            if not covers(principal.scope, action, repository):
                return False
            if not principal.owner and not principal.groups:
                return True  # made by an administrator for nobody: the scope is all there is
        if principal.admin:
            return True
        return deciding is not None and deciding.gives(subjects.of(principal), action)

    def deciding(self, repository: RepositoryName) -> Pattern | None:
        """The pattern that decides about this name."""
        found = self._decides(repository)
        return found.pattern if found else None

    def shown_to_anybody(self) -> bool:
        """Whether strangers may pull something."""
        return any(Action.PULL in item.actions.get(subjects.ANYBODY, ()) for item in self._patterns)

    def shown(self, principal: Principal) -> "Shown":
        """Where to look for what this principal may pull."""
        if principal.kind is Kind.EXTERNAL and principal.grants is not None:
            return Shown(tuple(_named(principal.grants)), ())
        if principal.scope is not None:
            public = [item.pattern for item in self._patterns if item.gives(_STRANGERS, Action.PULL)]
            return Shown((*(Pattern.parse(grant.name) for grant in principal.scope), *public), ())
        if principal.admin:
            return Shown((Pattern.parse("**"),), ())
        names = subjects.of(principal)
        giving = [item.pattern for item in self._patterns if item.gives(names, Action.PULL)]
        closed = [item.pattern.subtree for item in self._patterns if not item.gives(names, Action.PULL)]
        return Shown(tuple(giving), tuple(
            tree for tree in closed if tree and not any(_reaches(pattern, tree) for pattern in giving)))

    def _decides(self, repository: RepositoryName) -> _Pattern | None:
        known = self._deciding.get(repository.value, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        found = next((item for item in self._patterns if item.pattern.matches(repository)), None)
        if len(self._deciding) >= MAX_REMEMBERED:
            self._deciding.clear()
        self._deciding[repository.value] = found
        return found


_STRANGERS = frozenset({subjects.ANYBODY})
_UNKNOWN = _Pattern(Pattern.parse("**"), {})


@dataclass(frozen=True, slots=True)
class Shown:
    """`within`: everything that is shown matches one of these (not all that matches is shown). `hidden`: nothing is
    shown at or below these names."""

    within: tuple[Pattern, ...]
    hidden: tuple[str, ...]


def _named(grants: Iterable[Grant]) -> Iterable[Pattern]:
    """The repositories that a token names; an issuer elsewhere may write what can be none."""
    for grant in grants:
        with suppress(InvalidName):
            yield Pattern.parse(RepositoryName.parse(grant.name).value)


def _reaches(pattern: Pattern, tree: str) -> bool:
    """Whether a pattern that gives something could give it within a closed tree, by being more specific there."""
    beside = not pattern.prefix.startswith(tree) and not tree.startswith(pattern.prefix)
    return not beside and pattern.rank > Pattern.parse(f"{tree}/**").rank


def covers(grants: Iterable[Grant], action: Action, repository: RepositoryName) -> bool:
    """Whether a robot's scope, which has patterns, includes this."""
    words = GRANTING[action]
    return any(grant.type == "repository" and not words.isdisjoint(grant.actions)
               and Pattern.parse(grant.name).matches(repository) for grant in grants)


def names(grants: Iterable[Grant], action: Action, repository: RepositoryName | None) -> bool:
    """Whether a bearer token, which has names, includes this."""
    words = GRANTING[action]
    kind, name = ("registry", "catalog") if repository is None else ("repository", repository.value)
    return any(grant.name == name and grant.type == kind and not words.isdisjoint(grant.actions) for grant in grants)


def permits(rules: RuleSet, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
    """What this principal may with the credential it came with."""
    if principal.grants is not None and not names(principal.grants, action, repository):
        return False
    return holds(rules, principal, action, repository)


def holds(rules: RuleSet, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
    """What this principal may with the best credential it could get."""
    if repository is None and action is Action.ADMIN:
        return principal.administers  # `registry:catalog:*` of an issuer elsewhere is a list, no more
    if principal.kind is Kind.EXTERNAL and principal.grants is not None:
        return names(principal.grants, action, repository)  # its issuer has decided
    if repository is not None:
        return rules.allows(principal, action, repository)
    if action is Action.LIST:
        return not principal.is_anonymous or rules.shown_to_anybody()
    return principal.administers
