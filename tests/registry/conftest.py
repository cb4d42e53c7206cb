"""A registry on a real port in a temporary folder, and a client that knows how to push."""

import asyncio
import base64
import io
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ocispec import mediatype
from ocispec.digest import Digest
from registry import app
from registry.app import Registry
from registry.settings import AuthSettings, LimitSettings, Settings
from registry.tls import Certificates
from registry.workers import listen

MEMORY = Path("/dev/shm")


class Raw:
    """A connection on which a test says exactly what it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (names in lower case) of the next answer."""
        async with asyncio.timeout(10):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = text.strip().split("\r\n")
        return int(first.split()[1]), {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in lines}

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        async with asyncio.timeout(10):
            return status, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def ended(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class Api:
    """A client of one registry."""

    def __init__(self, session: aiohttp.ClientSession, address: tuple[str, int], registry: Registry) -> None:
        self.session = session
        self.address = address
        self.registry = registry
        self.repo = "team/app"
        self.certificates: Certificates | None = None
        self.request = session.request
        self.get, self.head, self.put = session.get, session.head, session.put
        self.post, self.patch, self.delete = session.post, session.patch, session.delete

    async def begin(self, repo: str | None = None) -> str:
        async with self.post(f"/v2/{repo or self.repo}/blobs/uploads/") as answer:
            assert answer.status == 202, await answer.text()
            return answer.headers["Location"]

    async def blob(self, data: bytes, *, repo: str | None = None, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(data, algorithm)
        async with self.put(f"{await self.begin(repo)}?digest={digest}", data=io.BytesIO(data)) as answer:
            assert answer.status == 201, await answer.text()
        return digest

    async def image(self, *tags: str, repo: str | None = None, layer: bytes = b"layer", **fields: Any) -> Digest:
        raw = await self.document(repo=repo, layer=layer, **fields)
        digest = Digest.of(raw)
        for reference in tags or (str(digest),):
            async with self.manifest(reference, raw, repo=repo) as answer:
                assert answer.status == 201, await answer.text()
        return digest

    async def document(self, *, repo: str | None = None, layer: bytes = b"layer", **fields: Any) -> bytes:
        """The bytes of an image manifest whose blobs are there."""
        config = fields.pop("config", b"{}")
        return json.dumps({
            "schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": mediatype.OCI_CONFIG, "size": len(config),
                       "digest": str(await self.blob(config, repo=repo))},
            "layers": [{"mediaType": mediatype.OCI_LAYER, "size": len(layer),
                        "digest": str(await self.blob(layer, repo=repo))}],
            **fields,
        }).encode()

    def manifest(self, reference: str, raw: bytes, *, repo: str | None = None,
                 kind: str = mediatype.OCI_MANIFEST) -> Any:
        return self.put(f"/v2/{repo or self.repo}/manifests/{reference}", data=raw, headers={"Content-Type": kind})

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[Raw]:
        connection = Raw(*await asyncio.open_connection(*self.address, limit=1 << 20))
        try:
            yield connection
        finally:
            await connection.close()


async def fails(request: Any, status: int, code: str) -> dict[str, Any]:
    """The request is refused like this, in the spec's form; gives the error."""
    async with request as answer:
        text = await answer.text()
        assert answer.status == status, text
        assert answer.content_type == "application/json"
        (error,) = json.loads(text)["errors"]
        assert error["code"] == code, error
        assert error["message"]
        return error


@pytest.fixture
def refused():
    """`await refused(request, status, code)`."""
    return fails


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database at the newest revision: migrating takes longer than most tests."""
    data = tmp_path_factory.mktemp("registry")
    app.migrate(Settings(data=data))
    return data / "registry.db"


@pytest.fixture
def settings(migrated: Path) -> Iterator[Settings]:
    """In memory where that is possible: hundreds of tests that each sync a few files would wait for the disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        data = Path(folder)
        shutil.copy(migrated, data / "registry.db")
        yield Settings(data=data, listen="127.0.0.1:0")


Serve = Callable[[Settings], AbstractAsyncContextManager[Api]]


@pytest.fixture
def serve() -> Serve:
    """`async with serve(settings) as api`: a registry in this process."""

    @asynccontextmanager
    async def start(settings: Settings) -> AsyncIterator[Api]:
        (sockets,) = listen(*settings.address, 1, settings.limits.send_timeout)
        host, port = sockets[0].getsockname()[:2]
        scheme = "https" if settings.tls.certificate else "http"
        async with (
            app.open_registry(settings) as registry,
            app.serving(settings, registry, sockets) as certificates,
            aiohttp.ClientSession(f"{scheme}://{host}:{port}", connector=aiohttp.TCPConnector(ssl=False)) as session,
        ):
            api = Api(session, (host, port), registry)
            api.certificates = certificates
            yield api

    return start


@pytest.fixture
async def api(serve: Serve, settings: Settings) -> AsyncIterator[Api]:
    async with serve(settings) as started:
        yield started


PASSWORD = "correct horse"


@pytest.fixture
async def guarded(serve: Serve, settings: Settings) -> AsyncIterator[Api]:
    """A registry with accounts: `ann` and `bob` (password `PASSWORD`), `root` who administers; `team/**` is ann's and
    group `dev` (bob) may pull it, `drop/**` lets bob add, `public/**` is for everybody to pull, `team/secret/**` for
    nobody."""
    async with serve(replace(settings, auth=AuthSettings(mode="accounts"))) as started:
        identity = started.registry.identity
        for name, groups in (("ann", ()), ("bob", ("dev",))):
            await identity.accounts.add(name, PASSWORD, groups=groups)
        await identity.accounts.add("root", PASSWORD, admin=True)
        for pattern, subject, words in (
                ("team/**", "user:ann", "pull,push,delete"), ("team/**", "group:dev", "pull"),
                ("drop/**", "user:bob", "pull,create"), ("public/**", "anonymous", "pull"),
                ("public/**", "user:ann", "push"), ("team/secret/**", "user:nobody", "pull")):
            await identity.policies.set(pattern, subject, words.split(","))
        yield started


def as_user(name: str, password: str = PASSWORD) -> dict[str, str]:
    """The header of a name and a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.fixture
def basic():
    """`basic(name, password=…)`."""
    return as_user


@pytest.fixture
async def impatient(serve: Serve, settings: Settings) -> AsyncIterator[Api]:
    """A registry that waits for nobody."""
    limits = LimitSettings(idle_timeout=0.4, receive_timeout=0.4, send_timeout=0.4, blob_bytes=100_000, page_size=3,
                           tags_per_push=3)
    async with serve(replace(settings, limits=limits)) as started:
        yield started


@pytest.fixture
def noise() -> Callable[[int], bytes]:
    """`noise(size)`: bytes that no other test has."""
    return os.urandom
