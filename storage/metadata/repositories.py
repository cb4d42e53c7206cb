"""Repositories: made by their first content, listed, searched, and marked as changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ocispec.reference import RepositoryName
from storage.metadata.dialect import insert_or_ignore, locked, next_generation
from storage.metadata.engine import Transaction
from storage.metadata.tables import EPOCH, Instant, manifests, repositories, tags


@dataclass(frozen=True, slots=True)
class RepositorySummary:
    """A repository as search shows it; `pushed_at` is when content last came."""

    name: RepositoryName
    tags: int
    pushed_at: datetime


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


async def catalog(tx: Transaction, limit: int | None, last: str | None) -> Sequence[str]:
    """Names of repositories that hold a manifest, by code point, after `last`."""
    query = sa.select(repositories.c.name).where(_holds_manifest()).order_by(repositories.c.name).limit(limit)
    if last is not None:
        query = query.where(repositories.c.name > last)
    return (await tx.scalars(query)).all()


async def all_ids(tx: Transaction) -> Sequence[int]:
    return (await tx.scalars(sa.select(repositories.c.id).order_by(repositories.c.id))).all()


async def search(tx: Transaction, text: str, limit: int, offset: int) -> tuple[list[RepositorySummary], int]:
    """Repositories whose name contains `text` in any case: the exact name first, then those whose last component it
    begins, then the rest by name. And how many there are in all."""
    wanted = text.lower()
    name = sa.func.lower(repositories.c.name)
    matches = sa.and_(name.contains(wanted, autoescape=True), _holds_manifest())
    rank = sa.case((name == wanted, 0), (name.startswith(wanted, autoescape=True), 1),
                   (name.contains(f"/{wanted}", autoescape=True), 1), else_=2)
    count = sa.select(sa.func.count()).where(tags.c.repository_id == repositories.c.id).scalar_subquery()
    query = (sa.select(repositories.c.name, count, repositories.c.pushed).where(matches)
             .order_by(rank, repositories.c.name).limit(limit).offset(offset))
    total = await tx.scalar(sa.select(sa.func.count()).select_from(repositories).where(matches))
    found = [RepositorySummary(RepositoryName(row[0]), row[1], row[2]) for row in await tx.execute(query)]
    return found, total or 0


def _holds_manifest() -> sa.ColumnElement[bool]:
    return sa.exists().where(manifests.c.repository_id == repositories.c.id)
