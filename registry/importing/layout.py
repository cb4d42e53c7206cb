"""zot's layout: an OCI image layout for each repository. What any other program wrote as such layouts will do too.

    <repo>/oci-layout       a marker
    <repo>/index.json       descriptors; a tag is the annotation org.opencontainers.image.ref.name
    <repo>/blobs/<alg>/<hex>

A blob of zero bytes may be a stub that zot leaves in a bucket for one that another repository holds: its bytes are
looked for by digest. Names with a leading `_` or `.` are zot's own (scanners' data, uploads, sync).
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument
from ocispec.reference import MAX_NAME, InvalidName, InvalidTag, RepositoryName, Tag
from registry.importing.journal import Class, Damaged, Entry, Journal, Outcome
from registry.importing.source import EMPTY, Survey, TagFound, open_blob, read_manifest
from registry.importing.tree import Absent, Content, Kind, OpenFile, Tree, join
from registry.importing.tree import Entry as Name

INDEX = "index.json"
MARKER = "oci-layout"
REF_NAME = "org.opencontainers.image.ref.name"
MAX_INDEX = 64 * 1024 * 1024
"""Of a repository with some hundred thousand manifests."""


class LayoutSource:
    """Source."""

    def __init__(self, tree: Tree) -> None:
        """Raises Damaged when there is no layout at all."""
        self._tree = tree
        self._holders: dict[Digest, str] | None = None
        if next(self.repositories(Journal()), None) is None:
            raise Damaged(Class.FOREIGN, "", "there is no folder with an index.json or oci-layout")

    def repositories(self, journal: Journal) -> Iterator[RepositoryName]:
        pending = [""]
        while pending:
            name = pending.pop()
            try:
                entries = self._tree.list(name)
            except Damaged as damage:
                journal.add(damage.entry())
                continue
            inside = name and any(entry.name in (INDEX, MARKER) for entry in entries)
            if inside:
                yield RepositoryName(name)
            own = {INDEX, MARKER, "blobs"} if inside else set()
            below = [entry for entry in entries if entry.name not in own]
            pending.extend(reversed([join(name, entry.name) for entry in below
                                     if _is_component(name, entry, journal)]))

    def survey(self, name: RepositoryName, journal: Journal) -> Survey:
        survey = Survey(name, closed=False, lists_blobs=False)
        path = join(name.value, INDEX)
        try:
            listed, modified = self._index(path)
        except Damaged as damage:
            journal.add(damage.entry(repository=name))
            return survey
        for number, item in enumerate(listed):
            try:
                descriptor = Descriptor.from_json(item, f"manifests[{number}]")
            except InvalidArgument as error:
                journal.add(Entry(Class.BAD_INDEX, Outcome.LOST, path, error.message, repository=name))
                continue
            survey.manifests[descriptor.digest] = descriptor.media_type
            text = descriptor.annotations.get(REF_NAME)
            if text is not None:
                _tag(survey, text, TagFound(descriptor.digest, modified, path), journal)
        if listed and not survey.tags:
            journal.add(Entry(Class.MISSING_TAGS, Outcome.NOTED, path, Class.MISSING_TAGS.meaning,
                              "its manifests are taken over untagged", name))
        return survey

    def read_manifest(self, name: RepositoryName, digest: Digest) -> Content:
        path = self.blob_path(name, digest)
        try:
            return read_manifest(self._tree, path)
        except Damaged as damage:
            elsewhere = self._elsewhere(digest) if damage.kind is Class.EMPTY_MANIFEST else None
            if elsewhere is None:
                raise
            return read_manifest(self._tree, elsewhere)

    def open_blob(self, name: RepositoryName, digest: Digest) -> OpenFile:
        path = self.blob_path(name, digest)
        try:
            return open_blob(self._tree, path, digest)
        except Damaged as damage:
            elsewhere = self._elsewhere(digest) if damage.kind is Class.EMPTY_BLOB else None
            if elsewhere is None:
                raise
            return open_blob(self._tree, elsewhere, digest)

    def blob_path(self, name: RepositoryName, digest: Digest) -> str:
        return join(name.value, "blobs", digest.algorithm, digest.encoded)

    def _index(self, path: str) -> tuple[list[Any], datetime]:
        try:
            content = self._tree.read(path, MAX_INDEX)
        except Absent:
            raise Damaged(Class.BAD_INDEX, path, "there is none") from None
        if content.size > MAX_INDEX:
            raise Damaged(Class.BAD_INDEX, path, f"larger than {MAX_INDEX} bytes")
        try:
            document = json.loads(content.data)
        except (ValueError, RecursionError) as error:
            raise Damaged(Class.BAD_INDEX, path, f"not JSON: {error}" if content.size else "it is empty") from None
        listed = document.get("manifests") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise Damaged(Class.BAD_INDEX, path, "no list of manifests")
        return listed, content.modified

    def _elsewhere(self, digest: Digest) -> str | None:
        """Where the bytes of a stub are: in whatever repository holds more than a stub. Looked up all at once when the
        first stub is met: folders have none."""
        if digest in EMPTY:
            return None
        if self._holders is None:
            self._holders = {}
            for name in self.repositories(Journal()):
                self._add_holders(name)
        holder = self._holders.get(digest)
        if holder is None:
            return None
        return self.blob_path(RepositoryName(holder), digest)

    def _add_holders(self, name: RepositoryName) -> None:
        assert self._holders is not None
        for algorithm in ("sha256", "sha512"):
            try:
                entries = self._tree.list(join(name.value, "blobs", algorithm))
            except Damaged:
                continue
            for entry in entries:
                if entry.kind is Kind.FILE and entry.size and (digest := _digest(algorithm, entry.name)):
                    self._holders.setdefault(digest, name.value)


def _tag(survey: Survey, text: str, found: TagFound, journal: Journal) -> None:
    try:
        tag = Tag.parse(text)
    except InvalidTag as error:
        journal.add(Entry(Class.INVALID_TAG, Outcome.LOST, found.path, error.message, repository=survey.name,
                          digest=found.digest))
        return
    before = survey.tags.get(tag)
    if before is not None and before.digest != found.digest:
        journal.add(Entry(Class.DUPLICATE_TAG, Outcome.HEALED, found.path, f"it names {before.digest} too",
                          f"the later entry counts: {found.digest}", survey.name, found.digest, tag))
    survey.tags[tag] = found


def _digest(algorithm: str, encoded: str) -> Digest | None:
    try:
        return Digest.parse(f"{algorithm}:{encoded}")
    except InvalidArgument:
        return None


def _is_component(above: str, entry: Name, journal: Journal) -> bool:
    path = join(above, entry.name)
    if entry.name.startswith((".", "_")):
        return False  # zot's own
    if entry.kind is Kind.FILE:
        if above:  # at the top lie zot's databases
            journal.add(Entry(Class.FOREIGN, Outcome.NOTED, path, "no part of a layout", "left alone"))
        return False
    if entry.kind is not Kind.FOLDER:
        kind = Class.SYMLINK if entry.kind is Kind.SYMLINK else Class.NOT_A_FILE
        journal.add(Entry(kind, Outcome.LOST, path, kind.meaning))
        return False
    try:
        if len(path) > MAX_NAME:
            raise InvalidName(f"longer than {MAX_NAME} characters")
        RepositoryName.parse(entry.name)
    except InvalidName as error:
        journal.add(Entry(Class.INVALID_NAME, Outcome.LOST, path, error.message))
        return False
    return True
