"""`/v2/<name>/manifests/<reference>`: GET, HEAD, PUT, DELETE. The hot reads are in `lane`."""

import asyncio
from collections.abc import Sequence

from aiohttp import web

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, InvalidDigest
from ocispec.manifest import MAX_BYTES, Manifest
from ocispec.reference import InvalidTag, RepositoryName, Tag, parse_tag_or_digest
from registry.api import conditions, remarks
from registry.api.answers import COMMON, empty
from registry.api.blobs import is_among
from registry.api.bodies import Bodies
from registry.api.call import Call
from registry.auth.policy import Action
from registry.errors import TooManyTags
from registry.settings import ManifestSettings
from storage.metadata.manifests import StoredManifest
from storage.repository.manifests import Manifests, ManifestUnknown
from storage.repository.pulls import Pulls
from storage.repository.tags import Tags

PARSE_ON_LOOP = 32 * 1024
"""Bytes. A larger document is parsed in a thread, so that others do not wait for it, and one after the other: 4 MiB of
JSON may take twenty times as much while they are read."""


class ManifestEndpoints:
    def __init__(self, held: Manifests, tags: Tags, pulls: Pulls, bodies: Bodies, tags_per_push: int,
                 settings: ManifestSettings) -> None:
        self._pulls = pulls
        self._parsing = asyncio.Semaphore(1)
        self._layers = settings.require_layers
        self._platforms = settings.required()
        self._manifests = held
        self._tags = tags
        self._bodies = bodies
        self._most_tags = tags_per_push

    async def get(self, call: Call) -> web.StreamResponse:
        """The stored bytes with their own media type. `Accept` does not choose: every client of today takes all four
        types, and another answer than what was pushed would have another digest."""
        repo = call.repository(Action.PULL)
        reference = existing(repo, call.target.value)
        stored = await self._manifests.get(repo, reference)
        if is_pull(call.request.method, reference):
            self._pulls.note(repo, reference)
        headers = describe(stored)
        if is_among(headers["ETag"], call.request.headers.get("If-None-Match")):
            return empty(304, headers)
        return web.Response(body=stored.raw, headers={**COMMON, **headers, "Content-Type": stored.media_type})

    async def put(self, call: Call) -> web.StreamResponse:
        repo = call.repository(Action.PUSH)
        reference = parse_tag_or_digest(call.target.value)
        tags = self._wanted_tags(call, reference)
        raw = await self._bodies.whole(call.request, MAX_BYTES)
        manifest = await self._parse(raw, call.request.headers.get("Content-Type", ""))
        digest = reference if isinstance(reference, Digest) else None
        stored = await self._manifests.put(repo, manifest, digest=digest, tags=tags, required=self._needs,
                                           overwrite=call.access.allows(call.principal, Action.OVERWRITE, repo),
                                           condition=conditions.of(call.request),
                                           origin=call.origin)
        answer = empty(201, {"Location": f"/v2/{repo}/manifests/{stored.digest}",
                             "Docker-Content-Digest": str(stored.digest)})
        if manifest.subject:
            answer.headers["OCI-Subject"] = str(manifest.subject.digest)
        for tag in tags if digest else ():
            answer.headers.add("OCI-Tag", str(tag))
        absent = await self._manifests.absent(repo, manifest) if self._may_lack(manifest) else ()
        for remark in remarks.of_push(manifest, absent):
            answer.headers.add("Warning", remark)
        return answer

    async def delete(self, call: Call) -> web.StreamResponse:
        """By tag only the tag goes, by digest the manifest and its tags: so the spec."""
        repo = call.repository(Action.DELETE)
        reference = existing(repo, call.target.value)
        # Nobody in particular administers an open registry, so there immutable tags stay.
        force = not call.principal.is_anonymous and call.access.allows(call.principal, Action.ADMIN, repo)
        if isinstance(reference, Tag):
            await self._tags.delete(repo, reference, force=force, condition=conditions.of(call.request),
                                    origin=call.origin)
        else:
            await self._manifests.delete(repo, reference, force=force, origin=call.origin)
        return empty(202)

    async def _parse(self, raw: bytes, content_type: str) -> Manifest:
        if len(raw) <= PARSE_ON_LOOP:
            return manifests.parse(raw, content_type)
        async with self._parsing:
            return await asyncio.to_thread(manifests.parse, raw, content_type)

    def _may_lack(self, manifest: Manifest) -> bool:
        """Whether it can have been taken without all that it names."""
        return manifest.subject is not None or (
            self._platforms is not None if manifest.is_index else not self._layers)

    def _needs(self, part: Descriptor) -> bool:
        """Whether a layer, or a manifest of an index, must be there."""
        if part.media_type not in mediatype.MANIFESTS:
            return self._layers
        if self._platforms is None:
            return True
        return part.platform is not None and any(part.platform.satisfies(wanted) for wanted in self._platforms)

    def _wanted_tags(self, call: Call, reference: Tag | Digest) -> Sequence[Tag]:
        named = call.request.query.getall("tag", [])
        if len(named) > self._most_tags:
            raise TooManyTags(self._most_tags)
        first = [reference] if isinstance(reference, Tag) else []
        return list(dict.fromkeys([*first, *map(Tag.parse, named)]))


def is_pull(method: str, reference: Tag | Digest) -> bool:
    """Whether a read counts. A client resolves a tag with HEAD and then gets the manifest by digest: the tag was pulled
    by the first, the manifest by the second. HEAD by digest is what pushers ask with."""
    return method == "GET" or isinstance(reference, Tag)


def describe(stored: StoredManifest) -> dict[str, str]:
    return {"Docker-Content-Digest": str(stored.digest), "ETag": f'"{stored.digest}"'}


def existing(repo: RepositoryName, text: str) -> Tag | Digest:
    """A reference to look up. What can be no tag names nothing (404); what can be no digest is an error (400)."""
    try:
        return parse_tag_or_digest(text)
    except InvalidDigest:
        raise
    except InvalidTag:
        raise ManifestUnknown(repo, Tag(text[:128])) from None
