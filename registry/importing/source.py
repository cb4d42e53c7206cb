"""What an import needs of a source, whatever its layout. Synchronous, for threads."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ocispec.digest import Digest
from ocispec.manifest import MAX_BYTES
from ocispec.reference import RepositoryName, Tag
from registry.importing.journal import Class, Damaged, Journal
from registry.importing.tree import Absent, Content, OpenFile, Tree


@dataclass(frozen=True, slots=True)
class TagFound:
    """`path`: the file that says so."""

    digest: Digest
    updated: datetime
    path: str


@dataclass(slots=True)
class Survey:
    """One repository of a source.

    `blobs` are those that it lists as its own. `manifests` are those it lists, with the media type that the source
    has for it (empty where it keeps none) and when it came. `closed`: what is not listed is not part of it, though the
    source may hold it; otherwise whatever is found is. `lists_blobs`: the layout has such a list at all.
    """

    name: RepositoryName
    closed: bool
    lists_blobs: bool = True
    blobs: set[Digest] = field(default_factory=set)
    manifests: dict[Digest, str] = field(default_factory=dict)
    pushed: dict[Digest, datetime] = field(default_factory=dict)
    tags: dict[Tag, TagFound] = field(default_factory=dict)


class Source(Protocol):
    def repositories(self, journal: Journal) -> Iterator[RepositoryName]:
        """Every repository, by and by."""
        ...

    def survey(self, name: RepositoryName, journal: Journal) -> Survey: ...

    def read_manifest(self, name: RepositoryName, digest: Digest) -> Content:
        """Raises Damaged when there are no bytes, or too many."""
        ...

    def open_blob(self, name: RepositoryName, digest: Digest) -> OpenFile:
        """Raises Damaged when there are no bytes where some should be."""
        ...

    def blob_path(self, name: RepositoryName, digest: Digest) -> str:
        """Where its bytes lie, for a report."""
        ...


EMPTY = frozenset({Digest.of(b"", algorithm) for algorithm in ("sha256", "sha512")})


def read_manifest(tree: Tree, path: str) -> Content:
    """A manifest's bytes. Raises Damaged."""
    try:
        content = tree.read(path, MAX_BYTES)
    except Absent:
        raise Damaged(Class.MISSING_MANIFEST, path) from None
    if not content.size:
        raise Damaged(Class.EMPTY_MANIFEST, path)
    if content.size > MAX_BYTES:
        raise Damaged(Class.MANIFEST_TOO_LARGE, path)
    return content


def open_blob(tree: Tree, path: str, digest: Digest) -> OpenFile:
    """A blob's bytes. Raises Damaged."""
    try:
        file = tree.open(path)
    except Absent:
        raise Damaged(Class.MISSING_BLOB, path) from None
    if not file.size and digest not in EMPTY:
        file.close()
        raise Damaged(Class.EMPTY_BLOB, path)
    return file
