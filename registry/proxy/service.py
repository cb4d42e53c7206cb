"""Pull-through as a whole, free of HTTP."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from registry.proxy.filling import Filling
from registry.proxy.fills import RENEW_EVERY, Fills, FillSettings
from registry.proxy.listings import CachedListings, ListedReferrers, ListedTags
from registry.proxy.manifests import CachedManifests, Served
from registry.proxy.origins import Origins, open_origins
from registry.proxy.upstreams import Place, Upstream, Upstreams
from storage.blobs.store import BlobReader
from storage.metadata.cached import CachedTag
from storage.metadata.engine import Database
from storage.repository.cached import CachedContent, FillClaims
from storage.repository.store import ContentStore

CLAIM_TTL = timedelta(seconds=3 * RENEW_EVERY)


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """`answers`: as far as is known. `paused_for`: seconds it is left alone. `fills`: blobs on their way from it."""

    upstream: Upstream
    answers: bool
    paused_for: float
    fills: int


class PullThrough:
    """Made by `open_pull_through`. Who may pull is decided by whoever calls: to fetch is part of a pull."""

    def __init__(self, upstreams: Upstreams, origins: Origins, manifests: CachedManifests, fills: Fills,
                 listings: CachedListings, cached: CachedContent) -> None:
        self.upstreams = upstreams
        self._origins = origins
        self._manifests = manifests
        self._fills = fills
        self._listings = listings
        self._cached = cached

    async def manifest(self, place: Place, reference: Tag | Digest) -> Served:
        """Raises ManifestUnknown and the errors of registry.proxy.errors."""
        return await self._manifests.get(place, reference)

    def blob(self, place: Place, digest: Digest) -> Filling:
        """For a blob that is not held: it is on its way from here on. Raises BlobUnknown."""
        return self._fills.open(place, digest)

    async def blob_size(self, place: Place, digest: Digest) -> int:
        """For a blob that is not held. Raises BlobUnknown and the errors of registry.proxy.errors."""
        return await self._fills.size(place, digest)

    async def tags(self, place: Place, limit: int, last: str | None) -> ListedTags:
        """Raises RepositoryUnknown and the errors of registry.proxy.errors."""
        return await self._listings.tags(place, limit, last)

    async def referrers(self, place: Place, subject: Digest, kind: str | None) -> ListedReferrers:
        return await self._listings.referrers(place, subject, kind)

    async def cached_tags(self, repo: RepositoryName, *, limit: int = 1000, after: str = "") -> Sequence[CachedTag]:
        """Which tags of a repository are copies, when they were checked and last used; by name, after `after`."""
        return await self._cached.tags(repo, limit=limit, after=after)

    async def check(self) -> Sequence[tuple[str, str, str]]:
        """Ask every address of every upstream now: name, address, and what is wrong (empty: nothing)."""
        return [(origin.upstream.name, address, wrong) for origin in self._origins.all
                for address, wrong in await origin.check()]

    def states(self) -> Sequence[UpstreamState]:
        """As this process sees them; every process finds out for itself."""
        return [UpstreamState(origin.upstream, not origin.doubtful, origin.paused_for,
                              self._fills.running(origin.upstream)) for origin in self._origins.all]

    async def expire(self, age: timedelta) -> int:
        """Drop cached tags that nobody pulled for so long; gives how many."""
        return await self._cached.drop_unused(age)

    async def close(self) -> None:
        await self._fills.close()
        await self._manifests.close()
        await self._listings.close()


@asynccontextmanager
async def open_pull_through(upstreams: Upstreams, database: Database, content: ContentStore, store: BlobReader,
                            settings: FillSettings) -> AsyncIterator[PullThrough]:
    """For one event loop, until the block ends."""
    cached = CachedContent(database, content.rules)
    async with open_origins(upstreams, database.observer) as origins:
        service = PullThrough(
            upstreams, origins, CachedManifests(origins, content.manifests, cached, database.observer),
            Fills(origins, content, store, FillClaims(database, CLAIM_TTL), settings),
            CachedListings(origins, content.tags, content.referrers), cached)
        try:
            yield service
        finally:
            await service.close()
