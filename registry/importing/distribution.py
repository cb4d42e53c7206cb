"""The layout of CNCF distribution (docker-registry; Harbor's bytes are the same, but its tags are in its database).

    blobs/<alg>/<2 hex>/<hex>/data                              every blob and every manifest
    repositories/<name>/_layers/<alg>/<hex>/link                the blob is part of the repository
    repositories/<name>/_manifests/revisions/<alg>/<hex>/link   the manifest is
    repositories/<name>/_manifests/tags/<tag>/current/link      what the tag names
    repositories/<name>/_manifests/tags/<tag>/index/<alg>/<hex>/link    what it ever named

A link holds a digest, and what it holds counts more than its path: that of a sha512 path holds a sha256 digest. A
folder without its link is what a deletion leaves and therefore no damage; an empty link is what a crash leaves, and
then the path says what it said.
"""

from collections.abc import Iterator
from datetime import datetime

from ocispec.digest import Digest, InvalidDigest
from ocispec.reference import MAX_NAME, InvalidName, InvalidTag, RepositoryName, Tag
from registry.importing.journal import Class, Damaged, Entry, Journal, Outcome
from registry.importing.source import Survey, TagFound, open_blob, read_manifest
from registry.importing.tree import Absent, Content, Kind, OpenFile, Tree, join
from registry.importing.tree import Entry as Name

LINK_BYTES = 256
ROOTS = ("docker/registry/v2", "registry/v2", "")
PARTS = frozenset({"_layers", "_manifests", "_uploads"})


class DistributionSource:
    """Source. `relink`: what a repository no longer lists, but its manifests or tags name, is part of it again."""

    def __init__(self, tree: Tree, *, relink: bool) -> None:
        """Raises Damaged when this is no such folder."""
        self._tree = tree
        self._relink = relink
        self._root = _find_root(tree)
        # Where the bytes of an alias lie (a sha512 path with a sha256 link).
        self._aliases: dict[Digest, Digest] = {}

    def repositories(self, journal: Journal) -> Iterator[RepositoryName]:
        top = join(self._root, "repositories")
        pending = [""]
        while pending:
            name = pending.pop()
            entries = _list(self._tree, join(top, name), journal)
            if name and any(entry.name in ("_manifests", "_layers") for entry in entries):
                yield RepositoryName(name)
            below = [entry for entry in entries if not (name and entry.name in PARTS)]
            pending.extend(reversed([join(name, entry.name) for entry in below
                                     if _is_component(name, entry, join(top, name, entry.name), journal)]))

    def survey(self, name: RepositoryName, journal: Journal) -> Survey:
        survey = Survey(name, closed=not self._relink)
        base = join(self._root, "repositories", name.value)
        for digest, _ in self._links(join(base, "_layers"), journal, name):
            survey.blobs.add(digest)
        for digest, modified in self._links(join(base, "_manifests/revisions"), journal, name):
            survey.manifests[digest] = ""
            survey.pushed[digest] = modified
        self._tags(join(base, "_manifests/tags"), survey, journal)
        return survey

    def read_manifest(self, name: RepositoryName, digest: Digest) -> Content:
        return read_manifest(self._tree, self.blob_path(name, digest))

    def open_blob(self, name: RepositoryName, digest: Digest) -> OpenFile:
        return open_blob(self._tree, self.blob_path(name, digest), digest)

    def blob_path(self, name: RepositoryName, digest: Digest) -> str:  # noqa: ARG002  # one for all repositories
        held = self._aliases.get(digest, digest)
        return join(self._root, "blobs", held.algorithm, held.encoded[:2], held.encoded, "data")

    def _links(self, folder: str, journal: Journal, name: RepositoryName) -> Iterator[tuple[Digest, datetime]]:
        """What a folder of links says, with when it was said."""
        for algorithm in self._folders(folder, journal):
            for encoded in self._folders(join(folder, algorithm), journal):
                path = join(folder, algorithm, encoded, "link")
                try:
                    at = _digest_of_path(algorithm, encoded, path)
                    content = self._tree.read(path, LINK_BYTES)
                    said = self._said(content, at, path, journal, name)
                except Absent:
                    continue
                except Damaged as damage:
                    journal.add(damage.entry(repository=name))
                    continue
                yield said, content.modified
                if said.algorithm != at.algorithm:
                    self._aliases[at] = said
                    yield at, content.modified

    def _said(self, content: Content, at: Digest, path: str, journal: Journal, name: RepositoryName) -> Digest:
        try:
            said = _digest(content)
        except InvalidDigest as error:
            what = error.message if content.size else "the link is empty"
            journal.add(Entry(Class.BAD_LINK, Outcome.HEALED, path, what, "taken from its path", name, at))
            return at
        if said.algorithm == at.algorithm and said != at:
            journal.add(Entry(Class.LINK_MISMATCH, Outcome.HEALED, path, f"it names {said}",
                              "what the link holds counts", name, said))
        return said

    def _tags(self, folder: str, survey: Survey, journal: Journal) -> None:
        names = self._folders(folder, journal)
        if not names:
            journal.add(Entry(Class.MISSING_TAGS, Outcome.NOTED, folder, Class.MISSING_TAGS.meaning,
                              "its manifests are taken over untagged", survey.name))
        for text in names:
            path = join(folder, text, "current/link")
            try:
                tag = Tag.parse(text)
            except InvalidTag as error:
                journal.add(Entry(Class.INVALID_TAG, Outcome.LOST, path, error.message, repository=survey.name))
                continue
            try:
                found = self._tag(join(folder, text), tag, survey.name, journal)
            except Damaged as damage:
                journal.add(damage.entry(repository=survey.name, tag=tag))
                continue
            if self._listed(found, tag, survey, journal):
                survey.tags[tag] = found

    def _tag(self, folder: str, tag: Tag, name: RepositoryName, journal: Journal) -> TagFound:
        path = join(folder, "current/link")
        try:
            content = self._tree.read(path, LINK_BYTES)
        except Absent:
            # Deleting a tag in a bucket may leave the same, so nothing is guessed unless it is asked for.
            return self._from_history(folder, Damaged(Class.MISSING_TAG_LINK, path), tag, name, journal,
                                      allowed=self._relink)
        try:
            return TagFound(_digest(content), content.modified, path)
        except InvalidDigest as error:
            what = error.message if content.size else "the link is empty"
            return self._from_history(folder, Damaged(Class.BAD_TAG_LINK, path, what), tag, name, journal, allowed=True)

    def _from_history(self, folder: str, damage: Damaged, tag: Tag, name: RepositoryName, journal: Journal, *,
                      allowed: bool) -> TagFound:
        """What the tag named, when it never named anything else: which of several was the last, nobody knows (times
        of files do not survive a copy). Raises `damage`, with what was found."""
        history = dict(self._links(join(folder, "index"), Journal(), name))
        if len(history) == 1 and allowed:
            ((digest, modified),) = history.items()
            journal.add(damage.entry(Outcome.HEALED, "the only manifest it ever named", repository=name, digest=digest,
                                     tag=tag))
            return TagFound(digest, modified, damage.path)
        named = ", ".join(sorted(map(str, history))[:10])
        raise Damaged(damage.kind, damage.path, f"{damage.what}; it once named {named}" if named else damage.what)

    def _listed(self, found: TagFound, tag: Tag, survey: Survey, journal: Journal) -> bool:
        """Whether the tag counts. One for a manifest that the repository does not list could not be pulled; the
        manifest may have been deleted on purpose."""
        if found.digest in survey.manifests:
            return True
        outcome = Outcome.HEALED if self._relink else Outcome.LOST
        journal.add(Entry(Class.MISSING_REVISION, outcome, found.path, f"it names {found.digest}",
                          "the manifest is listed again" if self._relink else "", survey.name, found.digest, tag))
        if self._relink:
            survey.manifests[found.digest] = ""
            survey.pushed[found.digest] = found.updated
        return self._relink

    def _folders(self, path: str, journal: Journal) -> list[str]:
        found = []
        for entry in _list(self._tree, path, journal):
            if entry.kind is Kind.FOLDER:
                found.append(entry.name)
            else:
                journal.add(_odd(entry, join(path, entry.name)))
        return found


