"""Manifests of a repository: read from memory, written in one transaction."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument, NotFound
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from storage.errors import DigestMismatch
from storage.events import Action, Event, Origin
from storage.metadata import blobs as blob_rows
from storage.metadata import events, repositories
from storage.metadata import manifests as rows
from storage.metadata import tags as tag_rows
from storage.metadata.engine import Database, Transaction, retried
from storage.metadata.manifests import ManifestRow, StoredManifest
from storage.repository.cache import Cache, Key
from storage.repository.pointing import Condition, always, point
from storage.repository.touches import Touches
from storage.rules.quotas import Quotas
from storage.rules.refusals import TagImmutable
from storage.rules.service import Rules
from storage.settings import ContentSettings

HASH_ON_LOOP = 256 * 1024  # bytes; above it a thread hop costs less than the hashing


class ManifestUnknown(NotFound):
    def __init__(self, repo: RepositoryName, reference: Tag | Digest) -> None:
        super().__init__(f"manifest {reference} is unknown to repository {repo}", detail={"reference": str(reference)})


class ManifestBlobUnknown(InvalidArgument):
    """The manifest names content that the repository lacks: `missing`, in the manifest's order."""

    def __init__(self, missing: Sequence[Digest]) -> None:
        super().__init__(f"manifest refers to unknown content: {', '.join(map(str, missing[:10]))}",
                         detail=[{"digest": str(digest)} for digest in missing[:100]])
        self.missing = list(missing)


class ManifestSizeMismatch(InvalidArgument):
    """A descriptor gives another size than the content has: every client would refuse to pull it."""

    def __init__(self, descriptor: Descriptor, size: int) -> None:
        super().__init__(f"{descriptor.digest} has {size} bytes, the manifest says {descriptor.size}",
                         detail={"digest": str(descriptor.digest), "size": size})


Required = Callable[[Descriptor], bool]
"""Whether an index may be stored only with this one of its manifests, an image only with this one of its layers."""


def every(_part: Descriptor) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Known:
    stored: StoredManifest
    touched: datetime | None  # None: found by a tag, which keeps it alive by itself


