"""Clients push, repeat, move, mount, index and delete over HTTP while a registry collects all the time with a grace of
seconds and is killed (SIGKILL) at every step of collecting and at any moment. In the end all that is referenced is there
with the right bytes, and nothing else is.

`SEAWALL_STRESS=n` makes it n times as long.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import sqlalchemy as sa

from ocispec import mediatype
from ocispec.digest import Digest
from storage.blobs.disk import DiskBlobs
from storage.gc.sweep import Collector
from storage.metadata import tables
from storage.metadata.engine import open_database
from storage.repository.store import ContentStore
from tests.contracts.collecting import STEPS

PROGRAM = Path(__file__).with_name("collecting.py")
GRACE = 4.0
TIMES = int(os.environ.get("SEAWALL_STRESS", "1"))
REPOS = ["team/a", "team/b", "other/c"]
LAYERS = [b"layer %d " % number * 300 for number in range(6)]
CLIENTS = 5

Gone = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError, asyncio.TimeoutError)


class Refused(Exception):
    """A push that took longer than the grace may be told that its blobs are gone."""


class Client:
    """Has its own tags and manifests, so that it knows what they may be; layers and repositories are everybody's.

    `may`: of each tag what it may name: more than one thing after an answer that never came.
    """

    def __init__(self, number: int, session: aiohttp.ClientSession, seed: int) -> None:
        self.number = number
        self.session = session
        self.random = random.Random(seed)
        self.may: dict[tuple[str, str], set[str | None]] = defaultdict(lambda: {None})
        self.pushed: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.made = self.done = self.lost = self.late = 0

    async def run(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            work = self.random.choices([self.push, self.again, self.index, self.untag, self.delete, self.read],
                                       [8, 2, 2, 2, 2, 2])[0]
            try:
                await work(self.random.choice(REPOS))
                self.done += 1
            except Gone:
                self.lost += 1
                await asyncio.sleep(0.05)
            except Refused:
                self.late += 1

    async def push(self, repo: str) -> None:
        self.made += 1
        config = b'{"client": %d}' % self.number
        layers = [*self.random.sample(LAYERS, 2), b"own %d %d " % (self.number, self.made) * 50]
        began = time.monotonic()
        for data in (config, *layers):
            await self.blob(repo, data)
        document = json.dumps({
            "schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": described(mediatype.OCI_CONFIG, config),
            "layers": [described(mediatype.OCI_LAYER, data) for data in layers],
            "annotations": {"made": f"{self.number}.{self.made}"}}).encode()
        await self.manifest(repo, document, mediatype.OCI_MANIFEST, began)

    async def blob(self, repo: str, data: bytes) -> None:
        """As clients do: ask, perhaps mount, else send."""
        digest = Digest.of(data)
        async with self.session.head(f"/v2/{repo}/blobs/{digest}") as answer:
            if answer.status == 200:
                return
        query = {"mount": str(digest), "from": self.random.choice(REPOS)} if self.random.random() < 0.4 else {}
        async with self.session.post(f"/v2/{repo}/blobs/uploads/", params=query) as answer:
            if answer.status == 201:
                return
            assert answer.status == 202, await answer.text()
            location = answer.headers["Location"]
        async with self.session.put(location, params={"digest": str(digest)}, data=data) as answer:
            if answer.status == 404:  # the same upload, sent again by the client library to the next registry
                raise ConnectionResetError
            assert answer.status == 201, await answer.text()

    async def manifest(self, repo: str, document: bytes, kind: str, began: float) -> None:
        tag = (repo, f"{'i' if kind == mediatype.OCI_INDEX else 't'}{self.number}-{self.random.randrange(3)}")
        digest = str(Digest.of(document))
        self.may[tag].add(digest)
        url = f"/v2/{repo}/manifests/{tag[1]}"
        async with self.session.put(url, data=document, headers={"Content-Type": kind}) as answer:
            if answer.status == 400 and time.monotonic() - began > GRACE * 0.6:
                raise Refused
            assert answer.status == 201, (await answer.text(), time.monotonic() - began)
        self.may[tag] = {digest}
        if kind == mediatype.OCI_MANIFEST:
            self.pushed[repo] = [*self.pushed[repo][-8:], (digest, len(document))]

    async def again(self, repo: str) -> None:
        """The same manifest once more, to whatever tag: its blobs are asked for first, as clients do."""
        if not self.pushed[repo]:
            return
        digest, _ = self.random.choice(self.pushed[repo])
        began = time.monotonic()
        async with self.session.get(f"/v2/{repo}/manifests/{digest}") as answer:
            if answer.status == 404:
                return
            assert answer.status == 200
            document = await answer.read()
        for part in [json.loads(document)["config"], *json.loads(document)["layers"]]:
            async with self.session.head(f"/v2/{repo}/blobs/{part['digest']}") as answer:
                if answer.status == 404:
                    return
        await self.manifest(repo, document, mediatype.OCI_MANIFEST, began)

    async def index(self, repo: str) -> None:
        began, children = time.monotonic(), []
        for digest, size in self.random.sample(self.pushed[repo], min(2, len(self.pushed[repo]))):
            async with self.session.head(f"/v2/{repo}/manifests/{digest}") as answer:
                if answer.status == 200:
                    children.append({"mediaType": mediatype.OCI_MANIFEST, "digest": digest, "size": size})
        if not children:
            return
        self.made += 1
        # Nothing in an index is deleted by its client: that would make it incomplete by order.
        named = {child["digest"] for child in children}
        self.pushed[repo] = [item for item in self.pushed[repo] if item[0] not in named]
        document = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": children,
                    "annotations": {"made": f"{self.number}.{self.made}"}}
        await self.manifest(repo, json.dumps(document).encode(), mediatype.OCI_INDEX, began)

    async def untag(self, repo: str) -> None:
        tag = (repo, f"{self.random.choice('it')}{self.number}-{self.random.randrange(3)}")
        self.may[tag].add(None)
        async with self.session.delete(f"/v2/{repo}/manifests/{tag[1]}") as answer:
            assert answer.status in (202, 404), await answer.text()
        self.may[tag] = {None}

    async def delete(self, repo: str) -> None:
        if not self.pushed[repo]:
            return
        digest, _ = self.pushed[repo].pop(self.random.randrange(len(self.pushed[repo])))
        named = [tag for tag, may in self.may.items() if tag[0] == repo and digest in may]
        for tag in named:
            self.may[tag].add(None)
        async with self.session.delete(f"/v2/{repo}/manifests/{digest}") as answer:
            assert answer.status in (202, 404), await answer.text()
        for tag in named:
            self.may[tag].discard(digest)

    async def read(self, repo: str) -> None:
        """A tag names one of what it may, and all of it can be fetched."""
        tag = (repo, f"t{self.number}-{self.random.randrange(3)}")
        async with self.session.get(f"/v2/{repo}/manifests/{tag[1]}") as answer:
            document = await answer.read()
            named = str(Digest.of(document)) if answer.status == 200 else None
            assert named in self.may[tag], (tag, named, self.may[tag])
        if named is not None:
            part = self.random.choice(json.loads(document)["layers"])
            async with self.session.get(f"/v2/{repo}/blobs/{part['digest']}") as answer:
                assert answer.status == 200
                assert str(Digest.of(await answer.read())) == part["digest"]


def described(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}


@contextlib.asynccontextmanager
async def registry(data: Path, url: str, port: int, step: str) -> AsyncIterator[asyncio.Task[None]]:
    """Gives a task that ends when the registry is at the step; kills it in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), str(data), url, str(port), str(GRACE), step, stdout=asyncio.subprocess.PIPE,
        cwd=PROGRAM.parents[2], env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])})
    assert process.stdout
    try:
        async with asyncio.timeout(60):
            while (line := await process.stdout.readline()) != b"ready\n":
                assert line, "it did not start"
        yield asyncio.create_task(until_at(process.stdout))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until_at(output: asyncio.StreamReader) -> None:
    while line := await output.readline():
        if line.startswith(b"at "):
            return
    raise AssertionError("the registry ended by itself")


