"""A registry that somebody else runs, by the operations of the distribution spec."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self

import aiohttp
from yarl import URL

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, InvalidDigest
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from storage.errors import DigestMismatch
from storage.remote import errors
from storage.remote.auth import Credentials
from storage.remote.transport import Reach, RemoteSettings, Request, Transport, read_at_most, resolve, unreachable

ACCEPT = ", ".join(sorted(mediatype.MANIFESTS))
_SCHEMA1 = frozenset({mediatype.DOCKER_SCHEMA1, mediatype.DOCKER_SCHEMA1_SIGNED})
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)

PARSE_ON_LOOP = 32 * 1024
"""Bytes of a document."""

OpenBlob = Callable[[int], AsyncIterator[bytes]]
"""The bytes of a blob from an offset on: an upload that broke off goes on from where the registry says it is."""


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """`digest` names it under the algorithm that was asked for (sha256 for a tag)."""

    manifest: Manifest
    digest: Digest


class RemoteRegistry:
    """An async context manager. `host` is what a reference calls the registry; `docker.io` is Docker Hub.

    Every method raises the errors of storage.remote.errors.
    """

    def __init__(self, host: str, *, insecure: bool = False, credentials: Credentials | None = None,
                 settings: RemoteSettings | None = None, reach: Reach | None = None) -> None:
        self.host = host
        self._settings = settings or RemoteSettings()
        self._http = Transport(host, insecure=insecure, credentials=credentials, settings=self._settings, reach=reach)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.__aexit__(*exc_info)

    async def ping(self) -> None:
        """Whether the registry is there and takes our credentials (`docker login`)."""
        async with self._http.open(Request("GET", await self._http.url("v2/"))):
            pass

    # -- pull

    async def manifest(self, path: RepositoryName, reference: Tag | Digest) -> RemoteManifest:
        """Raises also InvalidManifest, and DigestMismatch when the bytes are not those of the digest asked for, or of
        the one that the registry itself claims."""
        url = await self._http.url(f"v2/{path}/manifests/{reference}")
        request = Request("GET", url, pull_scope(path), {"Accept": ACCEPT})
        try:
            async with self._http.open(request) as response:
                raw = await read_at_most(response, manifests.MAX_BYTES)
                content_type = mediatype.strip_parameters(response.headers.get("Content-Type", ""))
                claimed = response.headers.get("Docker-Content-Digest", "")
        except BROKEN as error:
            raise unreachable(request, error) from error
        if content_type in _SCHEMA1:
            raise errors.RemoteOldManifest(f"{self.host}/{path}:{reference} is a manifest of schema 1")
        digest = _verified(raw, reference, claimed)
        # A registry that serves files says text/plain or the like: then the document's own mediaType counts.
        known = content_type in mediatype.MANIFESTS
        return RemoteManifest(await parsed(raw, content_type if known else ""), digest)

    async def small_blob(self, path: RepositoryName, descriptor: Descriptor, limit: int) -> bytes:
        """A config: read into memory and verified. Raises RemoteInvalid beyond `limit` bytes, DigestMismatch."""
        if descriptor.size > limit:
            raise errors.RemoteInvalid(f"blob {descriptor.digest} of {descriptor.size} bytes is too large")
        raw = b"".join([chunk async for chunk in self.blob(path, descriptor)])
        actual = Digest.of(raw, descriptor.digest.algorithm)
        if actual != descriptor.digest:
            raise DigestMismatch(descriptor.digest, actual)
        return raw

    async def blob(self, path: RepositoryName, descriptor: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` to the descriptor's size: exactly as many, or an error. Who stores them verifies the
        digest (they may be the second half of an earlier try).

        A connection that breaks or stalls is taken up again where it broke, as often as each try brings something and
        `attempts` times when it does not.
        """
        offset, barren = start, 0
        while offset < descriptor.size:
            before = offset
            try:
                async for chunk in self._blob_once(path, descriptor, offset):
                    offset += len(chunk)
                    yield chunk
                if offset == descriptor.size:
                    return
                broken: Exception = aiohttp.ClientPayloadError("the answer ended early")
            except BROKEN as error:
                broken = error
            barren = 0 if offset > before else barren + 1
            if barren >= self._settings.attempts:
                raise unreachable(Request("GET", await self._blob_url(path, descriptor.digest)), broken) from broken
            await self._http.pause(barren + 1)

    async def _blob_once(self, path: RepositoryName, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = Request("GET", await self._blob_url(path, descriptor.digest), pull_scope(path), headers,
                          frozenset({200, 206}))
        left = descriptor.size - offset
        async with self._http.open(request) as response:
            skip = bytes_before(response, offset)
            async for chunk in response.content.iter_any():
                if skip:
                    skip, chunk = skip - min(skip, len(chunk)), chunk[skip:]
                left -= len(chunk)
                if left < 0:
                    raise errors.RemoteInvalid(f"blob {descriptor.digest} is longer than the {descriptor.size} bytes "
                                               "that the manifest says")
                if chunk:
                    yield chunk

    async def has_blob(self, path: RepositoryName, digest: Digest, *, push: bool = False) -> bool:
        scope = _push(path) if push else pull_scope(path)
        request = Request("HEAD", await self._blob_url(path, digest), scope, ok=frozenset({200, 404}))
        async with self._http.open(request) as response:
            return response.status == 200

    async def _blob_url(self, path: RepositoryName, digest: Digest) -> URL:
        return await self._http.url(f"v2/{path}/blobs/{digest}")

    # -- push

    async def mount(self, path: RepositoryName, digest: Digest, source: RepositoryName) -> bool:
        """Cross-repository mount. When the registry opens an upload instead, that is cancelled and False given."""
        url = await self._http.url(f"v2/{path}/blobs/uploads/", {"mount": str(digest), "from": str(source)})
        scope = f"{_push(path)} {pull_scope(source)}"
        async with self._http.open(Request("POST", url, scope, ok=frozenset({201, 202})), b"") as response:
            if response.status == 201:
                return True
            location = resolve(response.url, response.headers.get("Location", ""))
        try:
            async with self._http.open(Request("DELETE", location, _push(path), ok=frozenset(range(200, 600)))):
                return False
        except errors.RemoteUnavailable:
            return False

    async def upload(self, path: RepositoryName, descriptor: Descriptor, source: OpenBlob) -> None:
        """Stream a blob: POST, one PATCH, PUT. A PATCH that breaks goes on from the offset that the registry tells."""
        location = await self._start_upload(path)
        offset = 0
        for attempt in range(1, self._settings.attempts + 1):
            try:
                location = await self._patch(path, location, descriptor, offset, source)
                break
            except (errors.RemoteUnavailable, errors.RemoteUnauthorized):
                if attempt == self._settings.attempts:
                    raise
                await self._http.pause(attempt)
                location, offset = await self._upload_status(path, location)
        url = location.update_query({"digest": str(descriptor.digest)})
        request = Request("PUT", url, _push(path), {"Content-Length": "0"}, frozenset({201, 204}))
        async with self._http.open(request, b""):
            pass

    async def _start_upload(self, path: RepositoryName) -> URL:
        url = await self._http.url(f"v2/{path}/blobs/uploads/")
        async with self._http.open(Request("POST", url, _push(path), ok=frozenset({202})), b"", retry=True) as response:
            return resolve(response.url, response.headers.get("Location", ""))

    async def _patch(self, path: RepositoryName, location: URL, descriptor: Descriptor, offset: int,
                     source: OpenBlob) -> URL:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size - offset)}
        if offset:
            headers["Content-Range"] = f"{offset}-{descriptor.size - 1}"
        if offset == descriptor.size:
            return location
        request = Request("PATCH", location, _push(path), headers, frozenset({202}))
        async with self._http.open(request, source(offset)) as response:
            return resolve(response.url, response.headers.get("Location", str(location)))

    async def _upload_status(self, path: RepositoryName, location: URL) -> tuple[URL, int]:
        request = Request("GET", location, _push(path), ok=frozenset({200, 202, 204}))
        async with self._http.open(request) as response:
            held = response.headers.get("Range", "").removeprefix("bytes=").partition("-")[2]
            offset = int(held) + 1 if held.isdigit() and held != "0" else 0
            return resolve(response.url, response.headers.get("Location", str(location))), offset

    async def put_manifest(self, path: RepositoryName, reference: Tag | Digest, manifest: Manifest) -> None:
        url = await self._http.url(f"v2/{path}/manifests/{reference}")
        request = Request("PUT", url, _push(path), {"Content-Type": manifest.media_type}, frozenset({200, 201, 202}))
        async with self._http.open(request, manifest.raw, retry=True):
            pass


