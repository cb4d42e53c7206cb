"""Manifests of upstreams. By digest they never change; a tag is believed for its upstream's `tag_ttl`, then asked
after with a HEAD, which transfers nothing and which Docker Hub does not count.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from ocispec.digest import Digest
from ocispec.errors import SeawallError, Unavailable
from ocispec.reference import RepositoryName, Tag
from registry.proxy.errors import UpstreamDenied, UpstreamUnavailable
from registry.proxy.flights import Flights, Recent
from registry.proxy.origins import Origins
from registry.proxy.upstreams import Place
from storage.errors import StoreFull
from storage.metadata.cached import CachedTag
from storage.metadata.manifests import StoredManifest
from storage.observation import Observer
from storage.remote.client import RemoteManifest
from storage.remote.errors import RemoteNotFound
from storage.remote.origin import OriginRegistry
from storage.repository.cached import CachedContent
from storage.repository.manifests import Manifests, ManifestUnknown
from storage.rules.refusals import QuotaExceeded

log = logging.getLogger(__name__)

USE_NOTED_EVERY = 3600.0
"""Seconds: how exact it is known when a cached tag was last pulled."""


CHECK_WITHIN = 15.0
"""Seconds for asking whether a tag moved: there is a copy to answer with."""


class Source(Enum):
    """Where an answer came from, in the words of the `Cache-Status` header (RFC 9211)."""

    HIT = "hit"
    REVALIDATED = "hit; detail=revalidated"
    MISS = "fwd=uri-miss; stored"
    MOVED = "fwd=stale; stored"
    STALE = "hit; detail=stale"


@dataclass(frozen=True, slots=True)
class Served:
    """`warning`: why this may be out of date; empty when it is not."""

    stored: StoredManifest
    source: Source
    warning: str = ""


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A tag that need not be asked after."""

    digest: Digest


