"""What a cache asks of the registry whose content it keeps: has it changed, give me these bytes from here on, who
refers to it, which tags are there. Nothing is repeated here after it broke: the cache knows better whether somebody
still waits, and what it has already.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, InvalidDigest
from ocispec.reference import InvalidTag, RepositoryName, Tag
from storage.remote import errors
from storage.remote.client import ACCEPT, BROKEN, PARSE_ON_LOOP, RemoteRegistry, bytes_before, parsed, pull_scope
from storage.remote.transport import Request, read_at_most, unreachable

_MAX_TAGS = 8 * 1024 * 1024
"""Bytes of one page of tags: some registries answer with all they have."""

_NEXT = re.compile(r';\s*rel="?next"?', re.IGNORECASE)

Begun = Callable[[int | None], None]
"""Called with the blob's whole size (None when the registry does not say) before its first byte is given out."""


@dataclass(frozen=True, slots=True)
class TagPage:
    """`more`: there are others after the last of `names`."""

    names: list[str]
    more: bool


class OriginRegistry(RemoteRegistry):
    """Every method raises the errors of storage.remote.errors."""

    @property
    def address(self) -> str:
        """The URL of an administrator, or the host."""
        return self._http.address

    async def head(self, path: RepositoryName, tag: Tag, known: Digest | None) -> Digest | None:
        """What the tag names, without transferring it (Docker Hub counts no HEAD); `known` when that is unchanged.
        None: it exists and the registry does not tell its digest."""
        headers = {"Accept": ACCEPT} | ({"If-None-Match": f'"{known}"'} if known else {})
        url = await self._http.url(f"v2/{path}/manifests/{tag}")
        request = Request("HEAD", url, pull_scope(path), headers, frozenset({200, 304}))
        async with self._http.open(request) as response:
            if response.status == 304 and known is not None:
                return known
            told = response.headers.get("Docker-Content-Digest", "")
        try:
            return Digest.parse(told) if told else None
        except InvalidDigest as error:
            raise errors.RemoteInvalid(f"broken Docker-Content-Digest: {told[:100]!r}") from error

    async def blob_size(self, path: RepositoryName, digest: Digest) -> int | None:
        """From a HEAD; None when the registry does not say."""
        async with self._http.open(Request("HEAD", await self._blob_url(path, digest), pull_scope(path))) as response:
            return response.content_length

    async def fetch(self, path: RepositoryName, digest: Digest, start: int,
                    begun: Begun) -> AsyncGenerator[bytes, None]:
        """The blob's bytes from `start` to its end as the connection brings them, unverified."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = Request("GET", await self._blob_url(path, digest), pull_scope(path), headers, frozenset({200, 206}))
        try:
            async with self._http.open(request) as response:
                skip = bytes_before(response, start)
                length = response.content_length
                size = None if length is None else length + (0 if response.status == 200 else start)
                coding = response.headers.get("Content-Encoding", "identity")
                if coding.lower() != "identity":
                    raise errors.RemoteInvalid(f"{self.host} answers in content coding {coding[:50]!r}, unasked")
                begun(size)
                async for chunk in response.content.iter_any():
                    if skip:
                        skip, chunk = skip - min(skip, len(chunk)), chunk[skip:]
                    if chunk:
                        yield chunk
        except BROKEN as error:
            raise unreachable(request, error) from error

    async def tags(self, path: RepositoryName, limit: int, last: str | None) -> TagPage:
        """At most `limit` tags after `last`, also of a registry that knows no pages."""
        query = {"n": str(limit)} | ({"last": last} if last else {})
        request = Request("GET", await self._http.url(f"v2/{path}/tags/list", query), pull_scope(path))
        try:
            async with self._http.open(request) as response:
                raw = await read_at_most(response, _MAX_TAGS)
                linked = response.headers.get("Link", "")
        except BROKEN as error:
            raise unreachable(request, error) from error
        short = len(raw) <= PARSE_ON_LOOP
        names = _names(raw, self.host) if short else await asyncio.to_thread(_names, raw, self.host)
        if len(names) > limit or (last in names):  # it ignores pages: then it is all of them, and ours to cut
            names = sorted(name for name in names if last is None or name > last)
            return TagPage(names[:limit], len(names) > limit)
        return TagPage(names, bool(names) and _leads_on(linked))

    async def referrers(self, path: RepositoryName, subject: Digest) -> list[Descriptor]:
        """Of every type; by the referrers tag where the registry has no such API (distribution-spec, "Unavailable
        Referrers API"). As much as the first page has."""
        request = Request("GET", await self._http.url(f"v2/{path}/referrers/{subject}"), pull_scope(path),
                          {"Accept": mediatype.OCI_INDEX}, frozenset({200, 404}))
        try:
            async with self._http.open(request) as response:
                status, raw = response.status, await read_at_most(response, manifests.MAX_BYTES)
        except BROKEN as error:
            raise unreachable(request, error) from error
        if status == 200:
            return [*(await parsed(raw, mediatype.OCI_INDEX)).children]
        try:
            found = await self.manifest(path, Tag.parse(f"{subject.algorithm}-{subject.encoded}"[:128]))
        except errors.RemoteNotFound:
            return []
        return [*found.manifest.children]


def _names(raw: bytes, host: str) -> list[str]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    names = document.get("tags") or [] if isinstance(document, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise errors.RemoteInvalid(f"{host} answers with something else than a list of tags")
    return _valid(names)


def _valid(names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        try:
            found.append(Tag.parse(name).value)
        except InvalidTag:
            continue  # what no client could ask for
    return found


def _leads_on(link: str) -> bool:
    return link.lstrip().startswith("<") and _NEXT.search(link) is not None