async def parsed(raw: bytes, content_type: str) -> Manifest:
    """In a thread when it is long: a hostile index of 4 MiB keeps a core busy for a while. Raises InvalidManifest."""
    if len(raw) <= PARSE_ON_LOOP:
        return manifests.parse(raw, content_type)
    return await asyncio.to_thread(manifests.parse, raw, content_type)


def pull_scope(path: RepositoryName) -> str:
    return f"repository:{path}:pull"


def _push(path: RepositoryName) -> str:
    return f"repository:{path}:pull,push"


def _verified(raw: bytes, reference: Tag | Digest, claimed: str) -> Digest:
    if isinstance(reference, Digest):
        actual = Digest.of(raw, reference.algorithm)
        if actual != reference:
            raise DigestMismatch(reference, actual)
        return reference
    if claimed:
        try:
            expected = Digest.parse(claimed)
        except InvalidDigest as error:
            raise errors.RemoteInvalid(f"broken Docker-Content-Digest: {claimed[:100]!r}") from error
        actual = Digest.of(raw, expected.algorithm)
        if actual != expected:
            raise DigestMismatch(expected, actual)
        return expected
    return Digest.of(raw)


def bytes_before(response: aiohttp.ClientResponse, offset: int) -> int:
    """How many bytes of this answer lie before `offset`: none in the partial content asked for, all of them when the
    registry ignores ranges."""
    if response.status == 200:
        return offset
    content_range = response.headers.get("Content-Range", "")
    unit, _, span = content_range.partition(" ")
    first = span.partition("-")[0]
    if unit.lower() != "bytes" or first != str(offset):
        raise errors.RemoteInvalid(f"asked for bytes from {offset}, got Content-Range {content_range[:100]!r}")
    return 0
