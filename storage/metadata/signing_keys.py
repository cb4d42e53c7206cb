"""The keys that our own bearer tokens are signed with, shared by all replicas. Changes outdate the topic `keys`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from storage.metadata import topics
from storage.metadata.engine import Transaction
from storage.metadata.tables import signing_keys

TOPIC = "keys"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """`private` is a JWK; from `retired` on nothing is signed with it."""

    kid: str
    algorithm: str
    private: str = field(repr=False)
    created: datetime
    retired: datetime | None


async def all_rows(tx: Transaction) -> Sequence[KeyRow]:
    """The newest first."""
    query = sa.select(signing_keys.c.kid, signing_keys.c.algorithm, signing_keys.c.private, signing_keys.c.created,
                      signing_keys.c.retired).order_by(signing_keys.c.created.desc(), signing_keys.c.kid)
    return [KeyRow(*row) for row in await tx.execute(query)]


async def insert(tx: Transaction, row: KeyRow) -> None:
    await tx.execute(sa.insert(signing_keys).values(
        kid=row.kid, algorithm=row.algorithm, private=row.private, created=row.created, retired=row.retired))
    await topics.outdate(tx, TOPIC)


async def retire(tx: Transaction, newest: str, now: datetime, forgotten: datetime) -> None:
    """All but the newest; those that were retired before `forgotten` go for good."""
    await tx.execute(sa.update(signing_keys).where(signing_keys.c.kid != newest, signing_keys.c.retired.is_(None))
                     .values(retired=now))
    await tx.execute(sa.delete(signing_keys).where(signing_keys.c.retired < forgotten))
    await topics.outdate(tx, TOPIC)
