"""The registry upon a bucket: what clients see, where their bytes come from, and a replica that dies in mid-chunk."""

import asyncio
import io
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ocispec.digest import Digest
from registry.settings import PREFIX, InvalidSettings, S3Settings, Settings
from tests import s3
from tests.faulty import Fault, proxying

MIB = 1024 * 1024


@pytest.fixture
def bucket(settings: Settings, s3_options) -> Settings:
    section = S3Settings(
        bucket=s3_options.bucket, prefix=s3_options.prefix, endpoint=s3_options.endpoint, region=s3_options.region,
        path_style=True, access_key=s3_options.access_key, secret_key=s3_options.secret_key,
        part_size=s3_options.part_size, spool=str(s3_options.spool))
    return replace(settings, s3=section)


@pytest.fixture
async def api(serve, bucket) -> AsyncIterator[Any]:
    async with serve(bucket) as started:
        yield started


@pytest.fixture
async def redirecting(serve, bucket) -> AsyncIterator[Any]:
    async with serve(replace(bucket, s3=replace(bucket.s3, redirect=True))) as started:
        yield started


def names(server: s3.S3Server, settings: Settings) -> set[str]:
    """Everything that is stored, unfinished uploads too."""
    client, where = server.client(), {"Bucket": settings.s3.bucket, "Prefix": settings.s3.prefix}
    objects = client.list_objects_v2(**where).get("Contents", ())
    uploads = client.list_multipart_uploads(**where).get("Uploads", ())
    return {item["Key"] for item in objects} | {f"{item['Key']}?uploads" for item in uploads}


async def test_push_and_pull(api, bucket, s3_server):
    data = os.urandom(3 * MIB + 17)
    digest = await api.image("latest", layer=data)
    layer = Digest.of(data)
    async with api.get(f"/v2/team/app/manifests/{digest}") as answer:
        assert json.loads(await answer.read())["layers"][0]["digest"] == str(layer)
    async with api.get(f"/v2/team/app/blobs/{layer}") as answer:
        assert answer.status == 200
        assert await answer.read() == data
        assert not [name for name in answer.headers if name.lower().startswith(("x-amz", "x-rgw"))]
        assert answer.headers["ETag"] == f'"{layer}"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    async with api.get(f"/v2/team/app/blobs/{layer}", headers={"Range": "bytes=1000000-1000009"}) as answer:
        assert answer.status == 206
        assert await answer.read() == data[1000000:1000010]
    found = names(s3_server, bucket)
    assert len(found) == 2, "config and layer, and nothing beside them"
    assert all(re.fullmatch(re.escape(bucket.s3.prefix) + r"/data/[0-9a-f]{2}/[0-9a-f]{32}", name) for name in found)


async def test_nothing_and_blobs_of_every_algorithm(api):
    for algorithm in ("sha256", "sha512"):
        for size in (0, 1, 400_000):
            data = os.urandom(size)
            digest = await api.blob(data, algorithm=algorithm)
            async with api.get(f"/v2/team/app/blobs/{digest}") as answer:
                assert await answer.read() == data


async def test_a_large_blob_under_another_algorithm_than_was_announced(api, bucket, s3_server):
    """Its parts cannot be read back before they are one object; a wrong digest still leaves the session."""
    data = os.urandom(MIB)
    location = await api.begin()
    async with api.patch(location, data=data[:700_000]) as answer:
        assert answer.status == 202
    async with api.put(f"{location}?digest={Digest.of(data, 'sha512')}") as answer:
        assert answer.status == 400
    async with api.get(location) as answer:
        assert answer.headers["Range"] == "0-699999"
    async with api.patch(location, data=data[700_000:], headers={"Content-Range": f"700000-{MIB - 1}"}) as answer:
        assert answer.status == 202, await answer.text()
    async with api.put(f"{location}?digest={Digest.of(data, 'sha512')}") as answer:
        assert answer.status == 201, await answer.text()
    async with api.get(f"/v2/team/app/blobs/{Digest.of(data, 'sha512')}") as answer:
        assert await answer.read() == data
    assert len(names(s3_server, bucket)) == 1


