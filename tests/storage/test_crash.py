"""SIGKILL between any two steps: what is found afterwards is consistent, goes on, and loses no room for ever."""

import asyncio
import hashlib
import json
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ocispec import manifest as manifests
from ocispec.digest import Digest, new_hasher
from ocispec.reference import RepositoryName
from storage.blobs.disk import DiskBlobs
from storage.blobs.s3.store import S3Blobs
from storage.blobs.store import BlobStore
from storage.gc.sweep import Collector
from storage.metadata import tables
from storage.metadata.engine import open_database
from storage.repository.store import ContentStore
from storage.uploads.errors import UploadUnknown
from tests import s3

PROGRAM = Path(__file__).with_name("crashing.py")
REPO = RepositoryName.parse("team/app")
STEPS = ["created", "written", "written:9", "flushed:2", "flushed:4", "closed:2", "sealing:2", "sealed", "sealed:2",
         "deleting", "deleting:2", "deleted:2"]


async def run_until(folder: Path, step: str, seconds: float | None = None, bucket: str | None = None) -> list[str]:
    """Run the program to its step (or for so long) and kill it; gives the ids of its uploads."""
    process = await asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), str(folder), step,
                                                   *([bucket] if bucket else []), stdout=asyncio.subprocess.PIPE)
    uploads: list[str] = []

    async def read() -> None:
        assert process.stdout
        async for raw in process.stdout:
            word, _, rest = raw.decode().strip().partition(" ")
            if word == "upload":
                uploads.append(rest)
            elif word == step.partition(":")[0]:
                return
        raise AssertionError(f"ended before it was {step}")

    try:
        await asyncio.wait_for(read(), seconds or 60)
    except TimeoutError:
        assert seconds, f"never was {step}"
    finally:
        process.kill()
        await process.wait()
    return uploads


async def check(folder: Path, uploads: list[str], blobs: BlobStore) -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    async with open_database(f"sqlite+aiosqlite:///{folder}/content.db", clock=lambda: later) as database:
        content = ContentStore(database, blobs)
        await every_row_has_its_bytes(database, blobs)
        await every_tag_is_whole(content, blobs)
        await every_session_goes_on(content, uploads)
        await content.uploads.expire(timedelta(0))
        await Collector(database, blobs).run(grace=timedelta(minutes=1))
        await every_row_has_its_bytes(database, blobs)
        async with database.read() as tx:
            wanted = set(await tx.scalars(sa.select(tables.blobs.c.key)))
            assert not (await tx.execute(sa.select(tables.tombstones))).all()
        assert {item.key async for item in blobs.list()} == wanted


async def every_row_has_its_bytes(database, blobs) -> None:
    async with database.read() as tx:
        rows = (await tx.execute(sa.select(tables.blobs.c.digest, tables.blobs.c.key, tables.blobs.c.size))).all()
    for digest, key, size in rows:
        hasher = new_hasher(digest.algorithm)
        data = b"".join([chunk async for chunk in blobs.read(key)])
        hasher.update(data)
        assert (hasher.hexdigest(), len(data)) == (digest.encoded, size)


async def every_tag_is_whole(content, blobs) -> None:
    for row in await content.tags.all():
        stored = await content.manifests.get(row.repo, row.tag)
        for descriptor in manifests.parse(stored.raw).blobs:
            info = await content.blobs.stat(row.repo, descriptor.digest)
            assert await blobs.size(info.key) == descriptor.size


async def every_session_goes_on(content, uploads: list[str]) -> None:
    for upload_id in uploads:
        try:
            upload = await content.uploads.get(REPO, upload_id)
        except UploadUnknown:
            continue  # committed
        # The program's layers repeat a hash of 32 bytes, its config is `{}`: go on from whatever is durable.
        whole = hashlib.sha256(b"1").digest() * 4000

        async def rest(offset: int = upload.offset, data: bytes = whole):
            yield data[offset:]

        if upload.offset == 2:
            await upload.commit(Digest.of(b"{}"))
        elif upload.offset < len(whole):
            await upload.append(rest(), at=upload.offset)
            await upload.commit(Digest.of(whole))
        else:
            await upload.commit(Digest.of(whole))


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at(step, tmp_path):
    uploads = await run_until(tmp_path, step)
    blobs = DiskBlobs(tmp_path / "content")
    await blobs.prepare()
    await check(tmp_path, uploads, blobs)


@pytest.mark.parametrize("step", ["created", "written:9", "written:12", "flushed:2", "flushed:4", "closed:2", "resumed:2",
                                  "sealing:2", "sealing:3", "sealed", "deleting", "deleted:2"])
async def test_killed_at_upon_a_bucket(step, tmp_path, s3_options):
    """Its parts are so small that a layer is two of them and a tail."""
    options = {**asdict(replace(s3_options, part_size=s3.PART)), "spool": str(tmp_path), "authorities": None}
    uploads = await run_until(tmp_path, step, bucket=json.dumps(options))
    blobs = S3Blobs(replace(s3_options, part_size=s3.PART))
    await blobs.prepare()
    await check(tmp_path, uploads, blobs)
    blobs.close()


async def test_killed_whenever_again_and_again(tmp_path):
    """Upon the same store, at times that nobody chose."""
    uploads: list[str] = []
    for turn in range(4):
        uploads += await run_until(tmp_path, "never", seconds=0.7 + turn * 0.11)
        blobs = DiskBlobs(tmp_path / "content")
        async with open_database(f"sqlite+aiosqlite:///{tmp_path}/content.db") as database:
            await every_row_has_its_bytes(database, blobs)
            await every_tag_is_whole(ContentStore(database, blobs), blobs)
