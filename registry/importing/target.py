"""Where an import puts what it found: the store itself, or, for a dry run, nowhere."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, new_hasher
from ocispec.errors import FailedPrecondition
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from registry.importing.journal import Class, Damaged
from registry.importing.tree import OpenFile
from registry.importing.verdicts import refused
from storage.blobs.store import CannotShare
from storage.errors import DigestMismatch
from storage.gc.leases import Lease, Leases
from storage.metadata.blobs import BlobInfo
from storage.repository.intake import Intake, Tagged, Tagging
from storage.repository.manifests import Manifests

LEASE = timedelta(minutes=10)


class Mode(Enum):
    """How bytes become ours. A link is another name of the same file, a clone shares its blocks until it changes."""

    COPY = "copy"
    LINK = "link"
    CLONE = "clone"


@dataclass(frozen=True, slots=True)
class Bytes:
    """How blobs are taken. `or_copy`: what cannot be shared is copied. `verify` off: digests are believed, sizes
    never."""

    mode: Mode = Mode.COPY
    or_copy: bool = False
    verify: bool = True


class Held(Protocol):
    """What keeps content from the collector while it is taken over."""

    async def add(self, *digests: Digest) -> None: ...


class Target(Protocol):
    """The rooms of an import see no more of the store than this."""

    def working_on(self, repo: RepositoryName) -> AbstractAsyncContextManager[Held]:
        """What is added to the lease stays, from then on until the block ends."""
        ...

    async def take(self, repo: RepositoryName, digest: Digest, file: OpenFile, path: str) -> int:
        """Make a file's bytes a blob of the repository; gives its size. Raises Damaged when they are not those."""
        ...

    async def put(self, repo: RepositoryName, manifest: Manifest, digest: Digest, there: Collection[Digest]) -> None:
        """Store a manifest of whose layers and children only `there` exist."""
        ...

    async def put_tags(self, repo: RepositoryName, tags: Mapping[Tag, Tagging], *, overwrite: bool) -> Tagged: ...

    async def backdate(self, repo: RepositoryName, pushed: Mapping[Digest, datetime]) -> None: ...

    async def held(self, repo: RepositoryName, digests: Collection[Digest]) -> dict[Digest, int]: ...


class Store:
    """Target."""

    def __init__(self, intake: Intake, manifests: Manifests, leases: Leases, how: Bytes) -> None:
        self._intake = intake
        self._manifests = manifests
        self._leases = leases
        self._how = how

    def working_on(self, repo: RepositoryName) -> AbstractAsyncContextManager[Lease]:
        return self._leases.hold(f"import of {repo}", ttl=LEASE)

    async def take(self, repo: RepositoryName, digest: Digest, file: OpenFile, path: str) -> int:
        how, shared = self._how, None
        if how.mode is not Mode.COPY and file.descriptor is not None:
            await _check(file, digest, path, verify=how.verify)
            shared = await self._share(file.descriptor, digest, file.size, path)
        if shared is None:
            try:
                shared = await self._intake.copy(chunks(file), digest, verify=how.verify)
            except DigestMismatch as error:
                raise Damaged(Class.WRONG_DIGEST, path, error.message) from None
            if shared.size != file.size:
                raise Damaged(Class.WRONG_DIGEST, path, f"{shared.size} of {file.size} bytes could be read")
        with refused(path):
            await self._intake.record(repo, shared)
        return shared.size

    async def _share(self, descriptor: int, digest: Digest, size: int, path: str) -> BlobInfo | None:
        try:
            return await self._intake.share(descriptor, digest, size, clone=self._how.mode is Mode.CLONE)
        except CannotShare as error:
            if self._how.or_copy:
                return None
            raise FailedPrecondition(f"{path}: {error.message}. Use --copy, or allow it for such files: --or-copy"
                                     ) from error

    async def put(self, repo: RepositoryName, manifest: Manifest, digest: Digest, there: Collection[Digest]) -> None:
        def required(part: Descriptor) -> bool:
            return part.digest in there

        await self._manifests.put(repo, manifest, digest=digest, required=required)

    async def put_tags(self, repo: RepositoryName, tags: Mapping[Tag, Tagging], *, overwrite: bool) -> Tagged:
        return await self._intake.put_tags(repo, tags, overwrite=overwrite)

    async def backdate(self, repo: RepositoryName, pushed: Mapping[Digest, datetime]) -> None:
        await self._intake.backdate(repo, pushed)

    async def held(self, repo: RepositoryName, digests: Collection[Digest]) -> dict[Digest, int]:
        return await self._intake.held(repo, digests)


class DryRun:
    """Target. Reads and checks everything that would be taken and changes nothing."""

    def __init__(self, intake: Intake, how: Bytes) -> None:
        self._intake = intake
        self._how = how
        self._read: dict[Digest, int] = {}

    def working_on(self, repo: RepositoryName) -> AbstractAsyncContextManager[Held]:  # noqa: ARG002
        return nullcontext(_Nothing())

    async def take(self, repo: RepositoryName, digest: Digest, file: OpenFile, path: str) -> int:  # noqa: ARG002
        await _check(file, digest, path, verify=self._how.verify)
        self._read[digest] = file.size
        return file.size

    async def put(self, repo: RepositoryName, manifest: Manifest, digest: Digest, there: Collection[Digest]) -> None:
        """It would have been put."""

    async def put_tags(self, repo: RepositoryName, tags: Mapping[Tag, Tagging], *, overwrite: bool) -> Tagged:
        present = await self._intake.tags(repo, tags)
        other = {tag: digest for tag, digest in present.items() if digest != tags[tag].digest}
        return Tagged(len(tags) - len(present) + (len(other) if overwrite else 0), {} if overwrite else other)

    async def backdate(self, repo: RepositoryName, pushed: Mapping[Digest, datetime]) -> None:
        """Nothing was put."""

    async def held(self, repo: RepositoryName, digests: Collection[Digest]) -> dict[Digest, int]:  # noqa: ARG002
        read = {digest: self._read[digest] for digest in digests if digest in self._read}
        return await self._intake.stored(digests) | read


class _Nothing:
    async def add(self, *digests: Digest) -> None:
        """Nothing is taken, so nothing can be lost."""


async def chunks(file: OpenFile) -> AsyncIterator[bytes]:
    """Each in a thread."""
    pending = file.chunks()
    while (chunk := await asyncio.to_thread(next, pending, None)) is not None:
        yield chunk


async def _check(file: OpenFile, digest: Digest, path: str, *, verify: bool) -> None:
    if not verify:
        return
    actual = await asyncio.to_thread(_hash, file, digest.algorithm)
    if actual != digest:
        raise Damaged(Class.WRONG_DIGEST, path, f"content has digest {actual}, not {digest}")


def _hash(file: OpenFile, algorithm: str) -> Digest:
    hasher = new_hasher(algorithm)
    for chunk in file.chunks():
        hasher.update(chunk)
    return Digest(algorithm, hasher.hexdigest())
