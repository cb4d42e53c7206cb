"""Stores of other registries, made file by file, sound or damaged in whatever way; and an import of them."""

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from registry import app
from registry.importing.journal import Entry, Journal, Outcome
from registry.importing.progress import Counts
from registry.importing.service import Import, take_over
from registry.importing.target import Bytes, Mode
from registry.settings import Settings
from tests.registry.conftest import MEMORY


def descriptor(data: bytes, kind: str, algorithm: str = "sha256") -> dict[str, Any]:
    return {"mediaType": kind, "digest": str(Digest.of(data, algorithm)), "size": len(data)}


def image(layers: tuple[bytes, ...] = (b"layer",), *, config: bytes = b"{}", layer_type: str = mediatype.OCI_LAYER,
          config_type: str = mediatype.OCI_CONFIG, kind: str | None = mediatype.OCI_MANIFEST, **fields: Any) -> bytes:
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": kind, "config": descriptor(config, config_type),
                                "layers": [descriptor(layer, layer_type) for layer in layers], **fields}
    if kind is None:
        del document["mediaType"]
    return json.dumps(document).encode()


def index(*children: bytes, kind: str = mediatype.OCI_INDEX) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [
        descriptor(child, json.loads(child).get("mediaType", mediatype.OCI_MANIFEST)) for child in children]}).encode()


class Distribution:
    """`<rootdirectory>` of a CNCF distribution."""

    layout = "distribution"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "docker/registry/v2"
        (self.root / "repositories").mkdir(parents=True)
        self.repo = "team/app"

    def write(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def data(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.encoded[:2] / digest.encoded / "data"

    def place(self, repo: str | None = None) -> Path:
        return self.root / "repositories" / (repo or self.repo)

    def layer_link(self, digest: Digest, repo: str | None = None) -> Path:
        return self.place(repo) / "_layers" / digest.algorithm / digest.encoded / "link"

    def revision_link(self, digest: Digest, repo: str | None = None) -> Path:
        return self.place(repo) / "_manifests/revisions" / digest.algorithm / digest.encoded / "link"

    def tag_link(self, tag: str, repo: str | None = None) -> Path:
        return self.place(repo) / "_manifests/tags" / tag / "current/link"

    def blob(self, data: bytes, repo: str | None = None, *, link: bool = True) -> Digest:
        digest = Digest.of(data)
        self.write(self.data(digest), data)
        if link:
            self.write(self.layer_link(digest, repo), str(digest).encode())
        return digest

    def manifest(self, raw: bytes, *tags: str, repo: str | None = None) -> Digest:
        digest = Digest.of(raw)
        self.write(self.data(digest), raw)
        self.write(self.revision_link(digest, repo), str(digest).encode())
        for tag in tags:
            self.write(self.tag_link(tag, repo), str(digest).encode())
            self.history(tag, digest, repo)
        return digest

    def history(self, tag: str, digest: Digest, repo: str | None = None) -> None:
        self.write(self.place(repo) / "_manifests/tags" / tag / "index" / digest.algorithm / digest.encoded / "link",
                   str(digest).encode())

    def image(self, *tags: str, layers: tuple[bytes, ...] = (b"layer",), config: bytes = b"{}",
              repo: str | None = None, **fields: Any) -> Digest:
        for data in (config, *layers):
            self.blob(data, repo)
        return self.manifest(image(layers, config=config, **fields), *tags, repo=repo)


class Zot:
    """A root folder of zot."""

    layout = "zot"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.repo = "team/app"
        for name in ("cache.db", "meta.db"):
            (folder / name).write_bytes(b"zot's own")
        (folder / "_trivy").mkdir()

    def place(self, repo: str | None = None) -> Path:
        return self.folder / (repo or self.repo)

    def data(self, digest: Digest, repo: str | None = None) -> Path:
        return self.place(repo) / "blobs" / digest.algorithm / digest.encoded

    def blob(self, data: bytes, repo: str | None = None, *, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(data, algorithm)
        path = self.data(digest, repo)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    def listed(self, repo: str | None = None) -> list[dict[str, Any]]:
        path = self.place(repo) / "index.json"
        return json.loads(path.read_bytes())["manifests"] if path.exists() else []

    def list(self, entries: list[dict[str, Any]], repo: str | None = None) -> None:
        place = self.place(repo)
        (place / ".uploads").mkdir(parents=True, exist_ok=True)
        (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))

    def manifest(self, raw: bytes, *tags: str, repo: str | None = None, algorithm: str = "sha256") -> Digest:
        digest = self.blob(raw, repo, algorithm=algorithm)
        entry = descriptor(raw, json.loads(raw).get("mediaType", mediatype.OCI_MANIFEST), algorithm)
        entries = self.listed(repo)
        for tag in tags:
            entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})
        self.list(entries if tags else [*entries, entry], repo)
        return digest

    def image(self, *tags: str, layers: tuple[bytes, ...] = (b"layer",), config: bytes = b"{}",
              repo: str | None = None, **fields: Any) -> Digest:
        for data in (config, *layers):
            self.blob(data, repo)
        return self.manifest(image(layers, config=config, **fields), *tags, repo=repo)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Where the registry's data is (`settings`): links do not cross file systems."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def distribution(tmp_path: Path) -> Distribution:
    return Distribution(tmp_path / "old")