class CachedManifests:
    def __init__(self, origins: Origins, manifests: Manifests, cached: CachedContent, observer: Observer) -> None:
        self._origins = origins
        self._manifests = manifests
        self._cached = cached
        self._flights: Flights[Served] = Flights()
        self._fresh: Recent[_Fresh] = Recent()
        self._missing: Recent[bool] = Recent()
        self._noted: Recent[bool] = Recent()
        self._hits = observer.tally("cache.upstream.hit")
        self._misses = observer.tally("cache.upstream.miss")
        self._stales = observer.tally("upstream.stale")

    async def get(self, place: Place, reference: Tag | Digest) -> Served:
        """Raises ManifestUnknown and the errors of registry.proxy.errors."""
        if isinstance(reference, Digest):
            served = await self._by_digest(place, reference)
        else:
            served = await self._by_tag(place, reference)
        (self._hits if served.source is Source.HIT else self._misses).add()
        if served.source is Source.STALE:
            self._stales.add()
        return served

    async def close(self) -> None:
        await self._flights.close()

    # -- by digest

    async def _by_digest(self, place: Place, digest: Digest) -> Served:
        try:
            return Served(await self._manifests.get(place.repo, digest), Source.HIT)
        except ManifestUnknown:
            key = (place.repo.value, str(digest))
            self._check_missing(place.repo, digest)
            return await self._flights.run(key, lambda: self._fetch(place, digest))

    async def _fetch(self, place: Place, digest: Digest) -> Served:
        if place.upstream.platforms:
            platform = await self._cached.platform(place.repo, digest)
            if not place.upstream.wants(platform):
                raise UpstreamDenied(f"images for {platform} are not pulled through from {place.upstream.name}")
        found = await self._ask(place, digest)
        return Served(await self._stored(place.repo, found), Source.MISS)

    # -- by tag

    async def _by_tag(self, place: Place, tag: Tag) -> Served:
        key = (place.repo.value, tag.value)
        if self._fresh.get(key) is not None:
            try:
                return await self._hit(place.repo, tag)
            except ManifestUnknown:
                self._fresh.drop(key)
        self._check_missing(place.repo, tag)
        if self._origins.at(place).doubtful and (known := await self._cached.find(place.repo, tag)) is not None:
            # Nobody should wait for a second time limit to hear the same: it is asked behind this answer.
            self._flights.begin(key, lambda: self._refresh(place, tag))
            return await self._stale(known, "it failed when it was last asked")
        return await self._flights.run(key, lambda: self._refresh(place, tag))

    async def _hit(self, repo: RepositoryName, tag: Tag) -> Served:
        stored = await self._manifests.get(repo, tag)
        await self._note_use(repo, tag)
        return Served(stored, Source.HIT)

    async def _refresh(self, place: Place, tag: Tag) -> Served:
        known = await self._cached.find(place.repo, tag)
        age = None if known is None else (datetime.now(UTC) - known.checked).total_seconds()
        if known is not None and age is not None and 0 <= age < place.upstream.tag_ttl:
            self._believe(place, tag, known.digest, place.upstream.tag_ttl - age)  # another process asked
            return await self._hit(place.repo, tag)
        if known is None:
            return await self._first(place, tag)
        try:
            return await self._revalidate(place, tag, known.digest)
        except UpstreamUnavailable as error:
            return await self._stale(known, error.message)

    async def _stale(self, known: CachedTag, reason: str) -> Served:
        served = await self._hit(known.repo, known.tag)
        checked = known.checked.astimezone(UTC)
        return Served(served.stored, Source.STALE, f"stale: last checked {checked:%Y-%m-%dT%H:%M:%SZ}: {reason}")

    async def _first(self, place: Place, tag: Tag) -> Served:
        found = await self._ask(place, tag)
        return await self._keep(place, tag, found, Source.MISS)

    async def _revalidate(self, place: Place, tag: Tag, known: Digest) -> Served:
        async def ask(registry: OriginRegistry) -> Digest | None:
            return await registry.head(place.path, tag, known)

        try:
            named = await self._origins.at(place).ask(ask, CHECK_WITHIN)
        except RemoteNotFound as error:
            raise await self._gone(place, tag) from error
        if named is not None and await self._cached.confirm(place.repo, tag, named):
            self._believe(place, tag, named, place.upstream.tag_ttl)
            source = Source.REVALIDATED if named == known else Source.MOVED
            return Served(await self._manifests.get(place.repo, tag), source)
        found = await self._ask(place, tag if named is None else named, tag)
        return await self._keep(place, tag, found, Source.MOVED)

    async def _keep(self, place: Place, tag: Tag, found: RemoteManifest, source: Source) -> Served:
        stored = await self._stored(place.repo, found, tag)
        self._believe(place, tag, found.digest, place.upstream.tag_ttl)
        return Served(stored, source)

    async def _stored(self, repo: RepositoryName, found: RemoteManifest, tag: Tag | None = None) -> StoredManifest:
        try:
            return await self._cached.keep(repo, found.manifest, found.digest, tag)
        except (StoreFull, QuotaExceeded, Unavailable) as error:
            log.warning("cannot keep a manifest of %s: %s", repo, error.message)  # to pass it on needs no room
            return StoredManifest(found.digest, found.manifest.media_type, found.manifest.raw)

    def _believe(self, place: Place, tag: Tag, digest: Digest, seconds: float) -> None:
        self._fresh.put((place.repo.value, tag.value), _Fresh(digest), seconds)

    # -- asking

    async def _ask(self, place: Place, reference: Tag | Digest, tag: Tag | None = None) -> RemoteManifest:
        """`tag`: what the client asked for, when that is another than what is asked of the upstream."""

        async def ask(registry: OriginRegistry) -> RemoteManifest:
            return await registry.manifest(place.path, reference)

        try:
            return await self._origins.at(place).ask(ask)
        except RemoteNotFound as error:
            if isinstance(reference, Tag) or tag is not None:
                raise await self._gone(place, tag or reference) from error  # type: ignore[arg-type]  # a tag: see above
            raise self._absent(place, reference) from error

    async def _gone(self, place: Place, tag: Tag) -> ManifestUnknown:
        """The upstream says that there is no such tag: then it is none here either. What it named stays until nobody
        uses it."""
        await self._cached.forget(place.repo, tag)
        self._fresh.drop((place.repo.value, tag.value))
        return self._absent(place, tag)

    def _absent(self, place: Place, reference: Tag | Digest) -> ManifestUnknown:
        self._missing.put((place.repo.value, str(reference)), True, place.upstream.missing_ttl)
        return ManifestUnknown(place.repo, reference)

    def _check_missing(self, repo: RepositoryName, reference: Tag | Digest) -> None:
        if self._missing.get((repo.value, str(reference))):
            raise ManifestUnknown(repo, reference)

    async def _note_use(self, repo: RepositoryName, tag: Tag) -> None:
        key = (repo.value, tag.value)
        if self._noted.get(key):
            return
        self._noted.put(key, True, USE_NOTED_EVERY)
        try:
            await self._cached.used(repo, tag)
        except SeawallError as error:  # a database that is full or locked must not stop reading
            log.warning("cannot note that %s:%s is used: %s", repo, tag, error.message)
