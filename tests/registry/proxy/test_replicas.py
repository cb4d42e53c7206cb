"""Two registries that share database and bucket, and no folder: one brings a blob, the other waits for it."""

import asyncio
from dataclasses import replace

import aiohttp
import pytest

from registry.settings import S3Settings, Settings

from .conftest import upstream

REPO = "up.test/team/app"


@pytest.fixture
def bucket(settings: Settings, s3_options) -> Settings:
    return replace(settings, s3=S3Settings(
        bucket=s3_options.bucket, prefix=s3_options.prefix, endpoint=s3_options.endpoint, region=s3_options.region,
        path_style=True, access_key=s3_options.access_key, secret_key=s3_options.secret_key,
        part_size=s3_options.part_size, spool=str(s3_options.spool)))


async def test_one_download_for_both(hostile, serve, bucket, noise) -> None:
    data = noise(12_000_000)
    digest = hostile.blob("team/app", data)
    hostile.pause_after = 8_000_000
    shared = replace(bucket, upstreams=(upstream(hostile.url),))

    async def whole(api) -> bytes:
        async with api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
            assert answer.status == 200
            return await answer.read()

    async with serve(shared) as one, serve(shared) as two, one.get(f"/v2/{REPO}/blobs/{digest}") as first:
        assert await first.content.readexactly(6_000_000) == data[:6_000_000]
        waiting = asyncio.create_task(whole(two))
        async with one.get(f"/v2/{REPO}/blobs/{digest}", headers={"Range": "bytes=1000000-"}) as late:
            assert await late.content.readexactly(5_000_000) == data[1_000_000:6_000_000]
            hostile.gate.set()
            assert await late.read() == data[6_000_000:]
        assert await first.read() == data[6_000_000:]
        assert await waiting == data
        assert await whole(one) == await whole(two) == data
    assert hostile.count("GET", str(digest)) == 1


@pytest.mark.parametrize("size", [5_000, 9_000_000])
async def test_a_wrong_blob_leaves_no_bytes_in_the_bucket(hostile, serve, bucket, noise, s3_server, size) -> None:
    from ocispec.digest import Digest

    data = noise(size)
    digest = Digest.of(data)
    hostile.content[f"/v2/team/app/blobs/{digest}"] = ("application/octet-stream", noise(size))
    async with serve(replace(bucket, upstreams=(upstream(hostile.url),))) as api:
        with pytest.raises(aiohttp.ClientError):
            async with api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
                await answer.read()
        client, where = s3_server.client(), {"Bucket": bucket.s3.bucket, "Prefix": bucket.s3.prefix}
        assert not client.list_objects_v2(**where).get("Contents")
        assert not client.list_multipart_uploads(**where).get("Uploads")
        hostile.content[f"/v2/team/app/blobs/{digest}"] = ("application/octet-stream", data)
        async with api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
            assert await answer.read() == data
