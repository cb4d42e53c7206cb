"""Repositories, their tags and manifests, as an operator looks at them and tidies up."""

import contextlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from ocispec import manifest as manifests
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag, parse_tag_or_digest
from registry.api.admin.operation import Asked, DigestText, Operation, Paged, Strict
from registry.api.visible import visible
from registry.auth.policy import Action
from storage.errors import RepositoryUnknown
from storage.metadata.overview import RepositoryRow, TaggedRow
from storage.repository.manifests import ManifestUnknown
from storage.repository.store import ContentStore
from storage.rules.refusals import TagImmutable

BATCH = 200


class Repository(msgspec.Struct, frozen=True):
    """`bytes` counts each blob once within the repository; one that others hold too is counted in each of them."""

    name: str
    created: datetime
    pushed: datetime
    tags: int
    manifests: int
    bytes: int

    @classmethod
    def of(cls, row: RepositoryRow) -> "Repository":
        return cls(row.name.value, row.created, row.pushed, row.tags, row.manifests, row.bytes)


class Repositories(msgspec.Struct, frozen=True):
    """`next` is empty at the end."""

    items: list[Repository]
    next: str


class TaggedManifest(msgspec.Struct, frozen=True):
    """`size` is the manifest document's own, in bytes."""

    tag: str
    digest: str
    media_type: str
    artifact_type: str
    size: int
    updated: datetime

    @classmethod
    def of(cls, row: TaggedRow) -> "TaggedManifest":
        return cls(row.tag.value, str(row.digest), row.media_type, row.artifact_type, row.size, row.updated)


class Tags(msgspec.Struct, frozen=True):
    items: list[TaggedManifest]
    next: str


class Part(msgspec.Struct, frozen=True):
    """A descriptor; `platform` as `os/architecture[/variant]`, or empty."""

    media_type: str
    digest: str
    size: int
    platform: str = ""


class ManifestDetail(msgspec.Struct, frozen=True):
    """`bytes` is the sum of what the manifest names, without looking into children."""

    digest: str
    media_type: str
    artifact_type: str
    size: int
    bytes: int
    tags: list[str]
    blobs: list[Part]
    children: list[Part]
    subject: str
    annotations: dict[str, str]


class Removal(Strict, frozen=True):
    """`force`: also where tags are immutable."""

    force: bool = False


class Emptied(msgspec.Struct, frozen=True):
    """How many manifests went."""

    manifests: int


class Target(Strict, frozen=True):
    digest: DigestText


