"""GET, HEAD and DELETE of blobs."""

import asyncio

import pytest

from ocispec.digest import Digest

BIG = 3_000_000
UNKNOWN = Digest.of(b"never pushed")


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, BIG])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_what_was_pushed_comes_back(api, noise, size, algorithm) -> None:
    data = noise(size)
    digest = await api.blob(data, algorithm=algorithm)
    for method in ("HEAD", "GET"):
        async with api.request(method, f"/v2/{api.repo}/blobs/{digest}") as answer:
            assert answer.status == 200
            assert answer.headers["Docker-Content-Digest"] == str(digest)
            assert answer.headers["ETag"] == f'"{digest}"'
            assert answer.headers["Content-Length"] == str(size)
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert await answer.read() == (data if method == "GET" else b"")


@pytest.mark.parametrize("size", [2000, BIG])
@pytest.mark.parametrize(("header", "first", "last"), [
    ("bytes=500-1499", 500, 1499), ("bytes=500-", 500, None), ("bytes=-500", -500, None), ("bytes=0-0", 0, 0),
    ("bytes=1999-99999999", 1999, None),
])
async def test_parts(api, noise, size, header, first, last) -> None:
    data = noise(size)
    digest = await api.blob(data)
    async with api.get(f"/v2/{api.repo}/blobs/{digest}", headers={"Range": header}) as answer:
        start = first if first >= 0 else size + first
        end = size - 1 if last is None else last
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{end}/{size}"
        assert answer.headers["Content-Length"] == str(end - start + 1)
        assert await answer.read() == data[start:end + 1]


@pytest.mark.parametrize("header", ["bytes=500-0", "bytes=2000-", "bytes=2000-3000", "bytes=-0"])
async def test_parts_that_are_not_there(api, noise, refused, header) -> None:
    digest = await api.blob(noise(2000))
    path = f"/v2/{api.repo}/blobs/{digest}"
    await refused(api.get(path, headers={"Range": header}), 416, "RANGE_INVALID")
    async with api.get(path, headers={"Range": header}) as answer:
        assert answer.headers["Content-Range"] == "bytes */2000"


@pytest.mark.parametrize("header", ["bytes=0-1,4-5", "lines=0-1", "bytes=x-y"])
async def test_ranges_that_are_ignored(api, noise, header) -> None:
    data = noise(100)
    digest = await api.blob(data)
    async with api.get(f"/v2/{api.repo}/blobs/{digest}", headers={"Range": header}) as answer:
        assert (answer.status, await answer.read()) == (200, data)


async def test_a_range_counts_only_for_the_content_it_was_meant_for(api, noise) -> None:
    data = noise(100)
    digest = await api.blob(data)
    path = f"/v2/{api.repo}/blobs/{digest}"
    async with api.get(path, headers={"Range": "bytes=0-9", "If-Range": f'"{digest}"'}) as answer:
        assert (answer.status, await answer.read()) == (206, data[:10])
    async with api.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'}) as answer:
        assert (answer.status, await answer.read()) == (200, data)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("held", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
async def test_what_the_client_holds_is_not_sent(api, noise, method, held) -> None:
    digest = await api.blob(noise(100))
    path = f"/v2/{api.repo}/blobs/{digest}"
    async with api.request(method, path, headers={"If-None-Match": held.format(digest)}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
        assert answer.headers["ETag"] == f'"{digest}"'
    async with api.request(method, path, headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_unknown_and_malformed(api, refused, method) -> None:
    await api.blob(b"something")
    await refused(api.request(method, f"/v2/{api.repo}/blobs/{UNKNOWN}"), 404, "BLOB_UNKNOWN")
    await refused(api.request(method, f"/v2/no/such/repo/blobs/{UNKNOWN}"), 404, "BLOB_UNKNOWN")
    await refused(api.request(method, f"/v2/{api.repo}/blobs/sha256:abc"), 400, "DIGEST_INVALID")
    await refused(api.request(method, f"/v2/{api.repo}/blobs/md5:{'a' * 32}"), 400, "DIGEST_INVALID")
    await refused(api.request(method, f"/v2/UPPER/blobs/{UNKNOWN}"), 400, "NAME_INVALID")


async def test_heads_of_failures_have_no_body(api) -> None:
    async with api.head(f"/v2/{api.repo}/blobs/{UNKNOWN}") as answer:
        assert (answer.status, await answer.read()) == (404, b"")


@pytest.mark.parametrize("size", [10, BIG])
async def test_a_store_without_local_files(api, noise, monkeypatch, size) -> None:
    data = noise(size)
    digest = await api.blob(data)
    monkeypatch.setattr(api.registry.content.blobs, "local_path", lambda _info: None)
    path = f"/v2/{api.repo}/blobs/{digest}"
    for _ in range(2):
        async with api.get(path) as answer:
            assert (answer.status, await answer.read()) == (200, data)
        async with api.get(path, headers={"Range": "bytes=2-7"}) as answer:
            assert (answer.status, await answer.read()) == (206, data[2:8])


async def test_a_blob_is_reached_through_its_own_repository_alone(api, refused, noise) -> None:
    digest = await api.blob(noise(10), repo="one")
    await api.blob(b"x", repo="two")
    await refused(api.get(f"/v2/two/blobs/{digest}"), 404, "BLOB_UNKNOWN")


async def test_delete(api, noise, refused) -> None:
    data = noise(10)
    digest = await api.blob(data, repo="one")
    await api.blob(data, repo="two")
    path = f"/v2/one/blobs/{digest}"
    async with api.get(path) as answer:
        assert answer.status == 200
    async with api.delete(path) as answer:
        assert answer.status == 202
    await refused(api.get(path), 404, "BLOB_UNKNOWN")
    await refused(api.delete(path), 404, "BLOB_UNKNOWN")
    async with api.get(f"/v2/two/blobs/{digest}") as answer:
        assert await answer.read() == data


async def test_bytes_that_vanished_are_an_unknown_blob(api, noise, refused) -> None:
    digest = await api.blob(noise(BIG))
    path = f"/v2/{api.repo}/blobs/{digest}"
    async with api.get(path) as answer:
        assert answer.status == 200
    from ocispec.reference import RepositoryName
    info = await api.registry.content.blobs.stat(RepositoryName(api.repo), digest)
    file = api.registry.content.blobs.local_path(info)
    await asyncio.to_thread(file.unlink)
    await refused(api.get(path), 404, "BLOB_UNKNOWN")
