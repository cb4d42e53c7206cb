"""Which repositories the collector has to look at, and which process collects."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from storage.metadata.blobs import batches
from storage.metadata.dialect import insert_or_ignore
from storage.metadata.engine import Transaction
from storage.metadata.tables import EPOCH, Instant, duties, repositories

EVERYTHING = "everything"
"""Looking at everything."""

RETENTION = "retention"


async def unfinished(tx: Transaction, limit: int) -> Sequence[int]:
    """Repositories that were taken, by a collector that died over them."""
    return (await tx.scalars(sa.select(repositories.c.id).where(repositories.c.reviewing.is_not(None))
                             .limit(limit))).all()


async def due(tx: Transaction, cutoff: datetime, limit: int) -> Sequence[int]:
    """Repositories that are dirty since `cutoff` or longer, the longest first."""
    query = (sa.select(repositories.c.id).where(repositories.c.dirty <= cutoff, repositories.c.reviewing.is_(None))
             .order_by(repositories.c.dirty).limit(limit))
    return (await tx.scalars(query)).all()


async def waiting(tx: Transaction) -> int:
    """How many repositories are to be looked at, now or later."""
    query = sa.select(sa.func.count()).where(sa.or_(repositories.c.dirty.is_not(None),
                                                    repositories.c.reviewing.is_not(None)))
    return await tx.scalar(query) or 0


async def take(tx: Transaction, numbers: Sequence[int]) -> None:
    """From here on a change makes them dirty anew; until `finish`, that they were is kept in `reviewing`."""
    for some in batches(numbers):
        await tx.execute(sa.update(repositories).where(repositories.c.id.in_(some), repositories.c.reviewing.is_(None))
                         .values(reviewing=repositories.c.dirty, dirty=None))


async def finish(tx: Transaction, looks: Mapping[int, datetime | None]) -> None:
    """Each was looked at, and has to be again when it is dirty since the time given (None: when something changes)."""
    done = [number for number, look in looks.items() if look is None]
    for some in batches(done):
        await tx.execute(sa.update(repositories).where(repositories.c.id.in_(some)).values(reviewing=None))
    again = [{"number": number, "look": look} for number, look in looks.items() if look is not None]
    if again:
        look = sa.bindparam("look", type_=Instant)
        await tx.execute(
            sa.update(repositories).where(repositories.c.id == sa.bindparam("number")).values(
                reviewing=None, dirty=sa.case((repositories.c.dirty < look, repositories.c.dirty), else_=look)), again)


async def take_duty(tx: Transaction, name: str, holder: str, now: datetime, expires: datetime) -> bool:
    """Whether `holder` has the duty now: it had it, or nobody did."""
    await tx.execute(insert_or_ignore(tx, duties, {
        "name": name, "holder": "", "expires": EPOCH, "done": None}))
    free = sa.or_(duties.c.holder == holder, duties.c.expires <= now)
    taken = await tx.execute(sa.update(duties).where(duties.c.name == name, free)
                             .values(holder=holder, expires=expires))
    return taken.rowcount > 0


async def drop_duty(tx: Transaction, name: str, holder: str) -> None:
    await tx.execute(sa.update(duties).where(duties.c.name == name, duties.c.holder == holder).values(
        holder="", expires=EPOCH))


async def last_done(tx: Transaction, name: str) -> datetime | None:
    found: datetime | None = await tx.scalar(sa.select(duties.c.done).where(duties.c.name == name))
    return found


async def note_done(tx: Transaction, name: str, at: datetime | None) -> None:
    """None: it is to be done as soon as may be."""
    await tx.execute(insert_or_ignore(tx, duties, {"name": name, "holder": "", "expires": EPOCH, "done": None}))
    await tx.execute(sa.update(duties).where(duties.c.name == name).values(done=at))
