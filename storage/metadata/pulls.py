"""When tags and manifests were last pulled, and how often."""

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from storage.metadata.dialect import upsert_select
from storage.metadata.engine import Transaction
from storage.metadata.tables import manifests, pulls, repositories, tags

Pulled = Mapping[tuple[str, str], int]
"""Repository and reference (a tag, or a digest with its algorithm) to how often."""


async def add(tx: Transaction, counts: Pulled, now: datetime) -> None:
    """What names no repository is dropped."""
    source = sa.select(repositories.c.id, sa.bindparam("ref"), sa.bindparam("at", type_=pulls.c.pulled.type),
                       sa.bindparam("times", type_=sa.BigInteger())).where(repositories.c.name == sa.bindparam("repo"))
    statement = upsert_select(tx, pulls, ["repository_id", "reference", "pulled", "count"], source,
                              ["repository_id", "reference"],
                              lambda new: {"count": pulls.c.count + new["count"], "pulled": new["pulled"]})
    await tx.execute(statement, [{"repo": repo, "ref": reference, "at": now, "times": times}
                                 for (repo, reference), times in counts.items()])


async def of(tx: Transaction, repository: int) -> Mapping[str, tuple[datetime, int]]:
    """By reference: the last pull, and how many there were."""
    query = sa.select(pulls.c.reference, pulls.c.pulled, pulls.c.count).where(pulls.c.repository_id == repository)
    return {row[0]: (row[1], row[2]) for row in await tx.execute(query)}


async def stale(tx: Transaction, repository: int) -> bool:
    """Whether `forget` would find anything."""
    query = sa.select(pulls.c.reference).where(pulls.c.repository_id == repository, _gone(repository)).limit(1)
    return await tx.scalar(query) is not None


async def forget(tx: Transaction, repository: int) -> None:
    """Drop what is known of tags and manifests that are gone."""
    await tx.execute(sa.delete(pulls).where(pulls.c.repository_id == repository, _gone(repository)))


def _gone(repository: int) -> sa.ColumnElement[bool]:
    named = sa.exists().where(tags.c.repository_id == repository, tags.c.name == pulls.c.reference)
    held = sa.exists().where(manifests.c.repository_id == repository,
                             sa.type_coerce(manifests.c.digest, sa.String) == pulls.c.reference)
    return sa.and_(~named, ~held)
