"""What the scrub asks: blobs and manifests in order of their rows, passes, and who is hit by damage."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.store import StorageKey
from storage.metadata.blobs import BlobInfo, batches, outdate_holders
from storage.metadata.engine import Transaction
from storage.metadata.manifests import StoredManifest
from storage.metadata.tables import (
    blobs,
    manifest_references,
    manifests,
    repositories,
    scrub_passes,
    tags,
)


@dataclass(frozen=True, slots=True)
class Pass:
    id: int
    started: datetime


@dataclass(frozen=True, slots=True)
class BlobToRead:
    id: int
    info: BlobInfo
    quarantined: bool


@dataclass(frozen=True, slots=True)
class ManifestToRead:
    id: int
    repository: RepositoryName
    stored: StoredManifest
    size: int


@dataclass(frozen=True, slots=True)
class Affected:
    """A manifest that cannot be pulled whole, with the tags that name it or an index above it."""

    repository: RepositoryName
    manifest: Digest
    tags: tuple[Tag, ...]


async def unfinished(tx: Transaction) -> Pass | None:
    row = (await tx.execute(sa.select(scrub_passes.c.id, scrub_passes.c.started)
                            .where(scrub_passes.c.finished.is_(None))
                            .order_by(scrub_passes.c.id.desc()).limit(1))).first()
    return None if row is None else Pass(row[0], row[1])


async def begin(tx: Transaction, now: datetime) -> Pass:
    """A new pass; one that was interrupted is given up."""
    await tx.execute(sa.delete(scrub_passes).where(scrub_passes.c.finished.is_(None)))
    made = await tx.execute(sa.insert(scrub_passes).values(started=now, finished=None))
    assert made.inserted_primary_key is not None
    return Pass(made.inserted_primary_key[0], now)


async def finish(tx: Transaction, number: int, now: datetime) -> None:
    """The last finished pass is enough to know."""
    await tx.execute(sa.delete(scrub_passes).where(scrub_passes.c.id < number))
    await tx.execute(sa.update(scrub_passes).where(scrub_passes.c.id == number).values(finished=now))


async def to_read(tx: Transaction, after: int, verified_before: datetime, limit: int) -> Sequence[BlobToRead]:
    """Blobs that were not found whole since then, behind row `after`."""
    query = (sa.select(blobs.c.id, blobs.c.digest, blobs.c.size, blobs.c.key, blobs.c.quarantined)
             .where(blobs.c.id > after, sa.or_(blobs.c.verified.is_(None), blobs.c.verified < verified_before))
             .order_by(blobs.c.id).limit(limit))
    return [BlobToRead(row[0], BlobInfo(row[1], row[2], StorageKey(row[3])), row[4] is not None)
            for row in await tx.execute(query)]


async def amount(tx: Transaction, verified_before: datetime) -> tuple[int, int]:
    """How many blobs and bytes `to_read` would give in all."""
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(blobs.c.size), 0)).where(
        sa.or_(blobs.c.verified.is_(None), blobs.c.verified < verified_before))
    row = (await tx.execute(query)).one()
    return int(row[0]), int(row[1])


async def holds(tx: Transaction, info: BlobInfo) -> bool:
    """Whether the row still says what it said."""
    found = await tx.scalar(sa.select(blobs.c.id).where(blobs.c.digest == info.digest, blobs.c.key == info.key))
    return found is not None


async def verified(tx: Transaction, found: Collection[BlobToRead], now: datetime) -> None:
    """Their bytes are whole: what a mistake or a repaired disk put into quarantine is served again."""
    for some in batches(found):
        await tx.execute(sa.update(blobs).where(blobs.c.id.in_([blob.id for blob in some]),
                                                blobs.c.key.in_([blob.info.key for blob in some]))
                         .values(verified=now, quarantined=None))


async def quarantine(tx: Transaction, blob: BlobToRead, now: datetime) -> bool:
    """Whether the row was still the one that was read."""
    done = await tx.execute(sa.update(blobs).where(blobs.c.id == blob.id, blobs.c.key == blob.info.key)
                            .values(quarantined=now))
    if done.rowcount:
        await outdate_holders(tx, blob.id)
    return done.rowcount > 0


async def manifests_to_read(tx: Transaction, after: int, limit: int) -> Sequence[ManifestToRead]:
    query = (sa.select(manifests.c.id, repositories.c.name, manifests.c.digest, manifests.c.media_type,
                       manifests.c.size, manifests.c.raw)
             .join(repositories, repositories.c.id == manifests.c.repository_id)
             .where(manifests.c.id > after).order_by(manifests.c.id).limit(limit))
    return [ManifestToRead(row[0], RepositoryName(row[1]), StoredManifest(row[2], row[3], row[5]), row[4])
            for row in await tx.execute(query)]


async def affected(tx: Transaction, digest: Digest) -> Sequence[Affected]:
    """The manifests that name the blob or manifest, or name one that does, and their tags. Without an index on what
    manifests refer to: this is asked for what is damaged, and then may read them all."""
    found: dict[int, tuple[RepositoryName, Digest]] = {}
    wanted: set[Digest] = {digest}
    while wanted:
        above: set[Digest] = set()
        for some in batches(wanted):
            query = (sa.select(manifests.c.id, repositories.c.name, manifests.c.digest)
                     .join(manifest_references, manifest_references.c.manifest_id == manifests.c.id)
                     .join(repositories, repositories.c.id == manifests.c.repository_id)
                     .where(manifest_references.c.digest.in_(some)))
            for number, name, parent in await tx.execute(query):
                if number not in found:
                    found[number] = (RepositoryName(name), parent)
                    above.add(parent)
        wanted = above
    named = await _tags(tx, found)
    return sorted((Affected(name, manifest, named.get(number, ())) for number, (name, manifest) in found.items()),
                  key=lambda item: (item.repository, item.manifest))


async def tags_of(tx: Transaction, number: int) -> tuple[Tag, ...]:
    return (await _tags(tx, [number])).get(number, ())


async def _tags(tx: Transaction, numbers: Collection[int]) -> dict[int, tuple[Tag, ...]]:
    named: dict[int, tuple[Tag, ...]] = {}
    for some in batches(numbers):
        query = sa.select(tags.c.manifest_id, tags.c.name).where(tags.c.manifest_id.in_(some)).order_by(tags.c.name)
        for number, name in await tx.execute(query):
            named[number] = (*named.get(number, ()), Tag(name))
    return named