class RepositoryOperations:
    def __init__(self, content: ContentStore) -> None:
        self._content = content

    def operations(self) -> Sequence[Operation]:
        repository = "/repositories/{repository}"
        return (
            Operation("GET", "/repositories", "Repositories that hold a manifest and that the caller may pull",
                      self.repositories, needs=Action.LIST, query=Paged, result=Repositories),
            Operation("GET", repository, "One repository", self.repository, needs=Action.PULL, result=Repository),
            Operation("DELETE", repository, "Delete all its manifests and tags; its blobs go with the next collections",
                      self.delete, needs=Action.ADMIN, query=Removal, result=Emptied, failures=(409,)),
            Operation("GET", f"{repository}/tags", "Its tags and what they name", self.tags, needs=Action.PULL,
                      query=Paged, result=Tags),
            Operation("PUT", f"{repository}/tags/{{tag}}", "Point a tag at one of its manifests", self.tag,
                      needs=Action.OVERWRITE, body=Target, result=None, failures=(409,)),
            Operation("DELETE", f"{repository}/tags/{{tag}}", "Delete one tag, and nothing else", self.untag,
                      needs=Action.DELETE, result=None, failures=(409,)),
            Operation("GET", f"{repository}/manifests/{{reference}}", "A manifest, by tag or digest", self.manifest,
                      needs=Action.PULL, result=ManifestDetail),
            Operation("DELETE", f"{repository}/manifests/{{reference}}", "Delete a manifest with all its tags",
                      self.delete_manifest, needs=Action.DELETE, result=None, failures=(409,)),
        )

    async def repositories(self, asked: Asked) -> Repositories:
        """Neither page nor `next` tells of others: the name that a page ends with is one that it shows."""
        wanted: Paged = asked.query
        page = await self._content.tags.catalog(limit=wanted.limit, last=wanted.after or None,
                                                shown=visible(asked.access, asked.principal))
        rows = await self._content.overview.named(page.names)
        return Repositories([Repository.of(row) for row in rows], page.names[-1] if page.more else "")

    async def repository(self, asked: Asked) -> Repository:
        return Repository.of(await self._content.overview.repository(asked.repository))

    async def delete(self, asked: Asked) -> Emptied:
        """In many transactions, the newest first, so that nobody waits for it; broken off, it can be asked for again.
        """
        repo, gone = asked.repository, 0
        await self._known(repo)
        if not asked.query.force:
            await self._movable(repo)  # before anything goes
        while found := await self._content.overview.digests(repo, BATCH):
            for digest in found:
                with contextlib.suppress(ManifestUnknown):  # somebody else was faster
                    await self._content.manifests.delete(repo, digest, force=asked.query.force, origin=asked.origin)
                    gone += 1
        return Emptied(gone)

    async def tags(self, asked: Asked) -> Tags:
        wanted: Paged = asked.query
        rows = await self._content.overview.tags(asked.repository, limit=wanted.limit, after=wanted.after)
        if not rows and not wanted.after:
            await self._known(asked.repository)
        return Tags([TaggedManifest.of(row) for row in rows],
                    rows[-1].tag.value if len(rows) == wanted.limit else "")

    async def tag(self, asked: Asked) -> None:
        target: Target = asked.body
        await self._content.tags.put(asked.repository, Tag.parse(asked.parameters["tag"]), Digest.parse(target.digest),
                                     origin=asked.origin)

    async def untag(self, asked: Asked) -> None:
        await self._content.tags.delete(asked.repository, Tag.parse(asked.parameters["tag"]), origin=asked.origin)

    async def manifest(self, asked: Asked) -> ManifestDetail:
        repo = asked.repository
        stored = await self._content.manifests.get(repo, parse_tag_or_digest(asked.parameters["reference"]))
        parsed = manifests.parse(stored.raw, stored.media_type)
        tags = await self._content.overview.tags_of(repo, stored.digest)
        named = (*parsed.blobs, *parsed.children)
        return ManifestDetail(
            digest=str(stored.digest), media_type=stored.media_type, artifact_type=parsed.artifact_type or "",
            size=len(stored.raw), bytes=sum(part.size for part in named), tags=[tag.value for tag in tags],
            blobs=[_part(part) for part in parsed.blobs], children=[_part(part) for part in parsed.children],
            subject=str(parsed.subject.digest) if parsed.subject else "", annotations=dict(parsed.annotations))

    async def delete_manifest(self, asked: Asked) -> None:
        reference = parse_tag_or_digest(asked.parameters["reference"])
        if isinstance(reference, Tag):
            reference = await self._content.manifests.resolve(asked.repository, reference)
        await self._content.manifests.delete(asked.repository, reference, origin=asked.origin)

    async def _movable(self, repo: RepositoryName) -> None:
        """Raises TagImmutable for the first tag that is."""
        book, after = await self._content.rules.current(), ""
        while book.may_be_immutable(repo):
            page = await self._content.overview.tags(repo, limit=BATCH, after=after)
            if not page:
                return
            for row in page:
                if rule := book.immutable(repo, row.tag):
                    raise TagImmutable(repo, row.tag, rule)
            after = page[-1].tag.value

    async def _known(self, name: RepositoryName) -> None:
        """Raises RepositoryUnknown."""
        if (await self._content.overview.repository(name)).manifests == 0:
            raise RepositoryUnknown(name)


def _part(descriptor: Descriptor) -> Part:
    return Part(descriptor.media_type, str(descriptor.digest), descriptor.size,
                str(descriptor.platform) if descriptor.platform else "")
