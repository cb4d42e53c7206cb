"""What an operator sees of repositories: sums and lists that no client of the distribution API asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.metadata.engine import Transaction
from storage.metadata.tables import blobs, manifests, repositories, repository_blobs, tags


@dataclass(frozen=True, slots=True)
class RepositoryRow:
    """`bytes` counts each blob of the repository once, and its manifests; a blob that other repositories hold too is
    counted in each."""

    name: RepositoryName
    created: datetime
    pushed: datetime
    tags: int
    manifests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TaggedRow:
    """`size` is the manifest's own, in bytes."""

    tag: Tag
    digest: Digest
    media_type: str
    artifact_type: str
    size: int
    updated: datetime


async def repository(tx: Transaction, name: RepositoryName) -> RepositoryRow | None:
    found = await _rows(tx, sa.select(repositories).where(repositories.c.name == name.value))
    return found[0] if found else None


async def named(tx: Transaction, names: Sequence[str]) -> Sequence[RepositoryRow]:
    """Those that there are, by code point. No more names than a page has."""
    return await _rows(tx, sa.select(repositories).where(repositories.c.name.in_(names)).order_by(repositories.c.name))


async def tagged(tx: Transaction, name: RepositoryName, limit: int, after: str) -> Sequence[TaggedRow]:
    query = (sa.select(tags.c.name, manifests.c.digest, manifests.c.media_type, manifests.c.artifact_type,
                       manifests.c.size, tags.c.updated)
             .join(manifests, manifests.c.id == tags.c.manifest_id)
             .join(repositories, repositories.c.id == tags.c.repository_id)
             .where(repositories.c.name == name.value, tags.c.name > after).order_by(tags.c.name).limit(limit))
    return [TaggedRow(Tag(row[0]), row[1], row[2], row[3] or "", row[4], row[5]) for row in await tx.execute(query)]


async def digests(tx: Transaction, name: RepositoryName, limit: int) -> Sequence[Digest]:
    """Some of its manifests."""
    query = (sa.select(manifests.c.digest).join(repositories, repositories.c.id == manifests.c.repository_id)
             .where(repositories.c.name == name.value).order_by(manifests.c.id.desc()).limit(limit))
    return (await tx.scalars(query)).all()


async def tags_of(tx: Transaction, name: RepositoryName, digest: Digest) -> Sequence[Tag]:
    query = (sa.select(tags.c.name).join(manifests, manifests.c.id == tags.c.manifest_id)
             .join(repositories, repositories.c.id == tags.c.repository_id)
             .where(repositories.c.name == name.value, manifests.c.digest == digest).order_by(tags.c.name))
    return [Tag(name) for name in await tx.scalars(query)]


async def _rows(tx: Transaction, query: "sa.Select[Any]") -> Sequence[RepositoryRow]:
    """The sums are asked for those on the page alone: a page costs what is on it, however many there are."""
    page = (await tx.execute(query)).mappings().all()
    numbers = [row["id"] for row in page]
    tag_count = await _sums(tx, sa.select(tags.c.repository_id, sa.func.count())
                            .where(tags.c.repository_id.in_(numbers)).group_by(tags.c.repository_id))
    held = {row[0]: (row[1], row[2]) for row in await tx.execute(
        sa.select(manifests.c.repository_id, sa.func.count(), sa.func.sum(manifests.c.size))
        .where(manifests.c.repository_id.in_(numbers)).group_by(manifests.c.repository_id))}
    stored = await _sums(tx, sa.select(repository_blobs.c.repository_id, sa.func.sum(blobs.c.size))
                         .join(blobs, blobs.c.id == repository_blobs.c.blob_id)
                         .where(repository_blobs.c.repository_id.in_(numbers))
                         .group_by(repository_blobs.c.repository_id))
    found = []
    for row in page:
        count, size = held.get(row["id"], (0, 0))
        found.append(RepositoryRow(RepositoryName(row["name"]), row["created"], row["pushed"],
                                   tag_count.get(row["id"], 0), count, int(size) + stored.get(row["id"], 0)))
    return found


async def _sums(tx: Transaction, query: "sa.Select[Any]") -> dict[int, int]:
    rows: Any = await tx.execute(query)
    return {row[0]: int(row[1]) for row in rows}
