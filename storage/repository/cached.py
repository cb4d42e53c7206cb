"""What a repository keeps of another registry: manifests without their content, tags with the time they were last
checked, and who is fetching which blob.

Content that is merely kept asks for less than what was pushed: an index lists platforms that nobody asked for, and a
manifest comes before its blobs. It also lasts less long, see `drop_unused`.
"""

import asyncio
import uuid
from collections.abc import Sequence
from datetime import timedelta

from ocispec import manifest as manifests
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.store import StorageKey
from storage.metadata import blobs as blob_rows
from storage.metadata import cached as rows
from storage.metadata import manifests as manifest_rows
from storage.metadata import repositories
from storage.metadata import tags as tag_rows
from storage.metadata.cached import CachedTag, FillRow
from storage.metadata.engine import Database, Transaction
from storage.metadata.manifests import StoredManifest
from storage.rules.quotas import Quotas
from storage.rules.service import Rules

INDEXES_ASKED = 20


class CachedContent:
    """Quotas count copies like anything else; rules of immutability do not: the upstream decides what a tag names."""

    def __init__(self, database: Database, rules: Rules) -> None:
        self._database = database
        self._quotas = Quotas(rules)

    async def keep(self, repo: RepositoryName, manifest: Manifest, digest: Digest,
                   tag: Tag | None = None) -> StoredManifest:
        """Store a manifest whose bytes have this digest (the caller verified it), and point `tag` at it. Raises
        QuotaExceeded."""
        now = self._database.now()
        async with self._database.write() as tx:
            repository = await repositories.ensure(tx, repo, now)
            number, healed = await manifest_rows.find_id(tx, repository, digest), False
            if number is None:
                await self._quotas.manifest(tx, repo, len(manifest.raw))
                number = await manifest_rows.insert(tx, repository, manifest, digest, now, pinned=False)
            else:
                healed = await manifest_rows.pushed_again(tx, number, manifest, now, pinned=False)
            # As with a push: a collector that looked before this commit must notice what is named now.
            await blob_rows.touch(tx, {descriptor.digest for descriptor in manifest.blobs}, now)
            await manifest_rows.touch(tx, repository, {descriptor.digest for descriptor in manifest.children}, now)
            moved = tag is not None and await self._tag(tx, repository, tag, number)
            await repositories.pushed(tx, repository, now, dirty=tag is None)
            if moved or healed:
                await repositories.outdate(tx, repository, since=now)
        return StoredManifest(digest, manifest.media_type, manifest.raw)

    async def confirm(self, repo: RepositoryName, tag: Tag, digest: Digest) -> bool:
        """Its upstream says that the tag names `digest`. False when that manifest is not here."""
        async with self._database.write() as tx:
            repository = await repositories.find(tx, repo)
            number = None if repository is None else await manifest_rows.find_id(tx, repository, digest)
            if repository is None or number is None:
                return False
            if await self._tag(tx, repository, tag, number):
                now = self._database.now()
                await manifest_rows.touch(tx, repository, [digest], now)
                await repositories.outdate(tx, repository, since=now)
        return True

    async def _tag(self, tx: Transaction, repository: int, tag: Tag, number: int) -> bool:
        """Whether it named another manifest before."""
        now = self._database.now()
        moved = await tag_rows.put(tx, repository, tag, number, now)
        await rows.note_tag(tx, repository, tag, checked=now, used=now)
        return moved

    async def forget(self, repo: RepositoryName, tag: Tag) -> None:
        """The upstream has no such tag any more. No error when there is none here."""
        async with self._database.write() as tx:
            repository = await repositories.find(tx, repo)
            if repository is not None and await tag_rows.target(tx, repository, tag) is not None:
                await tag_rows.delete(tx, repository, tag)
                await repositories.outdate(tx, repository)

    async def find(self, repo: RepositoryName, tag: Tag) -> CachedTag | None:
        async with self._database.read() as tx:
            return await rows.find_tag(tx, repo, tag)

    async def tags(self, repo: RepositoryName, *, limit: int, after: str = "") -> Sequence[CachedTag]:
        """Which tags of the repository are copies, by name, after `after`."""
        async with self._database.read() as tx:
            return await rows.list_tags(tx, repo, limit, after)

    async def used(self, repo: RepositoryName, tag: Tag) -> None:
        async with self._database.write() as tx:
            repository = await repositories.find(tx, repo)
            if repository is not None:
                await rows.use_tag(tx, repository, tag, self._database.now())

    async def drop_unused(self, age: timedelta) -> int:
        """Delete the kept tags that nobody pulled for so long; gives how many. What they named goes with the next
        garbage collection, unless something else needs it."""
        async with self._database.write() as tx:
            gone = await rows.drop_unused(tx, self._database.now() - age)
            for repository in {number for number, _ in gone}:
                await repositories.outdate(tx, repository)
            await rows.drop_fills(tx, self._database.now() - age)
        return len(gone)

    async def platform(self, repo: RepositoryName, digest: Digest) -> Platform | None:
        """What an index of the repository says that this manifest runs on."""
        async with self._database.read() as tx:
            found = await rows.indexes_naming(tx, repo, digest, INDEXES_ASKED)
        return await asyncio.to_thread(_platform, found, digest) if found else None


def _platform(indexes: Sequence[StoredManifest], digest: Digest) -> Platform | None:
    for stored in indexes:
        for child in manifests.parse(stored.raw, stored.media_type).children:
            if child.digest == digest and child.platform is not None:
                return child.platform
    return None


class FillClaims:
    """Which process fetches which blob. A claim that is not renewed is anybody's after `ttl`."""

    def __init__(self, database: Database, ttl: timedelta) -> None:
        self._database = database
        self._ttl = ttl
        self.owner = str(uuid.uuid4())

    async def claim(self, repo: RepositoryName, digest: Digest) -> FillRow:
        """Ours, or another's that has not expired."""
        now = self._database.now()
        async with self._database.write() as tx:
            return await rows.claim_fill(tx, repo, digest, self.owner, now, now + self._ttl)

    async def find(self, repo: RepositoryName, digest: Digest) -> FillRow | None:
        """None also when it has expired."""
        async with self._database.read() as tx:
            found = await rows.find_fill(tx, repo, digest)
        return found if found is not None and found.expires > self._database.now() else None

    async def publish(self, repo: RepositoryName, digest: Digest, *, upload_id: str, key: StorageKey | None,
                      size: int | None) -> None:
        async with self._database.write() as tx:
            await rows.publish_fill(tx, repo, digest, self.owner, upload_id=upload_id, key=key, size=size)

    async def renew(self) -> None:
        """All of this process."""
        async with self._database.write() as tx:
            await rows.renew_fills(tx, self.owner, self._database.now() + self._ttl)

    async def release(self, repo: RepositoryName, digest: Digest, *, resumable: bool) -> None:
        """`resumable`: what has arrived is worth going on with."""
        now = self._database.now() if resumable else None
        async with self._database.write() as tx:
            await rows.release_fill(tx, repo, digest, self.owner, now)