class Manifests:
    def __init__(self, database: Database, settings: ContentSettings, rules: Rules) -> None:
        self._database = database
        self._settings = settings
        self._rules = rules
        self._quotas = Quotas(rules)
        self._cache: Cache[_Known] = Cache(
            database.changes, settings.cache_bytes, database.observer.tally("cache.manifests.hit"),
            database.observer.tally("cache.manifests.miss"))
        self._touches = Touches(database, rows.touch_rows)

    def cached(self, repo: RepositoryName, reference: Tag | Digest, *, looked: bool = False) -> StoredManifest | None:
        """What `get` would give, from memory, when nothing changed since it was read; microseconds, never blocks.
        `looked`: the caller has just asked whether something changed (see `Cache.get`)."""
        known = self._cache.get(_key(repo, reference), looked=looked)
        if known is None:
            return None
        if known.touched is not None and self._database.now() - known.touched >= self._settings.touch_every:
            return None  # `get` renews the promise that goes with an answer (see `touches`)
        return known.stored

    async def get(self, repo: RepositoryName, reference: Tag | Digest) -> StoredManifest:
        """Raises ManifestUnknown."""
        found = self.cached(repo, reference)
        if found is not None:
            return found
        key = _key(repo, reference)
        begun = self._cache.begin(key)
        row = await self._find(repo, reference)
        by_digest = isinstance(reference, Digest)
        if by_digest and self._database.now() - row.touched >= self._settings.touch_every:
            await self._touches.add(row.id)
            row = await self._find(repo, reference)
        self._cache.put(key, _Known(row.stored, row.touched if by_digest else None), len(row.stored.raw), begun)
        return row.stored

    async def resolve(self, repo: RepositoryName, tag: Tag) -> Digest:
        """Raises ManifestUnknown."""
        return (await self.get(repo, tag)).digest

    async def all(self) -> Sequence[rows.HeldManifest]:
        """Every manifest of every repository, oldest first: what a node's list of images is made from."""
        async with self._database.read() as tx:
            return await rows.held(tx)

    @retried
    async def put(self, repo: RepositoryName, manifest: Manifest, *, digest: Digest | None = None,
                  tags: Sequence[Tag] = (), require_children: bool = True, required: Required = every,
                  pinned: bool = True, overwrite: bool = True, condition: Condition = always,
                  origin: Origin | None = None) -> StoredManifest:
        """Store the manifest and point `tags` at it, all or nothing.

        `digest`, when given, must be that of the bytes, and its algorithm names the manifest. What is `required` of
        layers and of an index's manifests must be there (of the latter nothing without `require_children`, of the
        former none that may not be distributed), the config always. An absent subject is accepted (distribution-spec,
        "Pushing Manifests with Subject"). `pinned` False marks a manifest that is wanted only as the child of an index
        (see `gc.sweep`).
        `overwrite` False: no tag may be moved by this. `condition` must hold for what each of the tags names now.
        Raises DigestMismatch, ManifestBlobUnknown, ManifestSizeMismatch, TagChanged, TagExists, TagImmutable,
        QuotaExceeded.
        """
        name = await _named(manifest, digest)
        now = self._database.now()
        async with self._database.write(beside=True, about=repo.value) as tx:
            await self._quotas.claim(tx, repo)
            repository = await repositories.ensure_locked(tx, repo, now)
            children = manifest.children if require_children else ()
            await self._check(tx, repository, manifest, [*filter(required, (*manifest.layers, *children))])
            # What it names lives now, and a collector that looked before this commit must notice.
            await blob_rows.touch(tx, _digests(manifest.blobs), now)
            await rows.touch(tx, repository, {*_digests(manifest.children), name}, now)
            number, healed = await rows.find_id(tx, repository, name), False
            if number is None:
                await self._quotas.manifest(tx, repo, len(manifest.raw))
                number = await rows.insert(tx, repository, manifest, name, now, pinned=pinned)
            else:
                healed = await rows.pushed_again(tx, number, manifest, now, pinned=pinned)
            book = await self._rules.book(tx)
            moved = [await point(tx, repo, repository, tag, number, now, book=book, overwrite=overwrite,
                                 condition=condition) for tag in tags]
            await repositories.pushed(tx, repository, now, dirty=not tags)
            if healed or any(moved):
                await repositories.outdate(tx, repository, since=now)
            if origin is not None:
                await events.record_all(tx, _pushes(repo, manifest, name, tags, origin), now)
        return StoredManifest(name, manifest.media_type, manifest.raw)

    async def absent(self, repo: RepositoryName, manifest: Manifest) -> Sequence[Digest]:
        """What the manifest names (parts and subject) and the repository does not have, in the manifest's order."""
        wanted = (*manifest.blobs, *manifest.children, *([manifest.subject] if manifest.subject else []))
        async with self._database.read() as tx:
            repository = await repositories.find(tx, repo)
            held = {} if repository is None else {
                **await blob_rows.sizes_in(tx, repository, _digests(manifest.blobs)),
                **await rows.sizes_in(tx, repository, _digests(wanted))}
        return [*dict.fromkeys(part.digest for part in wanted if part.digest not in held
                               and not mediatype.is_nondistributable(part.media_type))]

    @retried
    async def delete(self, repo: RepositoryName, digest: Digest, *, force: bool = False,
                     origin: Origin | None = None) -> None:
        """With its tags. Children and blobs stay until they are collected. `force`: also where a tag is immutable.
        Raises ManifestUnknown, TagImmutable."""
        async with self._database.write(beside=True, about=repo.value) as tx:
            await self._quotas.claim(tx, repo)
            repository = await repositories.lock(tx, repo)
            if repository is None:
                raise ManifestUnknown(repo, digest)
            if not force:
                await self._check_tags(tx, repo, repository, digest)
            size = await rows.delete(tx, repository, digest)
            if size is None:
                raise ManifestUnknown(repo, digest)
            await self._quotas.manifests_gone(tx, repo, [size])
            await repositories.outdate(tx, repository)
            if origin is not None:
                await events.record(tx, Event(Action.MANIFEST_DELETE, origin, repo, digest), self._database.now())

    async def _check_tags(self, tx: Transaction, repo: RepositoryName, repository: int, digest: Digest) -> None:
        """The manifest goes with its tags, so none of them may be immutable. Raises TagImmutable."""
        book = await self._rules.book(tx)
        for tag in await tag_rows.naming(tx, repository, digest) if book.may_be_immutable(repo) else ():
            if rule := book.immutable(repo, tag):
                raise TagImmutable(repo, tag, rule)

    async def _find(self, repo: RepositoryName, reference: Tag | Digest) -> ManifestRow:
        async with self._database.read() as tx:
            if isinstance(reference, Digest):
                row = await rows.find(tx, repo, reference)
            else:
                row = await rows.find_tagged(tx, repo, reference)
        if row is None:
            raise ManifestUnknown(repo, reference)
        return row

    async def _check(self, tx: Transaction, repository: int, manifest: Manifest,
                     required: Sequence[Descriptor]) -> None:
        held = await blob_rows.sizes_in(tx, repository, _digests(manifest.blobs))
        held |= await rows.sizes_in(tx, repository, _digests(manifest.children))
        parts = (manifest.config, *required) if manifest.config else required
        needed = [part for part in parts if not mediatype.is_nondistributable(part.media_type)]
        missing = list(dict.fromkeys(d.digest for d in needed if d.digest not in held))
        if missing:
            raise ManifestBlobUnknown(missing)
        for descriptor in (*manifest.blobs, *manifest.children):
            size = held.get(descriptor.digest, descriptor.size)
            if size != descriptor.size:
                raise ManifestSizeMismatch(descriptor, size)


def _pushes(repo: RepositoryName, manifest: Manifest, name: Digest, tags: Sequence[Tag],
            origin: Origin) -> list[Event]:
    """One for each tag: whoever deploys by tag hears of every one."""
    named: Sequence[Tag | None] = tags or [None]
    return [Event(Action.MANIFEST_PUSH, origin, repo, name, tag, manifest.media_type, len(manifest.raw))
            for tag in named]


def _key(repo: RepositoryName, reference: Tag | Digest) -> Key:
    # A tag is at most 128 characters, so a sha512's hex digits could be one: the colon, which no tag has, tells them
    # apart.
    return repo.value, f":{reference.encoded}" if isinstance(reference, Digest) else reference.value


def _digests(descriptors: Iterable[Descriptor]) -> Collection[Digest]:
    return {descriptor.digest for descriptor in descriptors}


async def _named(manifest: Manifest, digest: Digest | None) -> Digest:
    algorithm = digest.algorithm if digest else "sha256"
    if len(manifest.raw) > HASH_ON_LOOP:
        actual = await asyncio.to_thread(manifest.digest, algorithm)
    else:
        actual = manifest.digest(algorithm)
    if digest is not None and actual != digest:
        raise DigestMismatch(digest, actual)
    return actual
