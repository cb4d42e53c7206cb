"""One repository of a source, from its list of blobs to its tags."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument
from ocispec.graph import MAX_DEPTH
from ocispec.manifest import Manifest
from ocispec.reference import Tag
from registry.importing.flights import Flights
from registry.importing.journal import Class, Damaged, Entry, Journal, Outcome
from registry.importing.progress import Counts
from registry.importing.source import Source, Survey
from registry.importing.target import Held, Target
from registry.importing.verdicts import refused, unfit
from storage.repository.intake import Intake, Tagging

BATCH = 256


@dataclass(frozen=True, slots=True)
class Tools:
    """What all repositories of one import share."""

    source: Source
    target: Target
    intake: Intake
    journal: Journal
    counts: Counts
    flights: Flights
    overwrite_tags: bool = False


class RepositoryTakeover:
    def __init__(self, tools: Tools, survey: Survey, lease: Held) -> None:
        self._tools = tools
        self._survey = survey
        self._lease = lease
        # Sizes of what the repository has by now; None: it is known that it cannot be had.
        self._blobs: dict[Digest, int | None] = {}
        self._manifests: dict[Digest, int | None] = {}
        self._pushed: dict[Digest, datetime] = {}

    async def run(self) -> None:
        for some in _batches(self._survey.blobs):
            await self._take(some)
        for listed in _batches(self._survey.manifests):
            await self._lease.add(*listed)
            known = await self._tools.intake.manifests(self._survey.name, listed)
            self._manifests.update(known)
            self._tools.counts.manifests_known += len(known)
            for digest in listed:
                await self._manifest(digest, self._survey.manifests[digest], 0)
            await self._backdate()
        for tags in _batches(self._survey.tags):
            await self._tags(tags)

    async def _take(self, digests: Sequence[Digest]) -> None:
        """Have these blobs, as far as they can be had."""
        await self._lease.add(*digests)
        name = self._survey.name
        here = await self._tools.intake.sizes(name, digests)
        absent = [digest for digest in digests if digest not in here]
        # Afterwards, because what an earlier run took is part of the repository already.
        here |= await self._tools.target.held(name, absent) if absent else {}
        self._blobs.update(here)
        self._tools.counts.blobs_known += len(here)
        async with asyncio.TaskGroup() as group:
            for digest in absent:
                if digest not in here:
                    group.create_task(self._take_one(digest))

    async def _take_one(self, digest: Digest) -> None:
        try:
            self._blobs[digest] = await self._tools.flights.take(self._survey.name, digest)
        except Damaged as damage:
            self._blobs[digest] = None
            self._tools.journal.add(damage.entry(repository=self._survey.name, digest=digest))

    async def _manifest(self, digest: Digest, media_type: str, depth: int) -> None:
        """Have this manifest and, before it, those it lists. A digest is looked at once."""
        if digest in self._manifests:
            return
        self._manifests[digest] = None
        path = self._tools.source.blob_path(self._survey.name, digest)
        try:
            if depth > MAX_DEPTH:
                raise Damaged(Class.BAD_MANIFEST, path, f"indexes are nested deeper than {MAX_DEPTH}")
            manifest = await asyncio.to_thread(self._read, digest, media_type, path)
            for child in manifest.children:
                if self._is_ours(child):
                    kind = self._survey.manifests.get(child.digest, child.media_type)
                    await self._manifest(child.digest, kind, depth + 1)
            await self._store(manifest, digest, path)
        except Damaged as damage:
            self._tools.journal.add(damage.entry(repository=self._survey.name, digest=digest))

    def _read(self, digest: Digest, media_type: str, path: str) -> Manifest:
        content = self._tools.source.read_manifest(self._survey.name, digest)
        actual = Digest.of(content.data, digest.algorithm)
        if actual != digest:
            raise Damaged(Class.MANIFEST_DIGEST, path, f"content has digest {actual}")
        try:
            return manifests.parse(content.data, media_type)
        except InvalidArgument as error:
            raise Damaged(unfit(content.data), path, error.message) from None

    def _is_ours(self, child: Descriptor) -> bool:
        """Whether to look for a manifest that an index names: always where nothing but the index lists it."""
        if child.media_type not in mediatype.MANIFESTS:
            return False
        return child.digest in self._survey.manifests or not self._survey.closed

    async def _store(self, manifest: Manifest, digest: Digest, path: str) -> None:
        await self._complete(manifest, path, digest)
        self._check_sizes(manifest, path)
        absent = self._absent_blobs(manifest)
        if absent:
            raise Damaged(Class.INCOMPLETE, path, f"without {_listed(absent)}")
        missing = [child.digest for child in manifest.children if self._manifests.get(child.digest) is None]
        there = {part.digest for part in (*manifest.blobs, *manifest.children)} - set(missing)
        there = {part for part in there if self._blobs.get(part) is not None or self._manifests.get(part) is not None}
        with refused(path):
            await self._tools.target.put(self._survey.name, manifest, digest, there)
        self._manifests[digest] = len(manifest.raw)
        self._tools.counts.manifests += 1
        if digest in self._survey.pushed:
            self._pushed[digest] = self._survey.pushed[digest]
        if missing:
            self._note(Class.MISSING_CHILDREN, Outcome.KEPT, path, f"without {_listed(missing)}",
                       "taken over without them", digest)

    async def _complete(self, manifest: Manifest, path: str, digest: Digest) -> None:
        """Look for what the manifest names and the repository does not list."""
        unlisted = [part for part in manifest.blobs if part.digest not in self._blobs]
        if not unlisted:
            return
        if not self._survey.lists_blobs:
            await self._take([*{part.digest: None for part in unlisted if not self._may_be_absent(part)}])
            await self._take_if_there(part for part in unlisted if self._may_be_absent(part))
            return
        for part in unlisted:
            # What a manifest may name without having it, a stranger may have named to get it.
            if part.digest not in self._blobs and not self._may_be_absent(part):
                await self._relink(part, path, digest)

    async def _take_if_there(self, parts: Iterable[Descriptor]) -> None:
        for part in parts:
            try:
                self._blobs[part.digest] = await self._tools.flights.take(self._survey.name, part.digest)
            except Damaged:
                continue

    async def _relink(self, part: Descriptor, path: str, digest: Digest) -> None:
        if self._survey.closed:
            held = await asyncio.to_thread(self._is_held, part.digest)
            what = f"{part.digest} is {'not part of the repository' if held else 'nowhere'}"
            self._note(Class.UNLINKED if held else Class.MISSING_BLOB, Outcome.LOST, path, what, "", digest)
            self._blobs[part.digest] = None
            return
        await self._take([part.digest])
        if self._blobs.get(part.digest) is not None:
            self._note(Class.UNLINKED, Outcome.HEALED, path, f"{part.digest} was not part of the repository",
                       "it is again", digest)

    def _is_held(self, digest: Digest) -> bool:
        try:
            self._tools.source.open_blob(self._survey.name, digest).close()
        except Damaged:
            return False
        return True

    def _check_sizes(self, manifest: Manifest, path: str) -> None:
        for part in manifest.blobs:
            size = self._blobs.get(part.digest)
            if size is not None and size != part.size:
                raise Damaged(Class.SIZE_MISMATCH, path, f"{part.digest} has {size} bytes, not {part.size}")
        for child in manifest.children:
            size = self._manifests.get(child.digest)
            if size is not None and size != child.size:
                raise Damaged(Class.SIZE_MISMATCH, path, f"{child.digest} has {size} bytes, not {child.size}")

    def _absent_blobs(self, manifest: Manifest) -> list[Digest]:
        config = () if manifest.config is None else (manifest.config,)
        needed = [*config, *(part for part in manifest.layers if not self._may_be_absent(part))]
        return [part.digest for part in needed if self._blobs.get(part.digest) is None]

    @staticmethod
    def _may_be_absent(part: Descriptor) -> bool:
        return bool(part.urls) or mediatype.is_nondistributable(part.media_type)

    async def _backdate(self) -> None:
        pushed, self._pushed = self._pushed, {}
        if pushed:
            await self._tools.target.backdate(self._survey.name, pushed)

    async def _tags(self, tags: Sequence[Tag]) -> None:
        found = {tag: self._survey.tags[tag] for tag in tags}
        good = {tag: Tagging(item.digest, item.updated) for tag, item in found.items()
                if self._manifests.get(item.digest) is not None}
        for tag, item in found.items():
            if tag not in good:
                self._tools.journal.add(Entry(Class.LOST_TAG, Outcome.LOST, item.path, f"it names {item.digest}",
                                              repository=self._survey.name, digest=item.digest, tag=tag))
        tagged = await self._tools.target.put_tags(self._survey.name, good, overwrite=self._tools.overwrite_tags)
        for tag, digest in tagged.kept.items():
            self._tools.journal.add(Entry(
                Class.TAG_EXISTS, Outcome.NOTED, found[tag].path, f"it names {good[tag].digest} there, {digest} here",
                "ours stays", self._survey.name, good[tag].digest, tag))
        self._tools.counts.tags += tagged.moved
        self._tools.counts.tags_kept += len(tagged.kept)

    def _note(self, kind: Class, outcome: Outcome, path: str, what: str, done: str, digest: Digest) -> None:
        self._tools.journal.add(Entry(kind, outcome, path, what, done, self._survey.name, digest))


def _batches(values: Iterable[Any]) -> Iterable[list[Any]]:
    listed = list(values)
    for first in range(0, len(listed), BATCH):
        yield listed[first : first + BATCH]


def _listed(digests: Sequence[Digest]) -> str:
    shown = ", ".join(map(str, digests[:5]))
    return shown if len(digests) <= 5 else f"{shown} and {len(digests) - 5} more"