@pytest.fixture
def data() -> AsyncIterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.timeout(170 + 60 * TIMES)
async def test_nothing_is_lost_and_nothing_stays(url: str, data: Path, request) -> None:
    if url.startswith("sqlite"):
        url = f"sqlite+aiosqlite:///{data}/registry.db"
    async with open_database(url):
        pass  # migrated
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chosen = random.Random(seed)
    steps = chosen.sample(STEPS, len(STEPS)) * TIMES if "sqlite" in url else chosen.sample(STEPS, 4) * TIMES
    ended, reached = asyncio.Event(), []
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as session:
        clients = [Client(number, session, seed + number) for number in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(ended))
            for step in [*steps, "never"]:
                async with registry(data, url, port, step) as at:
                    # Half of the time it is left at its step for a moment: the clients go on meanwhile.
                    patience = chosen.uniform(0.3, 1.5) if step == "never" else 6.0
                    await asyncio.wait([at], timeout=patience)
                    if at.done():
                        at.result()
                        reached.append(step)
                        await asyncio.sleep(chosen.choice([0, 0.2]))
                    at.cancel()
                    await asyncio.wait([at])
            ended.set()
    summary = {"reached": len(reached), "of": len(steps), "done": sum(c.done for c in clients),
               "lost": sum(c.lost for c in clients), "late": sum(c.late for c in clients)}
    print(summary)
    assert len(reached) >= len(steps) / 2, summary
    assert summary["done"] > 20 * len(steps) / 4, summary
    await check(url, data, clients)


