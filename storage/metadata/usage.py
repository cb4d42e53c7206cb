"""What the namespaces of quotas hold: bytes of blobs, each counted once for a namespace, and of manifests.

Every change adds a row; the sum is the truth. Rows of many changes are folded into one now and then, and counted anew
from the content itself by upkeep, which repairs whatever went wrong.
"""

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from storage.metadata.blobs import batches
from storage.metadata.engine import Transaction
from storage.metadata.tables import blobs, manifests, repositories, repository_blobs, usage

EVERYTHING = ""
"""The namespace of the whole registry."""


def inside(namespace: str) -> sa.ColumnElement[bool]:
    """Repositories of the namespace: the one of its name and those below it."""
    if namespace == EVERYTHING:
        return sa.true()
    name = repositories.c.name  # by code point, so "/" and the character after it enclose what is below
    return sa.or_(name == namespace, sa.and_(name > f"{namespace}/", name < f"{namespace}0"))


async def used(tx: Transaction, namespace: str) -> int:
    total = await tx.scalar(sa.select(sa.func.sum(usage.c.bytes)).where(usage.c.namespace == namespace))
    return int(total or 0)


async def add(tx: Transaction, namespace: str, size: int) -> None:
    if size:
        await tx.execute(sa.insert(usage).values(namespace=namespace, bytes=size))


async def held(tx: Transaction, namespace: str, numbers: Collection[int]) -> set[int]:
    """Those of the blobs that some repository of the namespace holds."""
    found: set[int] = set()
    for some in batches(numbers):
        query = (sa.select(repository_blobs.c.blob_id).distinct()
                 .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
                 .where(repository_blobs.c.blob_id.in_(some), inside(namespace)))
        found.update(await tx.scalars(query))
    return found


async def rows(tx: Transaction, namespace: str) -> int:
    return await tx.scalar(sa.select(sa.func.count()).where(usage.c.namespace == namespace)) or 0


async def fold(tx: Transaction, namespace: str) -> None:
    """Many rows become one. What is deleted is what is added up, so two that fold at once spoil nothing."""
    gone = await tx.execute(sa.delete(usage).where(usage.c.namespace == namespace).returning(usage.c.bytes))
    await add(tx, namespace, sum(row[0] for row in gone))


async def counted(tx: Transaction, namespace: str) -> tuple[int, Mapping[int, int]]:
    """What the namespace's content weighs, and the rows (id to bytes) that should add up to it: one statement, so
    that no push lies between the two."""
    blob_ids = (sa.select(repository_blobs.c.blob_id)
                .join(repositories, repositories.c.id == repository_blobs.c.repository_id).where(inside(namespace)))
    stored = sa.select(sa.func.coalesce(sa.func.sum(blobs.c.size), 0)).where(blobs.c.id.in_(blob_ids))
    named = (sa.select(sa.func.coalesce(sa.func.sum(manifests.c.size), 0))
             .join(repositories, repositories.c.id == manifests.c.repository_id).where(inside(namespace)))
    query = sa.union_all(
        sa.select(sa.literal(0).label("id"), stored.scalar_subquery().label("bytes")),
        sa.select(sa.literal(0), named.scalar_subquery()),
        sa.select(usage.c.id, usage.c.bytes).where(usage.c.namespace == namespace))
    weight, listed = 0, {}
    for number, size in await tx.execute(query):
        if number:
            listed[number] = int(size)
        else:
            weight += int(size)
    return weight, listed


async def repair(tx: Transaction, namespace: str, weight: int, seen: Collection[int]) -> None:
    """Put what was `counted` in place of the rows that were seen then; rows that came since stay."""
    for some in batches(seen):
        await tx.execute(sa.delete(usage).where(usage.c.id.in_(some)))
    await add(tx, namespace, weight)


async def forget(tx: Transaction, keep: Collection[str]) -> None:
    """Drop the rows of every namespace but these."""
    names = await tx.scalars(sa.select(usage.c.namespace).distinct())
    for name in set(names) - set(keep):
        await tx.execute(sa.delete(usage).where(usage.c.namespace == name))


async def namespaces(tx: Transaction) -> set[str]:
    """First components of all repositories' names."""
    first: set[str] = set()
    last = ""
    while True:  # one look into the index for each component, however many repositories it has
        name = await tx.scalar(sa.select(repositories.c.name).where(repositories.c.name > last)
                               .order_by(repositories.c.name).limit(1))
        if name is None:
            return first
        component = name.partition("/")[0]
        first.add(component)
        last = f"{component}0" if "/" in name else name
