"""Repositories: made by their first content, listed, searched, and marked as changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ocispec.reference import RepositoryName
from storage.metadata.dialect import insert_or_ignore, joined_lines, locked, next_generation, position
from storage.metadata.engine import Transaction
from storage.metadata.tables import EPOCH, Instant, manifests, repositories, tags

MOST_TAGS = 1000
"""As far as a search counts a repository's tags."""


@dataclass(frozen=True, slots=True)
class RepositorySummary:
    """A repository as search shows it; `pushed_at` is when content last came. `tags` stops at `MOST_TAGS`."""

    name: RepositoryName
    tags: int
    pushed_at: datetime


@dataclass(frozen=True, slots=True)
class Region:
    """Where to look for names: those that begin with one of `prefixes` and match the SQL pattern beside it (LIKE, `!`
    escapes), and are not one of `hidden` or below. It only narrows the search: each name is still decided about."""

    prefixes: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...] = ()


async def find(tx: Transaction, name: RepositoryName) -> int | None:
    found: int | None = await tx.scalar(sa.select(repositories.c.id).where(repositories.c.name == name.value))
    return found


async def ensure(tx: Transaction, name: RepositoryName, now: datetime) -> int:
    """The repository's row, made when it is not there."""
    found = await find(tx, name)
    if found is None:
        await tx.execute(insert_or_ignore(tx, repositories, {
            "name": name.value, "created": now, "pushed": now, "generation": 0}))
        found = await find(tx, name)
        assert found is not None
    return found


async def lock(tx: Transaction, name: RepositoryName) -> int | None:
    """The repository's row, its manifests, tags and deletions kept from others that lock it until the transaction ends.
    Adding blobs and uploads needs no lock."""
    found: int | None = await tx.scalar(locked(tx, sa.select(repositories.c.id).where(
        repositories.c.name == name.value)))
    return found


async def ensure_locked(tx: Transaction, name: RepositoryName, now: datetime) -> int:
    """`ensure` and `lock`."""
    found = await lock(tx, name)
    if found is None:
        await ensure(tx, name, now)
        found = await lock(tx, name)
        assert found is not None
    return found


async def outdate(tx: Transaction, repository: int, *, since: datetime | None = EPOCH) -> None:
    """Something that a process may remember of this repository stops being true with this transaction.

    Generations are numbered across all repositories, so that one look at the index finds whatever changed. What only
    becomes true (a new tag, a new link) outdates nothing, because absence is never remembered. A repository's row
    stays when it is empty: its removal would take the number along, and nobody would notice.

    What stops being true may leave garbage: the collector looks at the repository a grace after `since` (EPOCH: in its
    next turn; None: there is none).
    """
    values: dict[str, Any] = {"generation": next_generation(tx)}
    if since is not None:
        earlier = repositories.c.dirty < since
        values["dirty"] = sa.case((earlier, repositories.c.dirty), else_=sa.literal(since, Instant))
    await tx.execute(sa.update(repositories).where(repositories.c.id == repository).values(values))


async def pushed(tx: Transaction, repository: int, now: datetime, *, dirty: bool = True) -> None:
    """`dirty`: what was pushed may be garbage one day without any other change (nothing names it, say)."""
    values: dict[str, Any] = {"pushed": now}
    if dirty:
        values["dirty"] = sa.func.coalesce(repositories.c.dirty, sa.literal(now, Instant))
    await tx.execute(sa.update(repositories).where(repositories.c.id == repository).values(values))


async def filled(tx: Transaction, repository: int) -> None:
    """It holds a manifest now."""
    await tx.execute(sa.update(repositories).where(repositories.c.id == repository, ~repositories.c.filled)
                     .values(filled=True))


async def maybe_emptied(tx: Transaction, repository: int) -> None:
    """Manifests of it are gone, perhaps all."""
    held = sa.exists().where(manifests.c.repository_id == repository)
    await tx.execute(sa.update(repositories).where(repositories.c.id == repository, repositories.c.filled, ~held)
                     .values(filled=False))


async def catalog(tx: Transaction, limit: int | None, last: str | None, region: Region | None = None) -> Sequence[str]:
    """Names of repositories that hold a manifest, by code point, after `last`."""
    query = (sa.select(repositories.c.name).where(repositories.c.filled, _within(region)).order_by(repositories.c.name)
             .limit(limit))
    if last is not None:
        query = query.where(repositories.c.name > last)
    return await texts(tx, query)


