"""What the collector asks: everything of one repository, blobs without one, and their removal."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.metadata import repositories as repository_rows
from storage.metadata.blobs import BlobInfo, batches
from storage.metadata.engine import Transaction
from storage.metadata.tables import (
    blobs,
    lease_contents,
    leases,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
)


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """A manifest as the collector sees it: `size` is of its own bytes."""

    digest: Digest
    size: int
    touched: datetime
    pinned: bool = True
    tags: tuple[Tag, ...] = ()
    subject: Digest | None = None
    children: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A blob's membership in one repository."""

    digest: Digest
    size: int
    touched: datetime


@dataclass(frozen=True, slots=True)
class RepositoryContent:
    name: RepositoryName
    manifests: tuple[HeldManifest, ...]
    blobs: tuple[HeldBlob, ...]


async def content(tx: Transaction, repository: int) -> RepositoryContent:
    name = await tx.scalar(sa.select(repositories.c.name).where(repositories.c.id == repository))
    links = (sa.select(blobs.c.digest, blobs.c.size, blobs.c.touched)
             .join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
             .where(repository_blobs.c.repository_id == repository))
    return RepositoryContent(
        RepositoryName(name or ""), await _manifests(tx, repository),
        tuple(HeldBlob(row[0], row[1], row[2]) for row in await tx.execute(links)))


async def _manifests(tx: Transaction, repository: int) -> tuple[HeldManifest, ...]:
    named: dict[int, list[Tag]] = defaultdict(list)
    for number, tag in await tx.execute(
        sa.select(tags.c.manifest_id, tags.c.name).where(tags.c.repository_id == repository).order_by(tags.c.name)
    ):
        named[number].append(Tag(tag))
    children: dict[int, list[Digest]] = defaultdict(list)
    parts: dict[int, list[Digest]] = defaultdict(list)
    references = (sa.select(manifest_references.c.manifest_id, manifest_references.c.digest,
                            manifest_references.c.is_manifest)
                  .join(manifests, manifests.c.id == manifest_references.c.manifest_id)
                  .where(manifests.c.repository_id == repository))
    for number, digest, is_manifest in await tx.execute(references):
        (children if is_manifest else parts)[number].append(digest)
    query = sa.select(manifests.c.id, manifests.c.digest, manifests.c.size, manifests.c.touched, manifests.c.pinned,
                      manifests.c.subject).where(manifests.c.repository_id == repository)
    return tuple(
        HeldManifest(digest, size, touched, pinned, tuple(named[number]), subject, tuple(children[number]),
                     tuple(parts[number]))
        for number, digest, size, touched, pinned, subject in await tx.execute(query))


async def delete_manifests(tx: Transaction, repository: int, digests: Collection[Digest]) -> None:
    for some in batches(digests):
        await tx.execute(sa.delete(manifests).where(manifests.c.repository_id == repository,
                                                    manifests.c.digest.in_(some)))
    await repository_rows.maybe_emptied(tx, repository)


async def unlink(tx: Transaction, repository: int, digests: Collection[Digest]) -> None:
    for some in batches(digests):
        wanted = sa.select(blobs.c.id).where(blobs.c.digest.in_(some))
        await tx.execute(sa.delete(repository_blobs).where(repository_blobs.c.repository_id == repository,
                                                           repository_blobs.c.blob_id.in_(wanted)))


async def unlinked(tx: Transaction, cutoff: datetime, now: datetime, limit: int | None) -> Sequence[BlobInfo]:
    """Blobs that are part of no repository, not leased, and not touched since `cutoff`."""
    held = sa.exists().where(repository_blobs.c.blob_id == blobs.c.id)
    query = _unwanted(cutoff, now).where(~held).limit(limit)
    return [BlobInfo(*row) for row in await tx.execute(query)]


async def linked_only_by(tx: Transaction, links: dict[Digest, int], cutoff: datetime,
                         now: datetime) -> Sequence[BlobInfo]:
    """Blobs that `unlinked` would give if so many links of each were gone."""
    count = (sa.select(sa.func.count()).where(repository_blobs.c.blob_id == blobs.c.id).scalar_subquery())
    found = []
    for some in batches(links):
        query = _unwanted(cutoff, now).add_columns(count).where(blobs.c.digest.in_(some))
        found += [BlobInfo(*row[:3]) for row in await tx.execute(query) if row[3] == links[row[0]]]
    return found


async def delete_blobs(tx: Transaction, digests: Collection[Digest]) -> None:
    for some in batches(digests):
        await tx.execute(sa.delete(blobs).where(blobs.c.digest.in_(some)))


def _unwanted(cutoff: datetime, now: datetime) -> sa.Select[Any]:
    leased = (sa.select(lease_contents.c.digest).join(leases, leases.c.id == lease_contents.c.lease_id)
              .where(leases.c.expires > now))
    return sa.select(blobs.c.digest, blobs.c.size, blobs.c.key).where(
        blobs.c.touched < cutoff, blobs.c.digest.not_in(leased))