async def test_a_redirect_goes_to_the_bytes_and_needs_no_credentials_there(redirecting):
    data = os.urandom(500_000)
    digest = await redirecting.blob(data)
    async with redirecting.get(f"/v2/team/app/blobs/{digest}", allow_redirects=False) as answer:
        assert answer.status == 307
        location = answer.headers["Location"]
        assert answer.headers["Docker-Content-Digest"] == str(digest)
        assert answer.headers["Cache-Control"] == "no-store"
        assert "seawallsecret" not in location
        assert digest.encoded not in location
    async with aiohttp.ClientSession() as other, other.get(location, headers={"Range": "bytes=5-9"}) as answer:
        assert answer.status == 206
        assert await answer.read() == data[5:10]
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment"
    async with redirecting.get(f"/v2/team/app/blobs/{digest}") as answer:
        assert await answer.read() == data


async def test_clients_may_know_the_service_by_another_name(serve, bucket, s3_server):
    async with proxying(s3_server.port) as proxy:
        section = replace(bucket.s3, redirect=True, redirect_endpoint=proxy.endpoint)
        async with serve(replace(bucket, s3=section)) as api:
            digest = await api.blob(b"some bytes")
            assert not proxy.seen
            async with api.get(f"/v2/team/app/blobs/{digest}") as answer:
                assert await answer.read() == b"some bytes"
            assert len(proxy.seen) == 1


async def test_a_head_is_never_redirected_nor_a_copy_that_is_there_already(redirecting):
    digest = await redirecting.blob(b"some bytes")
    async with redirecting.head(f"/v2/team/app/blobs/{digest}", allow_redirects=False) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Length"] == "10"
        etag = answer.headers["ETag"]
    async with redirecting.get(f"/v2/team/app/blobs/{digest}", allow_redirects=False,
                               headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304


async def test_bytes_that_somebody_removed_behind_our_back_are_unknown(api, bucket, s3_server, refused):
    digest = await api.blob(b"some bytes")
    (name,) = names(s3_server, bucket)
    s3_server.client().delete_object(Bucket=bucket.s3.bucket, Key=name)
    await refused(api.get(f"/v2/team/app/blobs/{digest}"), 404, "BLOB_UNKNOWN")


async def test_a_bucket_that_does_not_answer_is_a_503_that_names_no_endpoint(serve, bucket, s3_server, refused):
    async with proxying(s3_server.port) as proxy:
        impatient = replace(bucket.s3, endpoint=proxy.endpoint, attempts=2)
        async with serve(replace(bucket, s3=impatient)) as api:
            digest = await api.blob(b"some bytes")
            proxy.next(Fault.SLOW_DOWN, times=2)
            error = await refused(api.get(f"/v2/team/app/blobs/{digest}"), 503, "UNAVAILABLE")
            assert "127.0.0.1" not in error["message"]
            assert "data/" not in error["message"]
            async with api.get(f"/v2/team/app/blobs/{digest}") as answer:
                assert await answer.read() == b"some bytes"


async def test_storage_that_fails_in_mid_patch_leaves_a_session_that_goes_on(serve, bucket, s3_server, refused):
    data = os.urandom(3 * MIB)
    async with proxying(s3_server.port) as proxy:
        impatient = replace(bucket.s3, endpoint=proxy.endpoint, attempts=2)
        async with serve(replace(bucket, s3=impatient)) as api:
            location = await api.begin()
            async with api.patch(location, data=data[:MIB]) as answer:
                assert answer.status == 202
            proxy.next(Fault.INTERNAL, lambda request: "partNumber=7" in request, times=2)
            await refused(api.patch(location, data=io.BytesIO(data[MIB:])), 503, "UNAVAILABLE")
            async with api.get(location) as answer:
                reached = int(answer.headers["Range"].partition("-")[2]) + 1
            assert reached == MIB
            async with api.put(f"{location}?digest={Digest.of(data)}", data=io.BytesIO(data[reached:])) as answer:
                assert answer.status == 201, await answer.text()
            async with api.get(f"/v2/team/app/blobs/{Digest.of(data)}") as answer:
                assert await answer.read() == data
    assert len(names(s3_server, bucket)) == 1


@asynccontextmanager
async def process(settings: Settings, folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """`seawall-registry serve` as a process of its own; gives its URL."""
    section = {name: value for name, value in asdict(settings.s3).items() if value}
    environment = {f"{PREFIX}S3_{name.upper()}": str(value) for name, value in section.items()}
    # The smallest part of real S3 is the setting's floor: the test's server takes less, and the settings do not.
    environment[f"{PREFIX}S3_PART_SIZE"] = str(5 * MIB)
    command = [sys.executable, "-c", "import sys; from registry.cli import main; sys.exit(main())", "serve", "--data",
               str(settings.data), "--listen", "127.0.0.1:0", "--workers", "1"]
    started = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=folder, start_new_session=True,
        env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).resolve().parents[2])})
    try:
        assert started.stdout
        text = (await asyncio.wait_for(started.stdout.readline(), 60)).decode()
        found = re.search(r"127\.0\.0\.1:\d+", text)
        assert found, text
        yield f"http://{found[0]}", started
    finally:
        if started.returncode is None:
            os.killpg(started.pid, signal.SIGKILL)
        await started.wait()