async def texts(tx: Transaction, query: sa.Select[tuple[str]]) -> Sequence[str]:
    """What one column of names holds, by code point. As one value: a row for each costs ten times as much."""
    names = query.subquery()
    joined = await tx.scalar(sa.select(joined_lines(tx, names.c[0])).select_from(names))
    # The databases do not promise an aggregate's order, though they keep the subquery's: sorting it again is cheap.
    return sorted(joined.split("\n")) if joined else []


async def page(tx: Transaction, after: str, limit: int) -> Sequence[tuple[int, RepositoryName]]:
    """Rows and names, by name, beyond `after`."""
    query = (sa.select(repositories.c.id, repositories.c.name).where(repositories.c.name > after)
             .order_by(repositories.c.name).limit(limit))
    return [(row[0], RepositoryName(row[1])) for row in await tx.execute(query)]


async def all_ids(tx: Transaction) -> Sequence[int]:
    return (await tx.scalars(sa.select(repositories.c.id).order_by(repositories.c.id))).all()


async def search(tx: Transaction, text: str, limit: int, offset: int) -> tuple[list[RepositorySummary], int]:
    """Repositories whose name contains `text` in any case: the exact name first, then those whose last component it
    begins, then the rest by name. And how many there are in all.

    This reads one index from end to end, twice when something is found (names have no capitals, so they are compared as
    they are; LIKE would take five times as long). Tags are counted for the page alone, and no further than `MOST_TAGS`.
    """
    wanted = text.lower()
    total = await tx.scalar(sa.select(sa.func.count()).select_from(repositories).where(_matching(tx, wanted))) or 0
    if offset >= total:
        return [], total
    page = await tx.execute(_ranked(tx, wanted).limit(limit).offset(offset))
    return [await _summary(tx, row) for row in page.all()], total


async def search_among(tx: Transaction, text: str, limit: int, offset: int, most: int, region: Region | None,
                       decide: Callable[[RepositoryName], bool]) -> tuple[list[RepositorySummary], int]:
    """The same of those `decide` says yes to, among the best `most` within `region`."""
    rows = await tx.execute(_ranked(tx, text.lower()).where(_within(region)).limit(most))
    seen = [row for row in rows.all() if decide(RepositoryName(row[1]))]
    return [await _summary(tx, row) for row in seen[offset : offset + limit]], len(seen)


def _matching(tx: Transaction, wanted: str) -> sa.ColumnElement[bool]:
    return sa.and_(repositories.c.filled, position(tx, repositories.c.name, wanted) > 0)


def _ranked(tx: Transaction, wanted: str) -> sa.Select[Any]:
    name = repositories.c.name
    place = position(tx, name, wanted)
    rank = sa.case((name == wanted, 0), (place == 1, 1), (position(tx, name, f"/{wanted}") > 0, 1), else_=2)
    return (sa.select(repositories.c.id, name, repositories.c.pushed).where(_matching(tx, wanted))
            .order_by(rank, name))


async def _summary(tx: Transaction, row: Any) -> RepositorySummary:
    return RepositorySummary(RepositoryName(row[1]), await _tags(tx, row[0]), row[2])


async def _tags(tx: Transaction, repository: int) -> int:
    some = sa.select(tags.c.name).where(tags.c.repository_id == repository).limit(MOST_TAGS).subquery()
    return await tx.scalar(sa.select(sa.func.count()).select_from(some)) or 0


_AFTER_ALL = "~"
"""Sorts behind every character that a name may have."""


def _within(region: Region | None) -> sa.ColumnElement[bool]:
    if region is None:
        return sa.true()
    name = repositories.c.name
    places = [sa.and_(name >= prefix, name < prefix + _AFTER_ALL, name.like(like, escape="!"))
              for prefix, like in region.prefixes]
    closed = [sa.or_(name == tree, sa.and_(name >= f"{tree}/", name < f"{tree}/{_AFTER_ALL}"))
              for tree in region.hidden]
    return sa.and_(sa.or_(sa.false(), *places), sa.not_(sa.or_(sa.false(), *closed)))
