"""A content store in a temporary folder with a clock that the test turns, and a way to fill it."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.disk import DiskBlobs
from storage.metadata.blobs import BlobInfo
from storage.metadata.engine import Database, open_database
from storage.metadata.manifests import StoredManifest
from storage.repository.store import ContentStore


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)
        self.tick = timedelta(microseconds=1)

    def __call__(self) -> datetime:
        self.time += self.tick
        return self.time

    def turn(self, **by: float) -> None:
        self.time += timedelta(**by)


class Filler:
    """Puts content into a store in one call each."""

    def __init__(self, content: ContentStore) -> None:
        self.content = content
        self.repo = RepositoryName.parse("team/app")

    async def blob(self, data: bytes, *, repo: RepositoryName | None = None, algorithm: str = "sha256") -> BlobInfo:
        upload = await self.content.uploads.start(repo or self.repo, algorithm)
        await upload.append(chunks(data))
        return await upload.commit(Digest.of(data, algorithm))

    async def image(self, *layers: bytes, tags: tuple[str, ...] = (), repo: RepositoryName | None = None,
                    subject: Descriptor | None = None, artifact_type: str = "", config: bytes = b"{}",
                    pinned: bool = True) -> StoredManifest:
        held = [await self.blob(layer, repo=repo) for layer in (config, *layers)]
        manifest = image(held[0], *held[1:], subject=subject, artifact_type=artifact_type)
        return await self.content.manifests.put(repo or self.repo, manifest, tags=[Tag(tag) for tag in tags],
                                                pinned=pinned)

    async def index(self, *children: StoredManifest, tags: tuple[str, ...] = (),
                    repo: RepositoryName | None = None) -> StoredManifest:
        return await self.content.manifests.put(repo or self.repo, index(*children), tags=[Tag(tag) for tag in tags])


def image(config: BlobInfo, *layers: BlobInfo, subject: Descriptor | None = None, artifact_type: str = "",
          layer_type: str = mediatype.OCI_LAYER) -> Manifest:
    document = {
        "schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_CONFIG, "digest": str(config.digest), "size": config.size},
        "layers": [{"mediaType": layer_type, "digest": str(layer.digest), "size": layer.size} for layer in layers],
        "annotations": {"made": "here"},
    }
    if subject:
        document["subject"] = subject.to_json()
    if artifact_type:
        document["artifactType"] = artifact_type
    return manifests.parse(json.dumps(document).encode())


def index(*children: StoredManifest) -> Manifest:
    listed = [{"mediaType": child.media_type, "digest": str(child.digest), "size": len(child.raw)}
              for child in children]
    return manifests.parse(json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX,
                                       "manifests": listed}).encode())


async def chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for first in range(0, len(data), size):
        yield data[first : first + size]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database at the newest revision, to be copied: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "content.db"

    async def migrate() -> None:
        async with open_database(f"sqlite+aiosqlite:///{path}"):
            pass

    asyncio.run(migrate())
    return path


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite; with SEAWALL_TEST_DATABASE=postgres these tests run upon Postgres."""
    if os.environ.get("SEAWALL_TEST_DATABASE") == "postgres":
        server = request.getfixturevalue("postgres")
        return server.url(asyncio.run(server.new_database()))
    shutil.copy(request.getfixturevalue("migrated"), tmp_path / "content.db")
    return f"sqlite+aiosqlite:///{tmp_path}/content.db"


@pytest.fixture
async def database(database_url: str, clock: Clock) -> AsyncIterator[Database]:
    async with open_database(database_url, clock=clock) as opened:
        yield opened


@pytest.fixture
async def blobs(tmp_path: Path) -> DiskBlobs:
    store = DiskBlobs(tmp_path / "content")
    await store.prepare()
    return store


@pytest.fixture
def content(database: Database, blobs: DiskBlobs) -> ContentStore:
    return ContentStore(database, blobs)


@pytest.fixture
def fill(content: ContentStore) -> Filler:
    return Filler(content)


@pytest.fixture
def stream():
    """`stream(data)`: the chunks of an upload's body."""
    return chunks


@pytest.fixture
def make_image():
    return image


@pytest.fixture
def make_index():
    return index
