"""Lists of upstreams: passed on while they answer, ours while they do not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.manifest import MAX_BYTES
from registry.proxy.errors import UpstreamUnavailable
from registry.proxy.flights import Flights, Recent
from registry.proxy.origins import Origins
from registry.proxy.upstreams import Place
from storage.errors import RepositoryUnknown
from storage.metadata.referrers import Referrer, Wanted
from storage.remote.errors import RemoteNotFound
from storage.remote.origin import OriginRegistry, TagPage
from storage.repository.referrers import Referrers
from storage.repository.tags import Tags

REMEMBERED = 1000
SMALL = 50 * 1024
"""Bytes of one manifest's referrers that are remembered; with REMEMBERED it bounds the memory to some 50 MB at most.
Their number would not: one descriptor has annotations as long as whoever pushed it upstream likes."""


@dataclass(frozen=True, slots=True)
class ListedTags:
    names: Sequence[str]
    more: bool
    warning: str = ""


@dataclass(frozen=True, slots=True)
class ListedReferrers:
    descriptors: Sequence[Descriptor]
    warning: str = ""


class CachedListings:
    def __init__(self, origins: Origins, tags: Tags, referrers: Referrers) -> None:
        self._origins = origins
        self._tags = tags
        self._referrers = referrers
        self._pages: Flights[TagPage] = Flights()
        self._lists: Flights[list[Descriptor]] = Flights()
        self._recent: Recent[list[Descriptor]] = Recent(REMEMBERED)

    async def tags(self, place: Place, limit: int, last: str | None) -> ListedTags:
        """At most `limit` after `last`. Raises RepositoryUnknown and the errors of registry.proxy.errors."""
        if limit == 0:
            return ListedTags([], more=False)

        async def ask(registry: OriginRegistry) -> TagPage:
            return await registry.tags(place.path, limit, last)

        try:
            page = await self._pages.run((place.repo.value, limit, last), lambda: self._origins.at(place).ask(ask))
        except RemoteNotFound as error:
            raise RepositoryUnknown(place.repo) from error
        except UpstreamUnavailable as error:
            try:
                held = await self._tags.list(place.repo, limit=limit, last=last)
            except RepositoryUnknown:
                raise error from None
            return ListedTags(held.names, held.more, f"only the tags that were pulled through: {error.message}")
        return ListedTags(page.names, page.more)

    async def referrers(self, place: Place, subject: Digest, kind: str | None) -> ListedReferrers:
        """All of them, or those of the artifact type `kind`. Raises the errors of registry.proxy.errors."""
        key = (place.repo.value, str(subject))
        found = self._recent.get(key)
        if found is None:

            async def ask(registry: OriginRegistry) -> list[Descriptor]:
                return await registry.referrers(place.path, subject)

            try:
                found = await self._lists.run(key, lambda: self._origins.at(place).ask(ask))
            except RemoteNotFound:
                found = []
            except UpstreamUnavailable as error:
                held = await self._referrers.page(place.repo, Wanted(subject, kind), limit=REMEMBERED, room=MAX_BYTES)
                if not held.found:
                    raise
                descriptors = [_descriptor(item) for item in held.found]
                return ListedReferrers(descriptors, f"only what was pulled through: {error.message}")
            if _weight(found) <= SMALL:
                self._recent.put(key, found, place.upstream.tag_ttl)
        return ListedReferrers([item for item in found if kind is None or item.artifact_type == kind])

    async def close(self) -> None:
        await self._pages.close()
        await self._lists.close()


def _weight(found: Sequence[Descriptor]) -> int:
    """About the bytes that these take."""
    return sum(500 + sum(map(len, (item.media_type, item.artifact_type, str(item.platform or ""), *item.urls)))
               + sum(len(key) + len(value) + 100 for key, value in item.annotations.items()) for item in found)


def _descriptor(held: Referrer) -> Descriptor:
    annotations = json.loads(held.annotations) if held.annotations else {}
    return Descriptor(held.media_type, held.digest, held.size, annotations, held.artifact_type)
