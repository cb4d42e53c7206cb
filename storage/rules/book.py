"""All rules together, asked about one repository or tag. Pure, and cheap enough for every push."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ocispec.reference import RepositoryName, Tag
from storage.metadata.rules import ImmutableRule, QuotaRule, RetentionRule, Rule, UntaggedRule
from storage.metadata.usage import EVERYTHING

EACH = "*"
WHOLE = "**"

R = TypeVar("R", RetentionRule, UntaggedRule)


@dataclass(frozen=True, slots=True)
class Quota:
    """`namespace` may hold `limit` bytes."""

    namespace: str
    limit: int

    def __str__(self) -> str:
        return f"namespace {self.namespace}" if self.namespace else "the registry"


class RuleBook:
    """Where several retention or untagged rules match a repository, the one with the most precise repository pattern
    decides (all clauses of that pattern, for retention). Of immutable rules and quotas every one counts."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules: Sequence[Rule] = tuple(rules)
        self._immutable = [rule for rule in self.rules if isinstance(rule, ImmutableRule)]
        self._retention = [rule for rule in self.rules if isinstance(rule, RetentionRule)]
        self._untagged = [rule for rule in self.rules if isinstance(rule, UntaggedRule)]
        self._quotas = {rule.namespace: rule.limit for rule in self.rules if isinstance(rule, QuotaRule)}

    def immutable(self, repo: RepositoryName, tag: Tag) -> ImmutableRule | None:
        """A rule that says that the tag may not change."""
        return next((rule for rule in self._immutable
                     if rule.repositories.matches(repo.value) and rule.tags.matches(tag.value)), None)

    def may_be_immutable(self, repo: RepositoryName) -> bool:
        return any(rule.repositories.matches(repo.value) for rule in self._immutable)

    def retention(self, repo: RepositoryName) -> Sequence[RetentionRule]:
        """The clauses that keep tags of the repository; none: all tags stay."""
        return _most_precise(self._retention, repo)

    @property
    def retains(self) -> bool:
        return bool(self._retention)

    def untagged(self, repo: RepositoryName) -> UntaggedRule | None:
        """None: as the collector's own setting says."""
        return next(iter(_most_precise(self._untagged, repo)), None)

    def quotas(self, repo: RepositoryName) -> Sequence[Quota]:
        """Every limit that holds for the repository, the widest first."""
        if not self._quotas:
            return ()
        found = []
        if (limit := self._quotas.get(WHOLE)) is not None:
            found.append(Quota(EVERYTHING, limit))
        parts = repo.value.split("/")
        for count in range(1, len(parts) + 1):
            namespace = "/".join(parts[:count])
            limit = self._quotas.get(namespace)
            if limit is None and count == 1:
                limit = self._quotas.get(EACH)
            if limit is not None:
                found.append(Quota(namespace, limit))
        return found

    def quotas_over(self, components: Iterable[str]) -> Sequence[Quota]:
        """Every namespace that is counted, where `components` are the first ones of all repositories' names."""
        each = self._quotas.get(EACH)
        found = {name: limit for name, limit in self._quotas.items() if name not in (EACH, WHOLE)}
        if each is not None:
            found = dict.fromkeys(components, each) | found
        if (limit := self._quotas.get(WHOLE)) is not None:
            found[EVERYTHING] = limit
        return [Quota(name, found[name]) for name in sorted(found)]


def _most_precise(rules: Sequence[R], repo: RepositoryName) -> Sequence[R]:
    matching = [rule for rule in rules if rule.repositories.matches(repo.value)]
    if not matching:
        return ()
    heaviest = max(rule.repositories.weight for rule in matching)
    return [rule for rule in matching if rule.repositories.weight == heaviest]