def _find_root(tree: Tree) -> str:
    for root in ROOTS:
        try:
            names = {entry.name for entry in tree.list(root)}
        except Damaged:
            continue
        if "repositories" in names or ("blobs" in names and root):
            return root
    raise Damaged(Class.FOREIGN, ROOTS[0], "there is no docker/registry/v2 with repositories in it")


def _list(tree: Tree, path: str, journal: Journal) -> list[Name]:
    try:
        return tree.list(path)
    except Absent:
        return []
    except Damaged as damage:
        journal.add(damage.entry())
        return []


def _is_component(above: str, entry: Name, path: str, journal: Journal) -> bool:
    if entry.kind is not Kind.FOLDER:
        journal.add(_odd(entry, path))
        return False
    name = join(above, entry.name)
    if entry.name.startswith("_") and above:
        journal.add(Entry(Class.FOREIGN, Outcome.NOTED, path, "no part of a repository", "left alone"))
        return False
    try:
        if len(name) > MAX_NAME:
            raise InvalidName(f"longer than {MAX_NAME} characters")
        RepositoryName.parse(entry.name)
    except InvalidName as error:
        journal.add(Entry(Class.INVALID_NAME, Outcome.LOST, path, error.message))
        return False
    return True


def _odd(entry: Name, path: str) -> Entry:
    if entry.kind is Kind.FILE:
        return Entry(Class.FOREIGN, Outcome.NOTED, path, "a file where only folders belong", "left alone")
    kind = Class.SYMLINK if entry.kind is Kind.SYMLINK else Class.NOT_A_FILE
    return Entry(kind, Outcome.LOST, path, kind.meaning)


def _digest_of_path(algorithm: str, encoded: str, path: str) -> Digest:
    try:
        return Digest.parse(f"{algorithm}:{encoded}")
    except InvalidDigest as error:
        raise Damaged(Class.UNSUPPORTED_DIGEST, path, error.message) from None


def _digest(content: Content) -> Digest:
    """What a link holds. Raises InvalidDigest."""
    return Digest.parse(content.data.decode("utf-8", "replace").strip())
