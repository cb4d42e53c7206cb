"""Refresh tokens: what `docker login` keeps instead of a password."""

from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from storage.metadata.engine import Transaction
from storage.metadata.tables import refresh_tokens


@dataclass(frozen=True, slots=True)
class RefreshRow:
    """`stamp` is that of the account when the token was made: another one now makes it void."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    subject: str
    stamp: str = field(repr=False)
    client: str
    created: datetime
    expires: datetime


async def insert(tx: Transaction, row: RefreshRow, keep: int) -> None:
    """And drop what has expired, and this subject's oldest beyond `keep`: logging in again and again fills nothing."""
    mine = refresh_tokens.c.subject == row.subject
    newest = (sa.select(refresh_tokens.c.key).where(mine).order_by(refresh_tokens.c.created.desc())
              .limit(max(keep - 1, 0)))
    await tx.execute(sa.delete(refresh_tokens).where(sa.or_(
        refresh_tokens.c.expires <= row.created, sa.and_(mine, refresh_tokens.c.key.not_in(newest)))))
    await tx.execute(sa.insert(refresh_tokens).values(
        key=row.key, secret=row.secret, subject=row.subject, stamp=row.stamp, client=row.client, created=row.created,
        expires=row.expires))


async def find(tx: Transaction, key: str) -> RefreshRow | None:
    query = sa.select(refresh_tokens.c.key, refresh_tokens.c.secret, refresh_tokens.c.subject, refresh_tokens.c.stamp,
                      refresh_tokens.c.client, refresh_tokens.c.created, refresh_tokens.c.expires)
    row = (await tx.execute(query.where(refresh_tokens.c.key == key))).first()
    return None if row is None else RefreshRow(*row)


async def delete_of(tx: Transaction, subject: str) -> int:
    """Log this subject out everywhere; gives how many tokens there were."""
    return (await tx.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.subject == subject))).rowcount
