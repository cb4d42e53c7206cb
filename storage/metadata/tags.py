"""Tags: a name in a repository for one of its manifests."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.metadata.dialect import upsert
from storage.metadata.engine import Transaction
from storage.metadata.repositories import texts
from storage.metadata.tables import manifests, pulls, repositories, tags


@dataclass(frozen=True, slots=True)
class TagRow:
    repo: RepositoryName
    tag: Tag
    digest: Digest
    updated: datetime


async def names(tx: Transaction, repository: int, limit: int | None, last: str | None) -> Sequence[str]:
    """By code point, after `last`."""
    query = sa.select(tags.c.name).where(tags.c.repository_id == repository).order_by(tags.c.name).limit(limit)
    if last is not None:
        query = query.where(tags.c.name > last)
    return await texts(tx, query)


async def target(tx: Transaction, repository: int, tag: Tag) -> tuple[int, Digest] | None:
    """Row and digest of the manifest that the tag names."""
    query = (sa.select(manifests.c.id, manifests.c.digest).join(tags, tags.c.manifest_id == manifests.c.id)
             .where(tags.c.repository_id == repository, tags.c.name == tag.value))
    row = (await tx.execute(query)).first()
    return None if row is None else (row[0], row[1])


async def put(tx: Transaction, repository: int, tag: Tag, manifest: int, now: datetime) -> bool:
    """Point the tag at a manifest of the same repository. Whether it named another one before."""
    before = await target(tx, repository, tag)
    await write(tx, repository, tag, manifest, now)
    return before is not None and before[0] != manifest


async def write(tx: Transaction, repository: int, tag: Tag, manifest: int, now: datetime) -> None:
    """`put` for those who looked before."""
    values = {"repository_id": repository, "name": tag.value, "manifest_id": manifest, "updated": now}
    await tx.execute(upsert(tx, tags, values, ["repository_id", "name"]))


async def naming(tx: Transaction, repository: int, digest: Digest) -> Sequence[Tag]:
    query = (sa.select(tags.c.name).join(manifests, manifests.c.id == tags.c.manifest_id)
             .where(manifests.c.repository_id == repository, manifests.c.digest == digest))
    return [Tag(name) for name in await tx.scalars(query)]


@dataclass(frozen=True, slots=True)
class HeldTag:
    """A tag as retention sees it. `pulled`: when it, or the manifest it names by its digest, was last pulled."""

    name: str
    manifest: int
    digest: Digest
    updated: datetime
    pulled: datetime | None = None


async def held(tx: Transaction, repository: int, after: str, limit: int) -> Sequence[HeldTag]:
    """By name, beyond `after`."""
    by_tag, by_digest = pulls.alias(), pulls.alias()
    query = (
        sa.select(tags.c.name, tags.c.manifest_id, manifests.c.digest, tags.c.updated, by_tag.c.pulled,
                  by_digest.c.pulled)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .outerjoin(by_tag, sa.and_(by_tag.c.repository_id == repository, by_tag.c.reference == tags.c.name))
        .outerjoin(by_digest, sa.and_(by_digest.c.repository_id == repository,
                                      by_digest.c.reference == sa.type_coerce(manifests.c.digest, sa.String)))
        .where(tags.c.repository_id == repository, tags.c.name > after).order_by(tags.c.name).limit(limit))
    return [HeldTag(row[0], row[1], row[2], row[3], max(filter(None, row[4:6]), default=None))
            for row in await tx.execute(query)]


async def delete_unchanged(tx: Transaction, repository: int, found: Collection[HeldTag]) -> Sequence[HeldTag]:
    """Delete those that are still as they were found; gives them."""
    as_found = {tag.name: tag for tag in found}
    query = (sa.select(tags.c.name, tags.c.manifest_id, tags.c.updated)
             .where(tags.c.repository_id == repository, tags.c.name.in_(as_found)).with_for_update())
    same = [as_found[name] for name, manifest, updated in await tx.execute(query)
            if (as_found[name].manifest, as_found[name].updated) == (manifest, updated)]
    if same:
        await tx.execute(sa.delete(tags).where(tags.c.repository_id == repository,
                                               tags.c.name.in_([tag.name for tag in same])))
    return same


async def delete(tx: Transaction, repository: int, tag: Tag) -> None:
    await tx.execute(sa.delete(tags).where(tags.c.repository_id == repository, tags.c.name == tag.value))


async def rows(tx: Transaction, digest: Digest | None = None) -> Sequence[TagRow]:
    """Every tag of every repository, or those that name `digest`; by repository and tag."""
    query = (sa.select(repositories.c.name, tags.c.name, manifests.c.digest, tags.c.updated)
             .join(repositories, repositories.c.id == tags.c.repository_id)
             .join(manifests, manifests.c.id == tags.c.manifest_id).order_by(repositories.c.name, tags.c.name))
    if digest is not None:
        query = query.where(manifests.c.digest == digest)
    return [TagRow(RepositoryName(row[0]), Tag(row[1]), row[2], row[3]) for row in await tx.execute(query)]
