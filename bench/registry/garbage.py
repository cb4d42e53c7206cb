"""What a push feels of garbage collection in a large repository.

    .venv/bin/python bench/registry/garbage.py [--manifests 100000] [--dead 50000] [--folder DIR]

Fills a SQLite database with one repository of so many manifests (a config and three layers each, layers shared by ten),
so many of them dead, then pushes manifests to it and to another repository, alone and while a pass collects. Both run
in one process and event loop, as in the registry's first worker: the worst case.
"""

import argparse
import asyncio
import hashlib
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.blobs.memory import MemoryBlobs
from storage.gc.sweep import Collector
from storage.metadata import tables
from storage.metadata.engine import Database, open_database
from storage.repository.store import ContentStore

GRACE = timedelta(days=1)
LARGE, OTHER = RepositoryName("large/app"), RepositoryName("other/app")


def digest(text: str) -> Digest:
    return Digest("sha256", hashlib.sha256(text.encode()).hexdigest())


async def fill(database: Database, count: int, dead: int) -> None:
    old = datetime.now(UTC) - timedelta(days=9)
    layers = count // 10 * 3
    async with database.write() as tx:
        await tx.execute(sa.insert(tables.repositories), [
            {"id": 1, "name": LARGE.value, "created": old, "pushed": old, "generation": 0, "dirty": old}])
    for first in range(0, count, 5000):
        numbers = range(first, min(first + 5000, count))
        async with database.write() as tx:
            await tx.execute(sa.insert(tables.manifests), [
                {"id": n + 1, "repository_id": 1, "digest": digest(f"m{n}"), "media_type": mediatype.OCI_MANIFEST,
                 "artifact_type": "", "subject": None, "size": 500, "pushed": old, "touched": old, "pinned": False,
                 "raw": b"x" * 500} for n in numbers])
            named = [(n, f"c{n}") for n in numbers] + [(n, f"l{(n // 10) * 3 + k}") for n in numbers for k in range(3)]
            await tx.execute(sa.insert(tables.manifest_references), [
                {"manifest_id": n + 1, "digest": digest(part), "is_manifest": False} for n, part in named])
            tagged = [n for n in numbers if n >= dead]
            if tagged:
                await tx.execute(sa.insert(tables.tags), [
                    {"repository_id": 1, "name": f"t{n}", "manifest_id": n + 1, "updated": old} for n in tagged])
    parts = [f"c{n}" for n in range(count)] + [f"l{n}" for n in range(layers)]
    for first in range(0, len(parts), 5000):
        async with database.write() as tx:
            some = list(enumerate(parts[first : first + 5000], first + 1))
            await tx.execute(sa.insert(tables.blobs), [
                {"id": n, "digest": digest(part), "key": f"key{n}", "size": 100, "created": old, "touched": old}
                for n, part in some])
            await tx.execute(sa.insert(tables.repository_blobs), [
                {"repository_id": 1, "blob_id": n, "linked": old} for n, _ in some])


async def body(data: bytes):
    yield data


async def push(content: ContentStore, repo: RepositoryName, number: int) -> float:
    """Seconds that storing a manifest took."""
    document = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "layers": [],
                "annotations": {"n": str(number)},
                "config": {"mediaType": mediatype.OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}}
    manifest = manifests.parse(json.dumps(document).encode())
    began = time.perf_counter()
    await content.manifests.put(repo, manifest, tags=[Tag("latest")])
    return time.perf_counter() - began


async def pushes(content: ContentStore, until: asyncio.Event, start: int) -> list[float]:
    times = []
    while not until.is_set():
        times.append(await push(content, (LARGE, OTHER)[len(times) % 2], start + len(times)))
        await asyncio.sleep(0.005)
    return times


def shown(times: list[float]) -> str:
    times = sorted(times)
    at = [times[min(int(len(times) * share), len(times) - 1)] for share in (0.5, 0.99, 0.999)]
    return (f"{len(times)} pushes, median {at[0] * 1e3:.1f} ms, p99 {at[1] * 1e3:.1f} ms, p99.9 {at[2] * 1e3:.1f} ms, "
            f"max {times[-1] * 1e3:.1f} ms, mean {statistics.mean(times) * 1e3:.1f} ms")


async def main(count: int, dead: int, folder: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{folder}/bench.db") as database:
        blobs = MemoryBlobs()
        content = ContentStore(database, blobs)
        await fill(database, count, dead)
        for repo in (LARGE, OTHER):
            upload = await content.uploads.start(repo)
            await upload.append(body(b"{}"))
            await upload.commit(Digest.of(b"{}"))
        alone = asyncio.Event()
        asyncio.get_running_loop().call_later(5, alone.set)
        print("alone:          ", shown(await pushes(content, alone, 0)))
        collector, done = Collector(database, blobs, rules=content.rules), asyncio.Event()
        pushing = asyncio.create_task(pushes(content, done, 10**6))
        began = time.perf_counter()
        report = await collector.turn(grace=GRACE)
        seconds = time.perf_counter() - began
        done.set()
        print("while it collects:", shown(await pushing))
        print(f"collected {dict(report.counts)} in {seconds:.1f} s; writer lock held "
              f"{report.longest_hold * 1e3:.1f} ms at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=int, default=100_000)
    parser.add_argument("--dead", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as made:
        asyncio.run(main(chosen.manifests, chosen.dead, Path(made)))
