"""Manifests of a repository and what they refer to."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from storage.metadata import repositories as repository_rows
from storage.metadata.blobs import batches, touch_where
from storage.metadata.engine import Transaction
from storage.metadata.tables import manifest_annotations, manifest_references, manifests, repositories, tags


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """Exactly the bytes that were pushed, with the media type that they were accepted as."""

    digest: Digest
    media_type: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class ManifestRow:
    id: int
    stored: StoredManifest
    touched: datetime


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """That a repository holds a manifest."""

    repo: RepositoryName
    digest: Digest


async def held(tx: Transaction) -> Sequence[HeldManifest]:
    """Every manifest of every repository."""
    query = (sa.select(repositories.c.name, manifests.c.digest)
             .join(repositories, repositories.c.id == manifests.c.repository_id).order_by(manifests.c.id))
    return [HeldManifest(RepositoryName(name), digest) for name, digest in await tx.execute(query)]


async def find(tx: Transaction, name: RepositoryName, digest: Digest) -> ManifestRow | None:
    query = (sa.select(*_COLUMNS).join(repositories, repositories.c.id == manifests.c.repository_id)
             .where(repositories.c.name == name.value, manifests.c.digest == digest))
    return await _first(tx, query)


async def find_tagged(tx: Transaction, name: RepositoryName, tag: Tag) -> ManifestRow | None:
    query = (sa.select(*_COLUMNS).join(tags, tags.c.manifest_id == manifests.c.id)
             .join(repositories, repositories.c.id == tags.c.repository_id)
             .where(repositories.c.name == name.value, tags.c.name == tag.value))
    return await _first(tx, query)


async def find_id(tx: Transaction, repository: int, digest: Digest) -> int | None:
    found: int | None = await tx.scalar(
        sa.select(manifests.c.id).where(manifests.c.repository_id == repository, manifests.c.digest == digest))
    return found


async def insert(tx: Transaction, repository: int, manifest: Manifest, digest: Digest, now: datetime, *,
                 pinned: bool) -> int:
    """The new row's id. The manifest must not be there yet (the caller's transaction has looked)."""
    inserted = await tx.execute(sa.insert(manifests).values(
        repository_id=repository, digest=digest, media_type=manifest.media_type,
        artifact_type=manifest.artifact_type, subject=manifest.subject.digest if manifest.subject else None,
        size=len(manifest.raw), raw=manifest.raw, pushed=now, touched=now, pinned=pinned))
    assert inserted.inserted_primary_key is not None
    number: int = inserted.inserted_primary_key[0]
    await repository_rows.filled(tx, repository)
    if manifest.annotations:
        said = json.dumps(dict(manifest.annotations), separators=(",", ":")).encode()
        await tx.execute(sa.insert(manifest_annotations).values(manifest_id=number, annotations=said))
    references = {descriptor.digest: False for descriptor in manifest.blobs}
    references |= {descriptor.digest: True for descriptor in manifest.children}
    if references:
        await tx.execute(sa.insert(manifest_references), [
            {"manifest_id": number, "digest": digest, "is_manifest": child} for digest, child in references.items()])
    return number


async def pushed_again(tx: Transaction, number: int, manifest: Manifest, now: datetime, *, pinned: bool) -> bool:
    """Whether the row's bytes were damaged, and are whole now."""
    damaged = sa.and_(manifests.c.id == number, manifests.c.raw != manifest.raw)
    healed = await tx.execute(sa.update(manifests).where(damaged).values(raw=manifest.raw, size=len(manifest.raw)))
    values: dict[str, Any] = {"touched": now, "pushed": now} | ({"pinned": True} if pinned else {})
    await tx.execute(sa.update(manifests).where(manifests.c.id == number).values(values))
    return healed.rowcount > 0


async def touch(tx: Transaction, repository: int, digests: Collection[Digest], now: datetime) -> None:
    for some in batches(sorted(digests, key=str)):
        await touch_where(tx, manifests, sa.and_(manifests.c.repository_id == repository,
                                                 manifests.c.digest.in_(some)), now)


async def touch_rows(tx: Transaction, numbers: Collection[int], now: datetime) -> None:
    for some in batches(sorted(numbers)):
        await touch_where(tx, manifests, manifests.c.id.in_(some), now)


async def sizes_in(tx: Transaction, repository: int, digests: Collection[Digest]) -> dict[Digest, int]:
    """Sizes of those `digests` that are manifests of the repository."""
    found: dict[Digest, int] = {}
    for some in batches(digests):
        query = sa.select(manifests.c.digest, manifests.c.size).where(
            manifests.c.repository_id == repository, manifests.c.digest.in_(some))
        found.update((row[0], row[1]) for row in await tx.execute(query))
    return found


async def delete(tx: Transaction, repository: int, digest: Digest) -> int | None:
    """With its tags and references. Its size in bytes; None: it was not there."""
    gone = await tx.execute(sa.delete(manifests).where(
        manifests.c.repository_id == repository, manifests.c.digest == digest).returning(manifests.c.size))
    size: int | None = gone.scalar()
    await repository_rows.maybe_emptied(tx, repository)
    return size


_COLUMNS: tuple[sa.Column[Any], ...] = (
    manifests.c.id, manifests.c.digest, manifests.c.media_type, manifests.c.touched, manifests.c.raw)


async def _first(tx: Transaction, query: sa.Select[Any]) -> ManifestRow | None:
    row = (await tx.execute(query)).first()
    return None if row is None else _row(row)


def _row(row: Any) -> ManifestRow:
    number, digest, media_type, touched, raw = row
    return ManifestRow(number, StoredManifest(digest, media_type, raw), touched)
