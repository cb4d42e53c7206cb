"""Listings of a registry with 100,000 repositories, and one with 100,000 tags: time from request to the whole answer.

    .venv/bin/python bench/registry/listings.py [--count 100000] [--postgres URL] [--rounds 30]

Fills the database by SQL (half of the repositories hold nothing and must not be shown, nor cost anything), starts
`seawall-registry serve` with one worker and asks over one kept connection; the median and the slowest of the rounds
count. `--postgres` takes the URL of an empty database that may be filled.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from ocispec.digest import Digest
from storage.metadata import tables
from storage.metadata.engine import open_database

BIG = "team/many-tags"


async def fill(url: str, count: int) -> None:
    now = datetime.now(UTC)
    async with open_database(url) as database, database.write() as tx:
        names = [f"team{number % 100:02d}/app-{number:06d}" for number in range(count * 2)]
        for first in range(0, len(names), 5000):
            await tx.execute(sa.insert(tables.repositories), [
                {"name": name, "created": now, "pushed": now, "generation": 0, "filled": bool(number % 2)}
                for number, name in enumerate(names[first : first + 5000])])
        await tx.execute(sa.insert(tables.repositories).values(name=BIG, created=now, pushed=now, generation=0,
                                                               filled=True))
        rows = (await tx.execute(sa.select(tables.repositories.c.id, tables.repositories.c.name)
                                 .where(tables.repositories.c.filled))).all()
        digest = Digest.of(b"{}")
        for first in range(0, len(rows), 5000):
            await tx.execute(sa.insert(tables.manifests), [
                {"repository_id": row.id, "digest": digest, "media_type": "application/vnd.oci.image.index.v1+json",
                 "artifact_type": "", "subject": None, "size": 2, "raw": b"{}", "pushed": now, "touched": now,
                 "pinned": True} for row in rows[first : first + 5000]])
        big = next(row.id for row in rows if row.name == BIG)
        manifest = await tx.scalar(sa.select(tables.manifests.c.id).where(tables.manifests.c.repository_id == big))
        for first in range(0, count, 5000):
            await tx.execute(sa.insert(tables.tags), [
                {"repository_id": big, "name": f"v1.{number // 1000}.{number % 1000}-{number:06d}",
                 "manifest_id": manifest, "updated": now} for number in range(first, min(first + 5000, count))])


@contextlib.contextmanager
def serving(folder: Path, url: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("seawall-registry"), "serve", "--data", folder, "--listen",
               f"127.0.0.1:{port}", "--workers", "1", "--database", url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit("the registry does not start")
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def ask(connection: http.client.HTTPConnection, path: str, rounds: int) -> tuple[float, float, int]:
    """Milliseconds, median and worst, and how many entries came."""
    took, entries = [], 0
    for _ in range(rounds + 2):  # the first two are to warm up
        begun = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        took.append((time.perf_counter() - begun) * 1000)
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status} {body[:200]!r}")
        document = json.loads(body)
        entries = len(document.get("tags") or document.get("repositories") or document.get("results") or ())
    return statistics.median(took[2:]), max(took[2:]), entries


def measure(label: str, url: str, folder: Path, options: argparse.Namespace) -> None:
    asyncio.run(fill(url, options.count))
    last_tag = f"v1.{options.count // 2000}.999-"
    cases = {
        "tags, first 100": f"/v2/{BIG}/tags/list?n=100",
        "tags, 100 in the middle": f"/v2/{BIG}/tags/list?n=100&last={last_tag}",
        "tags, first 1,000": f"/v2/{BIG}/tags/list?n=1000",
        "tags, no n (10,000)": f"/v2/{BIG}/tags/list",
        "catalog, first 100": "/v2/_catalog?n=100",
        "catalog, 100 in the middle": "/v2/_catalog?n=100&last=team50/",
        "catalog, 100 near the end": "/v2/_catalog?n=100&last=team98/",
        "catalog, first 1,000": "/v2/_catalog?n=1000",
        "catalog, no n (10,000)": "/v2/_catalog",
        "docker search, one found": f"/v1/search?q={options.count - 1:06d}",
        "docker search, all found": "/v1/search?q=app",
        "docker search, none found": "/v1/search?q=nothing-like-it",
    }
    with serving(folder, url) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for what, path in cases.items():
            median, worst, entries = ask(connection, path, options.rounds)
            print(f"| {label} | {what} | {entries:,} | {median:.1f} | {worst:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--postgres", default="")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seawall-listings-", dir="/dev/shm"))
    print("| database | listing | entries | median ms | worst ms |\n|---|---|---|---|---|")
    try:
        measure("SQLite", f"sqlite+aiosqlite:///{folder}/registry.db", folder, options)
        if options.postgres:
            measure("Postgres", options.postgres, folder, options)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
