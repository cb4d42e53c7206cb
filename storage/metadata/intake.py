"""What taking over another store asks by the hundred."""

from collections.abc import Collection, Mapping
from datetime import datetime

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.store import StorageKey
from storage.metadata.blobs import BlobInfo, BlobRow, batches
from storage.metadata.engine import Transaction
from storage.metadata.tables import blobs, manifests, repositories, tags


async def stored(tx: Transaction, digests: Collection[Digest]) -> dict[Digest, BlobRow]:
    """Those that are held, in whatever repository, and not known to be damaged."""
    found = {}
    for some in batches(digests):
        query = sa.select(blobs.c.id, blobs.c.digest, blobs.c.size, blobs.c.key, blobs.c.touched).where(
            blobs.c.digest.in_(some), blobs.c.quarantined.is_(None))
        for number, digest, size, key, touched in await tx.execute(query):
            found[digest] = BlobRow(number, BlobInfo(digest, size, StorageKey(key)), touched)
    return found


async def tags_named(tx: Transaction, name: RepositoryName, names: Collection[Tag]) -> dict[Tag, Digest]:
    found = {}
    for some in batches(names):
        query = (sa.select(tags.c.name, manifests.c.digest)
                 .join(repositories, repositories.c.id == tags.c.repository_id)
                 .join(manifests, manifests.c.id == tags.c.manifest_id)
                 .where(repositories.c.name == name.value, tags.c.name.in_([tag.value for tag in some])))
        found.update({Tag(text): digest for text, digest in await tx.execute(query)})
    return found


async def backdate(tx: Transaction, name: RepositoryName, pushed: Mapping[Digest, datetime]) -> None:
    """Only ever to an earlier time: what was pushed here since is as old as that."""
    repository = sa.select(repositories.c.id).where(repositories.c.name == name.value).scalar_subquery()
    for digest, at in pushed.items():
        await tx.execute(sa.update(manifests).where(
            manifests.c.repository_id == repository, manifests.c.digest == digest, manifests.c.pushed > at)
            .values(pushed=at))