async def check(url: str, data: Path, clients: list[Client]) -> None:
    blobs = DiskBlobs(data / "content")
    await blobs.prepare()
    async with open_database(url) as database:
        content = ContentStore(database, blobs)
        held = {(row.repo.value, row.tag.value): str(row.digest) for row in await content.tags.all()}
        for client in clients:
            for tag, may in client.may.items():
                assert held.get(tag) in may, (tag, held.get(tag), may)
        await everything_referenced_is_there(database, blobs)
        await content.uploads.expire(timedelta(0))
        collector = Collector(database, blobs, orphan_age=timedelta(0))
        # What nobody marked would stay here: turns find the garbage, a pass only the bytes that no row names.
        for _ in range(3):
            await collector.turn(grace=timedelta(0))
        await everything_referenced_is_there(database, blobs)
        await nothing_else_is_there(database)
        removed = (await collector.run(grace=timedelta(0))).removed
        assert {item.kind for item in removed} <= {"bytes"}
        async with database.read() as tx:
            keys = set(await tx.scalars(sa.select(tables.blobs.c.key)))
        assert {item.key async for item in blobs.list()} == keys
        after = {(row.repo.value, row.tag.value): str(row.digest) for row in await content.tags.all()}
        assert after == held


async def everything_referenced_is_there(database, blobs) -> None:
    """Of each tagged manifest, and of what it names, the row; of each blob the bytes."""
    m, r = tables.manifests, tables.manifest_references
    async with database.read() as tx:
        rows = (await tx.execute(sa.select(m.c.id, m.c.repository_id, m.c.digest, m.c.raw))).all()
        tagged = list(await tx.scalars(sa.select(tables.tags.c.manifest_id)))
        references = (await tx.execute(sa.select(r.c.manifest_id, r.c.digest, r.c.is_manifest))).all()
        links = {tuple(row) for row in await tx.execute(
            sa.select(tables.repository_blobs.c.repository_id, tables.blobs.c.digest)
            .join(tables.blobs, tables.blobs.c.id == tables.repository_blobs.c.blob_id))}
        stored = (await tx.execute(sa.select(tables.blobs.c.digest, tables.blobs.c.key, tables.blobs.c.size))).all()
    by_id = {row.id: row for row in rows}
    by_name = {(row.repository_id, row.digest): row for row in rows}
    named = defaultdict(list)
    for number, digest, is_manifest in references:
        named[number].append((digest, is_manifest))
    pending = list(tagged)
    while pending:
        row = by_id[pending.pop()]
        assert Digest.of(row.raw) == row.digest
        for digest, is_manifest in named[row.id]:
            if is_manifest:
                assert (row.repository_id, digest) in by_name, (row.repository_id, digest)
                pending.append(by_name[row.repository_id, digest].id)
            else:
                assert (row.repository_id, digest) in links, (row.repository_id, digest)
    for digest, key, size in stored:
        content = blobs.path(key).read_bytes()
        assert (Digest.of(content), len(content)) == (digest, size)


async def nothing_else_is_there(database) -> None:
    m, r, b, link = tables.manifests, tables.manifest_references, tables.blobs, tables.repository_blobs
    async with database.read() as tx:
        for table in (tables.uploads, tables.tombstones, tables.blob_reviews):
            assert not (await tx.execute(sa.select(table))).all(), table.name
        alive = set(await tx.scalars(sa.select(tables.tags.c.manifest_id)))
        parent = sa.alias(m)
        parents = (await tx.execute(
            sa.select(r.c.manifest_id, m.c.id).select_from(r).join(parent, parent.c.id == r.c.manifest_id)
            .join(m, sa.and_(m.c.digest == r.c.digest, m.c.repository_id == parent.c.repository_id))
            .where(r.c.is_manifest.is_(True)))).all()
        alive |= {child for parent, child in parents if parent in alive}
        assert set(await tx.scalars(sa.select(m.c.id))) == alive
        wanted = {tuple(row) for row in await tx.execute(
            sa.select(m.c.repository_id, b.c.id).join(r, r.c.manifest_id == m.c.id)
            .join(b, b.c.digest == r.c.digest).where(r.c.is_manifest.is_(False)))}
        assert {tuple(row) for row in await tx.execute(sa.select(link.c.repository_id, link.c.blob_id))} == wanted
        assert set(await tx.scalars(sa.select(b.c.id))) == {blob for _, blob in wanted}
        assert await tx.scalar(sa.select(sa.func.count()).select_from(b)) == len({blob for _, blob in wanted})