@pytest.fixture
def zot(tmp_path: Path) -> Zot:
    return Zot(tmp_path / "old")


@pytest.fixture
def make_image() -> Callable[..., bytes]:
    return image


@pytest.fixture
def make_index() -> Callable[..., bytes]:
    return index


@pytest.fixture
def describe() -> Callable[..., dict[str, Any]]:
    return descriptor


@dataclass
class Result:
    """What an import said, and what the registry then has."""

    entries: list[Entry]
    counts: Counts
    journal: Journal
    settings: Settings

    @property
    def damage(self) -> list[tuple[str, str]]:
        return sorted((entry.kind.code, entry.outcome.value) for entry in self.entries
                      if entry.outcome is not Outcome.NOTED)

    @property
    def notes(self) -> list[str]:
        return sorted(entry.kind.code for entry in self.entries if entry.outcome is Outcome.NOTED)

    def holding(self) -> dict[str, dict[str, str]]:
        """Repository → tag → digest, of everything that can be pulled whole; found by pulling it."""
        return asyncio.run(_holding(self.settings))

    def manifests(self) -> set[tuple[str, str]]:
        return asyncio.run(_manifests(self.settings))


async def _holding(settings: Settings) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    async with app.open_registry(settings, migrate=False) as registry:
        for row in await registry.content.tags.all():
            await _pull(registry, row.repo, row.tag)
            found.setdefault(str(row.repo), {})[str(row.tag)] = str(row.digest)
    return found


async def _pull(registry: app.Registry, repo: RepositoryName, reference: Tag | Digest) -> None:
    from ocispec import manifest as manifests
    stored = await registry.content.manifests.get(repo, reference)
    assert Digest.of(stored.raw, stored.digest.algorithm) == stored.digest
    parsed = manifests.parse(stored.raw, stored.media_type)
    for part in parsed.blobs:
        if part.urls:
            continue
        info = await registry.content.blobs.stat(repo, part.digest)
        data = b"".join([chunk async for chunk in registry.content.blobs.read(info)])
        assert (Digest.of(data, part.digest.algorithm), len(data)) == (part.digest, part.size)
    for child in parsed.children:
        from storage.repository.manifests import ManifestUnknown
        try:
            await _pull(registry, repo, child.digest)
        except ManifestUnknown:
            continue


async def _manifests(settings: Settings) -> set[tuple[str, str]]:
    async with app.open_registry(settings, migrate=False) as registry:
        return {(str(held.repo), str(held.digest)) for held in await registry.content.manifests.all()}


@pytest.fixture
def take(settings: Settings) -> Callable[..., Result]:
    """`take(store)`: import it, as the command does."""

    def run(store: Any, *, mode: Mode = Mode.COPY, or_copy: bool = False, verify: bool = True, relink: bool = False,
            overwrite_tags: bool = False, dry_run: bool = False, source: str | None = None,
            endpoint: str | None = None) -> Result:
        entries: list[Entry] = []

        class Keep:
            def write(self, entry: Entry) -> None:
                entries.append(entry)

        journal, counts = Journal(Keep()), Counts()
        wanted = Import(store.layout, source or str(store.folder), Bytes(mode, or_copy, verify), relink,
                            overwrite_tags, 4, endpoint, dry_run)

        async def once() -> None:
            async with app.open_registry(settings, migrate=False) as registry:
                await take_over(wanted, registry.content.manifests, registry.intake, registry.leases, journal, counts)

        asyncio.run(once())
        return Result(entries, counts, journal, settings)

    return run


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything about a folder that an import must leave as it is, links and their count aside."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            status = path.lstat()
            data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
            found[str(path)] = (status.st_mode, status.st_uid, status.st_mtime_ns, data)
    return found


@pytest.fixture
def unchanged() -> Callable[[Path], dict[str, tuple[Any, ...]]]:
    return snapshot


