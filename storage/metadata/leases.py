"""Leases: content that somebody is working with, until released or expired."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from ocispec.digest import Digest
from storage.metadata.dialect import insert_or_ignore
from storage.metadata.engine import Transaction
from storage.metadata.tables import lease_contents, leases


async def insert(tx: Transaction, lease_id: str, owner: str, expires: datetime) -> None:
    await tx.execute(sa.insert(leases).values(id=lease_id, owner=owner[:255], expires=expires))


async def renew(tx: Transaction, lease_id: str, expires: datetime) -> bool:
    """False when it is gone: it had expired and was dropped."""
    renewed = await tx.execute(sa.update(leases).where(leases.c.id == lease_id).values(expires=expires))
    return renewed.rowcount > 0


async def add(tx: Transaction, lease_id: str, digests: Collection[Digest]) -> None:
    if digests:
        await tx.execute(insert_or_ignore(tx, lease_contents, None), [
            {"lease_id": lease_id, "digest": digest} for digest in digests])


async def delete(tx: Transaction, lease_id: str) -> None:
    await tx.execute(sa.delete(leases).where(leases.c.id == lease_id))


async def drop_expired(tx: Transaction, now: datetime) -> None:
    await tx.execute(sa.delete(leases).where(leases.c.expires <= now))


async def leased(tx: Transaction, now: datetime) -> frozenset[Digest]:
    """Everything that a lease names which has not expired."""
    query = (sa.select(lease_contents.c.digest).join(leases, leases.c.id == lease_contents.c.lease_id)
             .where(leases.c.expires > now))
    return frozenset(await tx.scalars(query))
