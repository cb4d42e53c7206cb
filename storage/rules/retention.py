"""Which tags of a repository stay. Pure: no clock, no store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.metadata.rules import RetentionRule
from storage.metadata.tags import HeldTag


@dataclass(frozen=True, slots=True)
class TagVerdict:
    tag: HeldTag
    lives: bool
    why: str


def judge(tags: Sequence[HeldTag], clauses: Sequence[RetentionRule], now: datetime,
          immutable: Callable[[str], bool] = lambda _: False) -> Sequence[TagVerdict]:
    """A tag stays when one of the clauses keeps it, or when it is immutable. Without clauses all stay.

    A tag that was never pulled counts as pulled when it was pushed: what is new has had no time to be used. Of tags
    pushed in the same moment the later name counts as the later push.
    """
    if not clauses:
        return [TagVerdict(tag, lives=True, why="no retention rule is for this repository") for tag in tags]
    kept: dict[str, str] = {}
    for clause in clauses:
        matching = [tag for tag in tags if clause.tags.matches(tag.name)]
        newest = sorted(matching, key=lambda tag: (tag.updated, tag.name), reverse=True)
        for place, tag in enumerate(newest):
            if tag.name not in kept and (why := _kept(tag, place, clause, now)):
                kept[tag.name] = why
    for tag in tags:
        if tag.name not in kept and immutable(tag.name):
            kept[tag.name] = "immutable"
    return [TagVerdict(tag, lives=tag.name in kept, why=kept.get(tag.name) or _gone(tag, clauses, now))
            for tag in tags]


def _kept(tag: HeldTag, place: int, clause: RetentionRule, now: datetime) -> str:
    about = f"{clause.repositories}:{clause.tags}"
    if clause.unconditional:
        return f"{about} keeps all that match"
    if clause.last is not None and place < clause.last:
        return f"{about} keeps the last {clause.last} pushed"
    if clause.pushed_within is not None and tag.updated >= now - clause.pushed_within:
        return f"{about} keeps what was pushed within {span(clause.pushed_within)}"
    if clause.pulled_within is not None and max(tag.updated, tag.pulled or tag.updated) >= now - clause.pulled_within:
        return f"{about} keeps what was pulled within {span(clause.pulled_within)}"
    return ""


def _gone(tag: HeldTag, clauses: Sequence[RetentionRule], now: datetime) -> str:
    pulled = f"pulled {span(now - tag.pulled)} ago" if tag.pulled else "never pulled"
    return f"no clause of {clauses[0].repositories} keeps it: pushed {span(now - tag.updated)} ago, {pulled}"


def span(duration: timedelta) -> str:
    """`90 s`, `12 h`, `30 d`: in the largest unit that there are at least two of."""
    seconds = int(duration.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds} s"
