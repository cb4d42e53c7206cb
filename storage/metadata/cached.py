"""Tags that came from another registry, and blobs that are on their way from one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.store import StorageKey
from storage.metadata.dialect import insert_or_ignore, upsert
from storage.metadata.engine import Transaction
from storage.metadata.manifests import StoredManifest
from storage.metadata.tables import cached_tags, fills, manifest_references, manifests, repositories, tags


@dataclass(frozen=True, slots=True)
class CachedTag:
    """`checked`: when its upstream last said what it names; `used`: when somebody last pulled it, roughly."""

    repo: RepositoryName
    tag: Tag
    digest: Digest
    checked: datetime
    used: datetime


@dataclass(frozen=True, slots=True)
class FillRow:
    """`expires`: when others may take it over."""

    owner: str
    expires: datetime
    upload_id: str | None = None
    key: StorageKey | None = None
    size: int | None = None


async def find_tag(tx: Transaction, repo: RepositoryName, tag: Tag) -> CachedTag | None:
    query = _tags().where(repositories.c.name == repo.value, tags.c.name == tag.value)
    return next(iter(await _cached(tx, query)), None)


async def list_tags(tx: Transaction, repo: RepositoryName, limit: int, after: str) -> Sequence[CachedTag]:
    """At most `limit` of the repository, by name, after `after`."""
    query = _tags().where(repositories.c.name == repo.value, tags.c.name > after).order_by(tags.c.name).limit(limit)
    return await _cached(tx, query)


async def note_tag(tx: Transaction, repository: int, tag: Tag, *, checked: datetime, used: datetime) -> None:
    values = {"repository_id": repository, "name": tag.value, "checked": checked, "used": used}
    await tx.execute(upsert(tx, cached_tags, values, ["repository_id", "name"]))


async def use_tag(tx: Transaction, repository: int, tag: Tag, used: datetime) -> None:
    await tx.execute(sa.update(cached_tags).values(used=used).where(
        cached_tags.c.repository_id == repository, cached_tags.c.name == tag.value))


async def drop_unused(tx: Transaction, cutoff: datetime) -> Sequence[tuple[int, Tag]]:
    """Delete cached tags that nobody used since; gives them with their repositories' rows."""
    query = sa.select(cached_tags.c.repository_id, cached_tags.c.name).where(cached_tags.c.used < cutoff)
    found = [(row[0], Tag(row[1])) for row in await tx.execute(query)]
    for repository, tag in found:
        await tx.execute(sa.delete(tags).where(tags.c.repository_id == repository, tags.c.name == tag.value))
    return found


async def indexes_naming(tx: Transaction, repo: RepositoryName, child: Digest, limit: int) -> Sequence[StoredManifest]:
    """Indexes of the repository that list `child`, the newest first."""
    query = (sa.select(manifests.c.digest, manifests.c.media_type, manifests.c.raw)
             .join(repositories, repositories.c.id == manifests.c.repository_id)
             .join(manifest_references, manifest_references.c.manifest_id == manifests.c.id)
             .where(repositories.c.name == repo.value, manifest_references.c.digest == child,
                    manifest_references.c.is_manifest.is_(True)).order_by(manifests.c.id.desc()).limit(limit))
    return [StoredManifest(*row) for row in await tx.execute(query)]


async def claim_fill(tx: Transaction, repo: RepositoryName, digest: Digest, owner: str, now: datetime,
                     expires: datetime) -> FillRow:
    """The row afterwards: ours if there was none or it had expired."""
    found = await find_fill(tx, repo, digest)
    if found is None:
        await tx.execute(insert_or_ignore(tx, fills, {
            "repository": repo.value, "digest": digest, "owner": owner, "expires": expires}))
        return FillRow(owner, expires)
    if found.owner != owner and found.expires > now:
        return found
    await tx.execute(sa.update(fills).where(_fill(repo, digest)).values(owner=owner, expires=expires))
    return FillRow(owner, expires, found.upload_id, found.key, found.size)


async def find_fill(tx: Transaction, repo: RepositoryName, digest: Digest) -> FillRow | None:
    row = (await tx.execute(sa.select(fills.c.owner, fills.c.expires, fills.c.upload_id, fills.c.key, fills.c.size)
                            .where(_fill(repo, digest)))).first()
    return None if row is None else FillRow(row[0], row[1], row[2], StorageKey(row[3]) if row[3] else None, row[4])


async def publish_fill(tx: Transaction, repo: RepositoryName, digest: Digest, owner: str, *, upload_id: str,
                       key: StorageKey | None, size: int | None) -> None:
    await tx.execute(sa.update(fills).where(_fill(repo, digest), fills.c.owner == owner)
                     .values(upload_id=upload_id, key=key, size=size))


async def renew_fills(tx: Transaction, owner: str, expires: datetime) -> None:
    await tx.execute(sa.update(fills).where(fills.c.owner == owner).values(expires=expires))


async def release_fill(tx: Transaction, repo: RepositoryName, digest: Digest, owner: str, now: datetime | None) -> None:
    """Over: the row goes. Or, with `now`, whoever wants the blob next may go on where this ended."""
    where = sa.and_(_fill(repo, digest), fills.c.owner == owner)
    await tx.execute(sa.delete(fills).where(where) if now is None else
                     sa.update(fills).where(where).values(expires=now))


async def drop_fills(tx: Transaction, cutoff: datetime) -> None:
    """Rows that expired before, and that nobody took over."""
    await tx.execute(sa.delete(fills).where(fills.c.expires < cutoff))


def _fill(repo: RepositoryName, digest: Digest) -> sa.ColumnElement[bool]:
    return sa.and_(fills.c.repository == repo.value, fills.c.digest == digest)


def _tags() -> sa.Select[Any]:
    return (sa.select(repositories.c.name, tags.c.name, manifests.c.digest, cached_tags.c.checked, cached_tags.c.used)
            .join(tags, sa.and_(tags.c.repository_id == cached_tags.c.repository_id,
                                tags.c.name == cached_tags.c.name))
            .join(repositories, repositories.c.id == tags.c.repository_id)
            .join(manifests, manifests.c.id == tags.c.manifest_id))


async def _cached(tx: Transaction, query: sa.Select[Any]) -> list[CachedTag]:
    return [CachedTag(RepositoryName(row[0]), Tag(row[1]), row[2], row[3], row[4]) for row in await tx.execute(query)]
