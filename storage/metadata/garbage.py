"""What the collector asks: everything of one repository in pages, what is still dead, blobs without a repository.

Reading takes as long as it takes, in many short queries and outside of any lock; what deletes is asked again, for a
few rows at a time, whether they are still as the reading found them (`storage.gc.review`).
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.metadata import repositories as repository_rows
from storage.metadata.blobs import BlobInfo, batches
from storage.metadata.dialect import insert_or_ignore
from storage.metadata.engine import Transaction
from storage.metadata.tables import (
    EPOCH,
    blob_reviews,
    blobs,
    lease_contents,
    leases,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
)

PAGE = 500
"""Rows read at once: a few milliseconds of the event loop."""


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """A manifest as the collector sees it: `size` is of its own bytes; of its tags one is enough."""

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


class Row(NamedTuple):
    id: int
    size: int


async def name_of(tx: Transaction, repository: int) -> RepositoryName | None:
    name = await tx.scalar(sa.select(repositories.c.name).where(repositories.c.id == repository))
    return None if name is None else RepositoryName(name)


async def content(tx: Transaction, name: RepositoryName, repository: int) -> RepositoryContent:
    """Not of one moment: what changes meanwhile is seen or not. Each digest is one object, however often it is named:
    repositories of many thousand manifests share their layers."""
    same: dict[Digest, Digest] = {}
    named = await _tagged(tx, repository)
    held = [manifest async for page in _manifest_pages(tx, repository) for manifest in await _described(
        tx, page, named, same)]
    links = [HeldBlob(same.setdefault(row[1], row[1]), row[2], row[3])
             async for page in _blob_pages(tx, repository) for row in page]
    return RepositoryContent(name, tuple(held), tuple(links))


async def _tagged(tx: Transaction, repository: int) -> Mapping[int, Tag]:
    """A tag for each manifest that has any."""
    named: dict[int, Tag] = {}
    last = ""
    while True:
        rows = (await tx.execute(
            sa.select(tags.c.manifest_id, tags.c.name).where(tags.c.repository_id == repository, tags.c.name > last)
            .order_by(tags.c.name).limit(PAGE))).all()
        for number, name in rows:
            named.setdefault(number, Tag(name))
        if len(rows) < PAGE:
            return named
        last = rows[-1][1]


async def _manifest_pages(tx: Transaction, repository: int) -> AsyncIterator[Sequence[Any]]:
    query = (sa.select(manifests.c.id, manifests.c.digest, manifests.c.size, manifests.c.touched, manifests.c.pinned,
                       manifests.c.subject)
             .where(manifests.c.repository_id == repository).order_by(manifests.c.digest).limit(PAGE))
    page = (await tx.execute(query)).all()
    while page:
        yield page
        page = (await tx.execute(query.where(manifests.c.digest > page[-1][1]))).all()


async def _described(tx: Transaction, page: Sequence[Any], named: Mapping[int, Tag],
                     same: dict[Digest, Digest]) -> Sequence[HeldManifest]:
    children: dict[int, list[Digest]] = defaultdict(list)
    parts: dict[int, list[Digest]] = defaultdict(list)
    query = sa.select(manifest_references.c.manifest_id, manifest_references.c.digest,
                      manifest_references.c.is_manifest).where(
        manifest_references.c.manifest_id.in_([row[0] for row in page]))
    for number, digest, is_manifest in await tx.execute(query):
        (children if is_manifest else parts)[number].append(same.setdefault(digest, digest))
    return [
        HeldManifest(same.setdefault(digest, digest), size, touched, pinned,
                     (named[number],) if number in named else (), subject, tuple(children[number]),
                     tuple(parts[number]))
        for number, digest, size, touched, pinned, subject in page]


async def _blob_pages(tx: Transaction, repository: int) -> AsyncIterator[Sequence[Any]]:
    query = (sa.select(blobs.c.id, blobs.c.digest, blobs.c.size, blobs.c.touched)
             .join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
             .where(repository_blobs.c.repository_id == repository).order_by(repository_blobs.c.blob_id).limit(PAGE))
    page = (await tx.execute(query)).all()
    while page:
        yield page
        page = (await tx.execute(query.where(repository_blobs.c.blob_id > page[-1][0]))).all()


async def dead_manifests(tx: Transaction, repository: int, digests: Collection[Digest], cutoff: datetime,
                         now: datetime) -> Mapping[Digest, Row]:
    """Those that no tag names, that are not leased and were not touched since `cutoff`."""
    found: dict[Digest, Row] = {}
    for some in batches(digests):
        query = sa.select(manifests.c.digest, manifests.c.id, manifests.c.size).where(
            manifests.c.repository_id == repository, manifests.c.digest.in_(some), manifests.c.touched < cutoff,
            manifests.c.digest.not_in(_leased(now)), ~sa.exists().where(tags.c.manifest_id == manifests.c.id))
        found.update((row[0], Row(row[1], row[2])) for row in await tx.execute(query))
    return found


async def delete_manifests(tx: Transaction, repository: int, numbers: Collection[int]) -> None:
    for some in batches(numbers):
        await tx.execute(sa.delete(manifests).where(manifests.c.id.in_(some)))
    await repository_rows.maybe_emptied(tx, repository)


async def dead_links(tx: Transaction, repository: int, digests: Collection[Digest], cutoff: datetime,
                     now: datetime) -> Mapping[Digest, Row]:
    """Those blobs of the repository that are not leased and were not touched since `cutoff`."""
    found: dict[Digest, Row] = {}
    for some in batches(digests):
        query = (sa.select(blobs.c.digest, blobs.c.id, blobs.c.size)
                 .join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
                 .where(repository_blobs.c.repository_id == repository, blobs.c.digest.in_(some),
                        blobs.c.touched < cutoff, blobs.c.digest.not_in(_leased(now))))
        found.update((row[0], Row(row[1], row[2])) for row in await tx.execute(query))
    return found


class Candidate(NamedTuple):
    """A blob whose last place in a repository may be gone."""

    id: int
    info: BlobInfo
    touched: datetime
    held: bool
    leased: bool


async def candidates(tx: Transaction, cutoff: datetime, now: datetime, limit: int) -> Sequence[Candidate]:
    """Their rows are locked: a blob that goes can take no new place in between."""
    held = sa.exists().where(repository_blobs.c.blob_id == blobs.c.id)
    query = (sa.select(blobs.c.id, blobs.c.digest, blobs.c.size, blobs.c.key, blobs.c.touched, held,
                       blobs.c.digest.in_(_leased(now)))
             .join(blob_reviews, blob_reviews.c.blob_id == blobs.c.id).where(blob_reviews.c.since <= cutoff)
             .order_by(blob_reviews.c.since).limit(limit).with_for_update(of=blobs))
    return [Candidate(row[0], BlobInfo(row[1], row[2], row[3]), row[4], bool(row[5]), bool(row[6]))
            for row in await tx.execute(query)]


async def any_candidate(tx: Transaction, cutoff: datetime) -> bool:
    return await tx.scalar(sa.select(blob_reviews.c.blob_id).where(blob_reviews.c.since <= cutoff).limit(1)) is not None


async def settle(tx: Transaction, numbers: Collection[int]) -> None:
    """These blobs need no look any more."""
    for some in batches(numbers):
        await tx.execute(sa.delete(blob_reviews).where(blob_reviews.c.blob_id.in_(some)))


async def postpone(tx: Transaction, since: Mapping[int, datetime]) -> None:
    if since:
        await tx.execute(
            sa.update(blob_reviews).where(blob_reviews.c.blob_id == sa.bindparam("blob")).values(
                since=sa.bindparam("at", type_=blob_reviews.c.since.type)),
            [{"blob": number, "at": at} for number, at in since.items()])


async def delete_blobs(tx: Transaction, numbers: Collection[int]) -> None:
    for some in batches(numbers):
        await tx.execute(sa.delete(blobs).where(blobs.c.id.in_(some)))


async def unlinked(tx: Transaction, cutoff: datetime, now: datetime, after: int,
                   limit: int | None) -> Sequence[tuple[int, BlobInfo]]:
    """Blobs that are part of no repository, not leased and not touched since `cutoff`, by row, beyond `after`."""
    held = sa.exists().where(repository_blobs.c.blob_id == blobs.c.id)
    query = _unwanted(cutoff, now).where(~held, blobs.c.id > after).order_by(blobs.c.id).limit(limit)
    return [(row[3], BlobInfo(*row[:3])) for row in await tx.execute(query)]


async def review(tx: Transaction, numbers: Collection[int]) -> None:
    """Have these blobs looked at."""
    await tx.execute(insert_or_ignore(tx, blob_reviews, None), [
        {"blob_id": number, "since": EPOCH} for number in numbers])


async def linked_only_by(tx: Transaction, links: dict[Digest, int], cutoff: datetime,
                         now: datetime) -> Sequence[BlobInfo]:
    """Blobs that `unlinked` would give if so many links of each were gone."""
    count = (sa.select(sa.func.count()).where(repository_blobs.c.blob_id == blobs.c.id).scalar_subquery())
    found = []
    for some in batches(links):
        query = _unwanted(cutoff, now).add_columns(count).where(blobs.c.digest.in_(some))
        found += [BlobInfo(*row[:3]) for row in await tx.execute(query) if row[4] == links[row[0]]]
    return found


def _leased(now: datetime) -> sa.Select[Any]:
    return (sa.select(lease_contents.c.digest).join(leases, leases.c.id == lease_contents.c.lease_id)
            .where(leases.c.expires > now))


def _unwanted(cutoff: datetime, now: datetime) -> sa.Select[Any]:
    return sa.select(blobs.c.digest, blobs.c.size, blobs.c.key, blobs.c.id).where(
        blobs.c.touched < cutoff, blobs.c.digest.not_in(_leased(now)))
