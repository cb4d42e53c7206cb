"""`/v2/<name>/blobs/uploads/`: begin, add to, finish, ask about and cancel an upload; mount a blob.

Locations are paths without a host: whatever name and scheme a proxy answers to stays right.
"""

from collections.abc import AsyncIterator, Mapping
from itertools import chain

from aiohttp import web

from ocispec.digest import Digest
from ocispec.errors import SeawallError
from ocispec.reference import RepositoryName
from registry.api import blobs, ranges
from registry.api.answers import empty, failure
from registry.api.bodies import Bodies
from registry.api.call import Call
from registry.api.ranges import ByteRange
from registry.auth.policy import Action
from registry.errors import BodyTooLarge, LengthMismatch
from registry.settings import UploadSettings
from storage.metadata.blobs import BlobInfo
from storage.repository.blobs import RepositoryBlobs
from storage.uploads.errors import OffsetMismatch
from storage.uploads.session import Upload, Uploads

HOLDERS = 1000
"""Repositories that are asked about, at most, to find one the caller may mount a blob from. They cost a look into the
policy's memory each; a blob that more hold is most likely in one of the first that everybody may pull."""


class UploadEndpoints:
    """`largest`: bytes a blob may have, 0 for no limit of ours."""

    def __init__(self, uploads: Uploads, held: RepositoryBlobs, bodies: Bodies, settings: UploadSettings,
                 largest: int) -> None:
        self._uploads = uploads
        self._settings = settings
        self._blobs = held
        self._bodies = bodies
        self._largest = largest

    async def post(self, call: Call) -> web.StreamResponse:
        repo = call.repository(Action.PUSH)
        mount, digest = call.query("mount"), call.query("digest")
        if mount is not None:
            return await self._mount(call, repo, Digest.parse(mount))
        if digest is not None:
            return await self._whole(call, repo, Digest.parse(digest))
        return self._begun(await self._start(call, repo, call.query("digest-algorithm") or "sha256"))

    async def patch(self, call: Call) -> web.StreamResponse:
        upload = await self._find(call)
        try:
            await self._append(call, upload)
        except OffsetMismatch as error:
            return _misplaced(upload, error)
        return _accepted(upload)

    async def put(self, call: Call) -> web.StreamResponse:
        """Finish, perhaps with a last chunk. A wrong digest leaves the session: the client may add what it forgot."""
        digest = Digest.parse(call.query("digest") or "")
        upload = await self._find(call)
        if not call.request.body_exists or call.request.content_length == 0:
            return _created(upload.repo, await upload.commit(digest, origin=call.origin))
        try:
            return _created(upload.repo, await self._finish(call, upload, digest))
        except OffsetMismatch as error:
            return _misplaced(upload, error)

    async def get(self, call: Call) -> web.StreamResponse:
        return empty(204, _where(await self._find(call)))

    async def delete(self, call: Call) -> web.StreamResponse:
        await (await self._find(call)).abort()
        return empty(204)

    async def _find(self, call: Call) -> Upload:
        return await self._uploads.get(call.repository(Action.PUSH), call.target.value, owner=call.principal.subject)

    async def _start(self, call: Call, repo: RepositoryName, algorithm: str) -> Upload:
        return await self._uploads.start(repo, algorithm, owner=call.principal.subject)

    async def _mount(self, call: Call, repo: RepositoryName, digest: Digest) -> web.StreamResponse:
        """What the caller may not pull is as good as absent: the answer tells nothing about it."""
        named = call.query("from")
        source = RepositoryName.parse(named) if named else None
        if source is None and self._settings.mount_from_any:
            source = await self._holder(call, digest)
        if source is not None and not call.access.mounts(call.principal, source, repo):
            source = None
        info = await self._blobs.mount(repo, digest, source, origin=call.origin) if source else None
        if info is not None:
            return _created(repo, info)
        return self._begun(await self._start(call, repo, digest.algorithm))

    async def _holder(self, call: Call, digest: Digest) -> RepositoryName | None:
        """Where the caller could pull the blob from (the spec's automatic content discovery). The content of a
        repository that may not be pulled does not become pullable by knowing its digest (zot's CVE-2024-39897)."""
        held = await self._blobs.holders(digest, HOLDERS)
        allowed = (name for name in held if call.access.allows(call.principal, Action.PULL, name))
        with_another_token = (name for name in held if call.access.sees(call.principal, name))
        return next(chain(allowed, with_another_token), None)

    def _begun(self, upload: Upload) -> web.Response:
        """The advice of the least chunk comes with the session. It is advice: which chunk is the last one, and may be
        short, is known only after it came, and bytes that can be stored are not refused."""
        answer = _accepted(upload)
        if self._settings.chunk_min_bytes:
            answer.headers["OCI-Chunk-Min-Length"] = str(self._settings.chunk_min_bytes)
        return answer

    async def _whole(self, call: Call, repo: RepositoryName, digest: Digest) -> web.StreamResponse:
        """One request that nobody can continue: it leaves nothing behind when it fails."""
        upload = await self._start(call, repo, digest.algorithm)
        try:
            return _created(repo, await self._finish(call, upload, digest))
        except (SeawallError, ConnectionError):
            await upload.abort()
            raise

    async def _append(self, call: Call, upload: Upload) -> None:
        """Stream the body into the session. Whatever ends it early, what arrived is kept."""
        chunks, at = self._body(call, upload)
        await upload.append(chunks, at=at)

    async def _finish(self, call: Call, upload: Upload, digest: Digest) -> BlobInfo:
        chunks, at = self._body(call, upload)
        return await upload.finish(chunks, digest, at=at, origin=call.origin)

    def _body(self, call: Call, upload: Upload) -> tuple[AsyncIterator[bytes], int | None]:
        """The bytes, and where they belong."""
        place = ranges.chunk(call.request.headers.get("Content-Range"))
        announced = call.request.content_length
        if place is not None and announced is not None and announced != place.length:
            raise LengthMismatch(place.length, announced)
        chunks = self._bodies.chunks(call.request, self._room(upload))
        return _exactly(chunks, place), place.start if place else None

    def _room(self, upload: Upload) -> int | None:
        if not self._largest:
            return None
        if upload.offset > self._largest:
            raise BodyTooLarge(self._largest)
        return self._largest - upload.offset


async def _exactly(chunks: AsyncIterator[bytes], place: ByteRange | None) -> AsyncIterator[bytes]:
    """Holds a body of unknown length to what its Content-Range says. Raises LengthMismatch."""
    arrived = 0
    async for chunk in chunks:
        arrived += len(chunk)
        if place is not None and arrived > place.length:
            raise LengthMismatch(place.length)
        yield chunk
    if place is not None and arrived != place.length:
        raise LengthMismatch(place.length, arrived)


def _accepted(upload: Upload) -> web.Response:
    return empty(202, _where(upload))


def _misplaced(upload: Upload, error: OffsetMismatch) -> web.Response:
    """Refused, with where to go on."""
    return failure(error, {**_where(upload), "Range": _range(error.offset)})


def _created(repo: RepositoryName, info: BlobInfo) -> web.Response:
    return empty(201, {"Location": blobs.location(repo, info.digest), "Docker-Content-Digest": str(info.digest)})


def _where(upload: Upload) -> Mapping[str, str]:
    return {
        "Location": f"/v2/{upload.repo}/blobs/uploads/{upload.id}",
        "Range": _range(upload.offset),
        "Docker-Upload-UUID": upload.id,
    }


def _range(offset: int) -> str:
    """What has arrived. The form cannot say "nothing": clients know `0-0` for it, from every registry."""
    return f"0-{max(offset - 1, 0)}"
