"""What was found damaged in a source, by class, and what became of it."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TextIO

from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition
from ocispec.reference import RepositoryName, Tag


class Class(Enum):
    """Each with what it means; `docs/import.md` shows the table."""

    def __init__(self, code: str, meaning: str) -> None:
        self.code = code
        self.meaning = meaning

    INVALID_NAME = "invalid-name", "a folder that cannot be part of a repository's name"
    INVALID_TAG = "invalid-tag", "a name that cannot be a tag"
    SYMLINK = "symlink", "a symbolic link, which is never followed"
    NOT_A_FILE = "not-a-file", "a folder, device or pipe where a file should be"
    UNREADABLE = "unreadable", "the operating system or bucket refuses to give it"
    UNSUPPORTED_DIGEST = "unsupported-digest", "a digest that is malformed, or of another algorithm than sha256, sha512"
    BAD_LINK = "bad-link", "a link file that is empty or holds no digest"
    LINK_MISMATCH = "link-mismatch", "a link file that names another digest than its path"
    MISSING_TAG_LINK = "missing-tag-link", "a tag's folder without the link that says what it names"
    BAD_TAG_LINK = "bad-tag-link", "a tag's link that is empty or holds no digest"
    DUPLICATE_TAG = "duplicate-tag", "one tag for two manifests"
    MISSING_TAGS = "missing-tags", "a repository without tags"
    MISSING_REVISION = "missing-revision", "a tag names a manifest that the repository does not list"
    BAD_INDEX = "bad-index", "a layout whose index.json is absent, empty or no index"
    MISSING_MANIFEST = "missing-manifest", "a manifest without bytes"
    EMPTY_MANIFEST = "empty-manifest", "a manifest of zero bytes"
    MANIFEST_DIGEST = "manifest-wrong-digest", "a manifest whose bytes have another digest"
    BAD_MANIFEST = "bad-manifest-format", "bytes that are no manifest"
    SCHEMA1 = "schema1", "a manifest of Docker's first schema, which no current client can use"
    UNKNOWN_MANIFEST_TYPE = "unknown-manifest-type", "a manifest of a media type that is not known"
    MANIFEST_TOO_LARGE = "manifest-too-large", "a manifest of more than 4 MiB"
    MISSING_BLOB = "missing-blob", "a blob without bytes"
    EMPTY_BLOB = "empty-blob", "a blob of zero bytes that should have some"
    WRONG_DIGEST = "wrong-digest", "a blob whose bytes have another digest"
    UNLINKED = "unlinked-blob", "a manifest names a blob that is stored but not part of the repository"
    INCOMPLETE = "incomplete-manifest", "a manifest whose config or layers are missing"
    MISSING_CHILDREN = "missing-children", "an index some of whose manifests are missing"
    SIZE_MISMATCH = "size-mismatch", "a manifest that gives another size than its content has"
    LOST_TAG = "lost-tag", "a tag whose manifest could not be taken over"
    TAG_EXISTS = "tag-exists", "a tag that names something else here"
    REFUSED = "refused", "this registry's own rules refuse it"
    FOREIGN = "foreign", "something that does not belong to the layout"


class Outcome(Enum):
    """`KEPT`: taken over as damaged as it is. `NOTED`: no damage."""

    LOST = "lost"
    HEALED = "healed"
    KEPT = "kept"
    NOTED = "noted"


@dataclass(frozen=True, slots=True)
class Entry:
    """`path`: in the source. `what`: what was seen. `done`: what came of it, empty when nothing could be."""

    kind: Class
    outcome: Outcome
    path: str
    what: str
    done: str = ""
    repository: RepositoryName | None = None
    digest: Digest | None = None
    tag: Tag | None = None

    def to_json(self) -> dict[str, Any]:
        shown = {"class": self.kind.code, "outcome": self.outcome.value, "path": printable(self.path),
                 "what": printable(self.what), "done": printable(self.done), "repository": self.repository,
                 "digest": self.digest, "tag": self.tag}
        return {name: str(value) for name, value in shown.items() if value}


def printable(text: str) -> str:
    """Names from a file system may be any bytes, and a terminal must not obey them."""
    return "".join(c if c.isprintable() else c.encode(errors="surrogateescape").decode("ascii", "backslashreplace")
                   for c in text)


class Damaged(Exception):
    """Something of the source cannot be had as it should be. It becomes an entry and never stops the rest."""

    def __init__(self, kind: Class, path: str, what: str = "") -> None:
        super().__init__(f"{kind.code} {path!r} {what}")
        self.kind = kind
        self.path = path
        self.what = what or kind.meaning

    def entry(self, outcome: Outcome = Outcome.LOST, done: str = "", *, repository: RepositoryName | None = None,
              digest: Digest | None = None, tag: Tag | None = None) -> Entry:
        return Entry(self.kind, outcome, self.path, self.what, done, repository, digest, tag)


class Sink(Protocol):
    """Where entries of a journal go, one at a time."""

    def write(self, entry: Entry) -> None: ...


class Journal:
    """Counts entries and passes them on; from any thread. Nothing is kept in memory but the counts."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._lock = threading.Lock()
        self.counts: Counter[tuple[Class, Outcome]] = Counter()

    def add(self, entry: Entry) -> None:
        with self._lock:
            self.counts[entry.kind, entry.outcome] += 1
            for sink in self._sinks:
                sink.write(entry)

    @property
    def damaged(self) -> int:
        """How much was, whether or not it could be healed."""
        return sum(count for (_, outcome), count in self.counts.items() if outcome is not Outcome.NOTED)


class JsonReport:
    """The report as one JSON document, written as it comes: however much is damaged, memory does not grow."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._first = True

    def write(self, entry: Entry) -> None:
        self._file.write(("\n" if self._first else ",\n") + json.dumps(entry.to_json()))
        self._first = False

    def end(self, summary: dict[str, Any]) -> None:
        self._file.write(f'\n], "summary": {json.dumps(summary)}}}\n')


@contextmanager
def json_report(path: Path) -> Iterator[JsonReport]:
    """A report at `path`, complete or not there: it appears when the block ends. Raises FailedPrecondition."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write('{"entries": [')
            yield JsonReport(file)
        unfinished.replace(path)
    except OSError as error:
        raise FailedPrecondition(f"cannot write the report {path}: {error.strerror}") from error