async def test_killed_in_mid_chunk_another_replica_goes_on(bucket, s3_server, tmp_path, until):
    """Two processes with one database and one bucket. The first dies with parts sent that its row does not know."""
    data = os.urandom(30 * MIB)

    async def body(start: int, end: int, stop: asyncio.Event | None = None):
        for first in range(start, end, MIB):
            yield data[first : min(first + MIB, end)]
        if stop:
            await stop.wait()

    async with process(bucket, tmp_path) as (first, victim), process(bucket, tmp_path) as (second, _), \
            aiohttp.ClientSession() as session:
        async with session.post(f"{first}/v2/team/app/blobs/uploads/") as answer:
            location = answer.headers["Location"]
        async with session.patch(first + location, data=body(0, 12 * MIB)) as answer:
            assert answer.status == 202
        stop = asyncio.Event()
        hanging = asyncio.create_task(session.patch(first + location, data=body(12 * MIB, 30 * MIB, stop)).__aenter__())
        client = s3_server.client()

        def parts() -> int:
            where = {"Bucket": bucket.s3.bucket, "Prefix": bucket.s3.prefix}
            found = client.list_multipart_uploads(**where).get("Uploads", ())
            return sum(len(client.list_parts(Bucket=bucket.s3.bucket, Key=item["Key"], UploadId=item["UploadId"])
                           .get("Parts", ())) for item in found)

        await until(lambda: asyncio.to_thread(lambda: parts() >= 4), within=30)
        os.killpg(victim.pid, signal.SIGKILL)
        await victim.wait()
        hanging.cancel()
        await asyncio.wait([hanging])
        async with session.get(second + location) as answer:
            assert answer.status == 204
            reached = int(answer.headers["Range"].partition("-")[2]) + 1
        assert reached == 12 * MIB
        headers = {"Content-Range": f"{reached}-{30 * MIB - 1}", "Content-Length": str(30 * MIB - reached)}
        async with session.patch(second + location, data=body(reached, 30 * MIB), headers=headers) as answer:
            assert answer.status == 202, await answer.text()
        async with session.put(f"{second}{location}?digest={Digest.of(data)}") as answer:
            assert answer.status == 201, await answer.text()
        async with session.get(f"{second}/v2/team/app/blobs/{Digest.of(data)}") as answer:
            assert await answer.read() == data
    assert len(names(s3_server, bucket)) == 1


@pytest.mark.parametrize(("section", "named"), [
    ({"checksum": "sha1"}, "s3.checksum"), ({"encryption": "rot13"}, "s3.encryption"),
    ({"encryption_key": "x"}, "s3.encryption_key"), ({"access_key": "x"}, "s3.secret_key"),
    ({"endpoint": "ftp://x"}, "s3.endpoint"), ({"redirect_endpoint": "x"}, "s3.redirect_endpoint"), ({"part_size": MIB}, "s3.part_size"), ({"threads": 0}, "s3.threads"),
    ({"redirect_expires": 1e9}, "s3.redirect_expires"), ({"attempts": 0}, "s3.attempts"),
])
def test_what_cannot_be_right_is_named(section, named):
    with pytest.raises(InvalidSettings, match=named):
        S3Settings(**{"bucket": "b", **section}).check()


def test_secrets_are_not_shown():
    section = S3Settings(access_key="id", secret_key="hush", session_token="hush")
    for shown in (section, section.options(), Settings(s3=section)):
        assert "hush" not in repr(shown)


def test_a_bucket_that_is_not_there_is_named(settings, s3_server):
    import registry.app

    missing = replace(settings, s3=S3Settings(
        bucket="absent-bucket", endpoint=s3_server.endpoint, region="us-east-1", path_style=True, access_key=s3.ACCESS,
        secret_key=s3.SECRET))
    with pytest.raises(Exception, match="absent-bucket"):
        registry.app.migrate(missing)
