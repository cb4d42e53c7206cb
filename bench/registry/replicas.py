"""Replicas on one Postgres: pushes through all of them by 64 clients, and what the promise costs a read.

    .venv/bin/python bench/registry/replicas.py --postgres URL [--replicas 3] [--clients 64] [--seconds 8]

The URL is of a server whose user may create databases. A push is a blob of 1 KiB and a manifest with one tag. Each
measure is taken with writers beside each other, as they are, and with one writer at a time, as SQLite has it (the
replicas are started with that patched in), in one run. Reads: `wrk`, a manifest by tag, one worker, beside SQLite.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg

from ocispec.digest import Digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SERVE = "from registry.cli import main; main()"
ALONE = ("from storage.metadata.engine import Database; write = Database.write; "
         f"Database.write = lambda self, *, beside=False: write(self); {SERVE}")


@asynccontextmanager
async def replica(program: str, database: str, folder: Path) -> AsyncIterator[str]:
    environment = {**os.environ, "SEAWALL_REGISTRY_DATABASE": database, "SEAWALL_REGISTRY_DATA": str(folder)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "serve", "--listen", "127.0.0.1:0", "--workers", "1", env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    try:
        assert process.stdout
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        found = re.search(r"http://\S+", line)
        if found is None:
            sys.exit(f"a replica does not start: {line}")
        yield found[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def push(client: aiohttp.ClientSession, url: str, repo: str, tag: str) -> None:
    data = os.urandom(1024)
    digest = Digest.of(data)
    async with client.post(f"{url}/v2/{repo}/blobs/uploads/") as answer:
        location = answer.headers["Location"]
    async with client.put(f"{url}{location}?digest={digest}", data=data) as answer:
        assert answer.status == 201, await answer.text()
    layer = {"mediaType": "application/octet-stream", "digest": str(digest), "size": len(data)}
    raw = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": layer, "layers": [layer]}).encode()
    async with client.put(f"{url}/v2/{repo}/manifests/{tag}", data=raw, headers={"Content-Type": MANIFEST}) as answer:
        assert answer.status == 201, await answer.text()


async def pushes(urls: list[str], clients: int, seconds: float, repositories: int) -> float:
    """A second."""
    done, over = 0, time.monotonic() + seconds
    turns = itertools.cycle(urls)

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        nonlocal done
        while time.monotonic() < over:
            await push(client, next(turns), f"bench/app{number % repositories}", f"t{number}")
            done += 1

    begun = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client, asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(one(client, number))
    return done / (time.monotonic() - begun)


async def reads(url: str, seconds: float) -> float:
    async with aiohttp.ClientSession() as client:
        await push(client, url, "bench/read", "latest")
    process = await asyncio.create_subprocess_exec(
        "wrk", "-c32", "-t1", f"-d{int(seconds)}", f"{url}/v2/bench/read/manifests/latest",
        stdout=subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    if "Non-2xx" in output or process.returncode:
        sys.exit(output)
    return float(next(line.split()[1] for line in output.splitlines() if line.startswith("Requests/sec")))


async def main(options: argparse.Namespace) -> None:
    base, _, query = options.postgres.partition("?")
    admin = await asyncpg.connect(options.postgres.replace("postgresql+asyncpg", "postgresql"))
    folder = Path(tempfile.mkdtemp(prefix="seawall-replicas-", dir="/dev/shm"))
    names = [f"bench_{os.getpid()}_{number}" for number in range(3)]
    urls = []
    for name in names:
        await admin.execute(f"CREATE DATABASE {name}")
        urls.append(f"{base.rpartition('/')[0]}/{name}?{query}")
    try:
        for what, repositories in (("64 repositories", 64), ("one repository", 1)):
            for label, program, url in (("beside each other", SERVE, urls[0]), ("one at a time", ALONE, urls[1])):
                async with AsyncExitStack() as stack:
                    started = [await stack.enter_async_context(replica(program, url, folder / label[:3]))
                               for _ in range(options.replicas)]
                    rate = await pushes(started, options.clients, options.seconds, repositories)
                print(f"| pushes/s, {what}, writers {label} | {rate:.0f} |", flush=True)
        async with replica(SERVE, f"sqlite+aiosqlite:///{folder}/bench.db", folder / "lite") as lite, \
                replica(SERVE, urls[2], folder / "pg") as postgres:
            rates: dict[str, list[float]] = {"SQLite": [], "Postgres": []}
            for _ in range(3):
                rates["SQLite"].append(await reads(lite, options.seconds / 2))
                rates["Postgres"].append(await reads(postgres, options.seconds / 2))
        for label, values in rates.items():
            print(f"| manifest GET/s, one worker, {label} | {sorted(values)[1]:,.0f} |", flush=True)
    finally:
        for name in names:
            with contextlib.suppress(asyncpg.PostgresError):
                await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8)
    asyncio.run(main(parser.parse_args()))
