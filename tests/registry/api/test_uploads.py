"""Uploads: every way to push a blob, and every way to get it wrong."""

from dataclasses import replace

import pytest

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.auth.policy import Action, OpenPolicy
from registry.settings import UploadSettings

DATA = b"0123456789" * 100
DIGEST = Digest.of(DATA)
OTHER = Digest.of(b"other")
OCTETS = {"Content-Type": "application/octet-stream"}


async def in_pieces(*pieces: bytes):
    for piece in pieces:
        yield piece


async def assert_holds(api, data: bytes, digest: Digest, repo: str | None = None) -> None:
    async with api.get(f"/v2/{repo or api.repo}/blobs/{digest}") as answer:
        assert (answer.status, await answer.read()) == (200, data)


async def assert_offset(api, location: str, offset: int) -> None:
    async with api.get(location) as answer:
        assert answer.status == 204
        assert answer.headers["Range"] == f"0-{max(offset - 1, 0)}"
        assert answer.headers["Location"] == location
        assert answer.headers["Docker-Upload-UUID"] == location.rsplit("/", 1)[1]


async def assert_created(answer, digest: Digest, repo: str) -> None:
    assert answer.status == 201, await answer.text()
    assert answer.headers["Location"] == f"/v2/{repo}/blobs/{digest}"
    assert answer.headers["Docker-Content-Digest"] == str(digest)


async def test_post_then_put(api) -> None:
    async with api.post(f"/v2/{api.repo}/blobs/uploads/") as answer:
        assert answer.status == 202
        assert answer.headers["Range"] == "0-0"
        location = answer.headers["Location"]
        assert location == f"/v2/{api.repo}/blobs/uploads/{answer.headers['Docker-Upload-UUID']}"
    async with api.put(f"{location}?digest={DIGEST}", data=DATA, headers=OCTETS) as answer:
        await assert_created(answer, DIGEST, api.repo)
    await assert_holds(api, DATA, DIGEST)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_monolithic_post(api, algorithm) -> None:
    digest = Digest.of(DATA, algorithm)
    async with api.post(f"/v2/{api.repo}/blobs/uploads/?digest={digest}", data=DATA) as answer:
        await assert_created(answer, digest, api.repo)
    await assert_holds(api, DATA, digest)


async def test_the_empty_blob(api) -> None:
    digest = Digest.of(b"")
    async with api.post(f"/v2/{api.repo}/blobs/uploads/?digest={digest}") as answer:
        await assert_created(answer, digest, api.repo)
    async with api.put(f"{await api.begin('other')}?digest={digest}") as answer:
        await assert_created(answer, digest, "other")
    await assert_holds(api, b"", digest)


@pytest.mark.parametrize("hint", ["sha256", "sha512"])
async def test_digest_algorithm_is_a_hint(api, hint) -> None:
    for digest in (DIGEST, Digest.of(DATA, "sha512")):
        async with api.post(f"/v2/{hint}/blobs/uploads/?digest-algorithm={hint}") as answer:
            assert answer.status == 202
            location = answer.headers["Location"]
        async with api.patch(location, data=DATA) as answer:
            assert answer.status == 202
        async with api.put(f"{location}?digest={digest}") as answer:
            await assert_created(answer, digest, hint)


async def test_one_streamed_patch(api) -> None:
    location = await api.begin()
    async with api.patch(location, data=in_pieces(DATA[:1], DATA[1:500], DATA[500:]), headers=OCTETS) as answer:
        assert answer.status == 202
        assert answer.headers["Range"] == f"0-{len(DATA) - 1}"
        assert answer.headers["Location"] == location
    async with api.put(f"{location}?digest={DIGEST}") as answer:
        await assert_created(answer, DIGEST, api.repo)


@pytest.mark.parametrize("last_with_put", [True, False])
async def test_chunks(api, last_with_put) -> None:
    location = await api.begin()
    for first, last in ((0, 399), (400, 799)):
        headers = {"Content-Range": f"{first}-{last}", **OCTETS}
        async with api.patch(location, data=DATA[first:last + 1], headers=headers) as answer:
            assert answer.status == 202
            assert answer.headers["Range"] == f"0-{last}"
    rest = {"headers": {"Content-Range": "800-999"}, "data": DATA[800:]}
    if not last_with_put:
        async with api.patch(location, **rest) as answer:
            assert answer.status == 202
        rest = {}
    async with api.put(f"{location}?digest={DIGEST}", **rest) as answer:
        await assert_created(answer, DIGEST, api.repo)
    await assert_holds(api, DATA, DIGEST)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(api, refused, method) -> None:
    location = await api.begin()
    async with api.patch(location, data=DATA[:400], headers={"Content-Range": "0-399"}):
        pass
    for first, last in ((600, 999), (0, 399), (399, 999)):
        wrong = {"data": DATA[first:last + 1], "headers": {"Content-Range": f"{first}-{last}"}}
        await refused(api.request(method, f"{location}?digest={DIGEST}", **wrong), 416, "BLOB_UPLOAD_INVALID")
        async with api.request(method, f"{location}?digest={DIGEST}", **wrong) as answer:
            assert answer.headers["Range"] == "0-399"
            assert answer.headers["Location"] == location
    await assert_offset(api, location, 400)
    async with api.put(f"{location}?digest={DIGEST}", data=DATA[400:],
                       headers={"Content-Range": "400-999"}) as answer:
        await assert_created(answer, DIGEST, api.repo)


@pytest.mark.parametrize("header", ["x", "5-4", "400-", "-400", "0-1,2-3", ""])
async def test_malformed_content_range(api, refused, header) -> None:
    location = await api.begin()
    await refused(api.patch(location, data=b"abc", headers={"Content-Range": header}), 400, "BLOB_UPLOAD_INVALID")
    await assert_offset(api, location, 0)


async def test_a_chunk_has_the_length_it_says(api, refused) -> None:
    location = await api.begin()
    await refused(api.patch(location, data=b"abc", headers={"Content-Range": "0-9"}), 400, "SIZE_INVALID")
    await assert_offset(api, location, 0)
    for pieces in ((b"ab", b"c"), (b"0123456789", b"more")):
        location = await api.begin()
        await refused(api.patch(location, data=in_pieces(*pieces), headers={"Content-Range": "0-9"}), 400,
                      "SIZE_INVALID")


async def test_status_and_cancel(api, refused) -> None:
    location = await api.begin()
    await assert_offset(api, location, 0)
    async with api.patch(location, data=DATA):
        pass
    await assert_offset(api, location, len(DATA))
    async with api.delete(location) as answer:
        assert answer.status == 204
    for method in ("GET", "PATCH", "DELETE"):
        await refused(api.request(method, location), 404, "BLOB_UPLOAD_UNKNOWN")
    await refused(api.put(f"{location}?digest={DIGEST}"), 404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("upload", ["nonsense", "00000000-0000-0000-0000-000000000000", "..%2F..%2Fetc", "a" * 3000])
async def test_unknown_sessions(api, refused, upload) -> None:
    path = f"/v2/{api.repo}/blobs/uploads/{upload}"
    for method in ("GET", "PATCH", "DELETE"):
        async with api.request(method, path) as answer:
            assert answer.status == 404
    async with api.put(f"{path}?digest={DIGEST}", data=DATA) as answer:
        assert answer.status == 404


async def test_a_session_belongs_to_its_repository(api, refused) -> None:
    location = await api.begin("one")
    await api.blob(b"x", repo="two")
    stolen = location.replace("/v2/one/", "/v2/two/")
    await refused(api.get(stolen), 404, "BLOB_UPLOAD_UNKNOWN")
    await refused(api.patch(stolen, data=b"mine"), 404, "BLOB_UPLOAD_UNKNOWN")
    await refused(api.delete(stolen), 404, "BLOB_UPLOAD_UNKNOWN")
    await assert_offset(api, location, 0)


@pytest.mark.parametrize("query", ["", "?digest=", "?digest=sha256:short", "?digest=md5:0123", "?digest=%00"])
async def test_put_wants_a_digest(api, refused, query) -> None:
    location = await api.begin()
    await refused(api.put(f"{location}{query}", data=DATA), 400, "DIGEST_INVALID")
    await assert_offset(api, location, 0)


async def test_a_wrong_digest_leaves_the_session(api, refused) -> None:
    location = await api.begin()
    async with api.patch(location, data=DATA[:500]):
        pass
    error = await refused(api.put(f"{location}?digest={OTHER}"), 400, "DIGEST_INVALID")
    assert error["detail"] == {"expected": str(OTHER), "actual": str(Digest.of(DATA[:500]))}
    async with api.put(f"{location}?digest={DIGEST}", data=DATA[500:]) as answer:
        await assert_created(answer, DIGEST, api.repo)
    await refused(api.get(f"/v2/{api.repo}/blobs/{OTHER}"), 404, "BLOB_UNKNOWN")


async def test_a_failed_monolithic_post_leaves_nothing(api, settings, refused, until) -> None:
    await refused(api.post(f"/v2/{api.repo}/blobs/uploads/?digest={OTHER}", data=DATA), 400, "DIGEST_INVALID")
    await refused(api.get(f"/v2/{api.repo}/blobs/{OTHER}"), 404, "BLOB_UNKNOWN")
    assert not [path for path in settings.data.rglob("content/data/*/*") if path.is_file()]


@pytest.mark.parametrize(("query", "code"), [
    ("digest=sha256:xyz", "DIGEST_INVALID"), ("digest-algorithm=md5", "DIGEST_INVALID"),
    ("mount=sha256:xyz&from=a", "DIGEST_INVALID"), (f"mount={DIGEST}&from=UPPER", "NAME_INVALID"),
])
async def test_malformed_posts(api, refused, query, code) -> None:
    await refused(api.post(f"/v2/{api.repo}/blobs/uploads/?{query}"), 400, code)


async def test_mount(api) -> None:
    await api.blob(DATA, repo="source")
    async with api.post(f"/v2/target/blobs/uploads/?mount={DIGEST}&from=source") as answer:
        await assert_created(answer, DIGEST, "target")
    await assert_holds(api, DATA, DIGEST, "target")


@pytest.mark.parametrize("query", [f"mount={OTHER}&from=source", f"mount={DIGEST}&from=absent", f"mount={OTHER}"])
async def test_what_cannot_be_mounted_becomes_an_upload(api, refused, query) -> None:
    await api.blob(DATA, repo="source")
    async with api.post(f"/v2/target/blobs/uploads/?{query}") as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
    await refused(api.get(f"/v2/target/blobs/{DIGEST}"), 404, "BLOB_UNKNOWN")
    async with api.put(f"{location}?digest={DIGEST}", data=DATA) as answer:
        await assert_created(answer, DIGEST, "target")


async def test_automatic_content_discovery(api) -> None:
    await api.blob(DATA, repo="source")
    async with api.post(f"/v2/target/blobs/uploads/?mount={DIGEST}") as answer:
        await assert_created(answer, DIGEST, "target")


async def test_automatic_content_discovery_can_be_off(serve, settings) -> None:
    async with serve(replace(settings, uploads=UploadSettings(mount_from_any=False))) as api:
        await api.blob(DATA, repo="source")
        async with api.post(f"/v2/target/blobs/uploads/?mount={DIGEST}") as answer:
            assert answer.status == 202


async def test_only_what_may_be_pulled_is_discovered(api, refused, monkeypatch) -> None:
    await api.blob(DATA, repo="secret")
    monkeypatch.setattr(OpenPolicy, "allows", lambda _self, _who, action, name: (
        action is not Action.PULL or str(name) != "secret"))
    for query in (f"mount={DIGEST}", f"mount={DIGEST}&from=secret"):
        async with api.post(f"/v2/target/blobs/uploads/?{query}") as answer:
            assert answer.status == 202
    await refused(api.get(f"/v2/target/blobs/{DIGEST}"), 404, "BLOB_UNKNOWN")
    await api.blob(DATA, repo="public")
    async with api.post(f"/v2/target/blobs/uploads/?mount={DIGEST}") as answer:
        await assert_created(answer, DIGEST, "target")


@pytest.mark.parametrize(("least", "header"), [(1000, "1000"), (0, None)])
async def test_advice_about_chunks(serve, settings, least, header) -> None:
    async with serve(replace(settings, uploads=UploadSettings(chunk_min_bytes=least))) as api:
        async with api.post("/v2/a/blobs/uploads/") as answer:
            assert answer.headers.get("OCI-Chunk-Min-Length") == header
            location = answer.headers["Location"]
        for number in range(3):  # it is advice
            async with api.patch(location, data=b"x", headers={"Content-Range": f"{number}-{number}"}) as answer:
                assert answer.status == 202


@pytest.mark.parametrize("announced", [True, False])
async def test_blobs_have_a_largest_size(impatient, refused, announced) -> None:
    data = bytes(100_001)
    body = {"data": data if announced else in_pieces(data[:50_000], data[50_000:])}
    await refused(impatient.post(f"/v2/a/blobs/uploads/?digest={Digest.of(data)}", **body), 413, "SIZE_INVALID")
    location = await impatient.begin()
    async with impatient.patch(location, data=data[:100_000]) as answer:
        assert answer.status == 202
    await refused(impatient.patch(location, data=b"x" if announced else in_pieces(b"x")), 413, "SIZE_INVALID")


async def test_a_client_that_leaves_can_go_on_where_it_was(api, until, noise) -> None:
    data = noise(2_000_000)
    location = await api.begin()
    async with api.raw() as raw:
        raw.send(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                 + data[:1_234_567])
        await raw.writer.drain()
    repo, upload = RepositoryName(api.repo), location.rsplit("/", 1)[1]

    async def kept() -> bool:
        return (await api.registry.content.uploads.get(repo, upload)).offset > 0

    await until(kept)
    async with api.get(location) as answer:
        offset = int(answer.headers["Range"].split("-")[1]) + 1
    assert offset == 1_234_567
    digest = Digest.of(data)
    async with api.put(f"{location}?digest={digest}", data=data[offset:],
                       headers={"Content-Range": f"{offset}-{len(data) - 1}"}) as answer:
        await assert_created(answer, digest, api.repo)
    await assert_holds(api, data, digest)


async def test_a_client_that_stalls_is_let_go_and_can_go_on(impatient) -> None:
    location = await impatient.begin()
    async with impatient.raw() as raw:
        raw.send(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode() + DATA[:400])
        status, _, body = await raw.answer()
        assert (status, b"BLOB_UPLOAD_INVALID" in body) == (408, True)
    await assert_offset(impatient, location, 400)


async def test_two_writers_of_one_upload(api, refused) -> None:
    location = await api.begin()
    async with api.raw() as raw:
        raw.send(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(DATA)}\r\n"
                 "Expect: 100-continue\r\n\r\n")
        assert (await raw.head())[0] == 100  # asked for by the session itself: it is taken
        await refused(api.patch(location, data=b"mine"), 409, "BLOB_UPLOAD_INVALID")
        await refused(api.put(f"{location}?digest={DIGEST}"), 409, "BLOB_UPLOAD_INVALID")
        await refused(api.delete(location), 409, "BLOB_UPLOAD_INVALID")
        raw.send(DATA)
        assert (await raw.head())[0] == 202
    async with api.put(f"{location}?digest={DIGEST}") as answer:
        await assert_created(answer, DIGEST, api.repo)


async def test_a_broken_transfer_coding(api) -> None:
    location = await api.begin()
    async with api.raw() as raw:
        raw.send(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nXX\r\n")
        status, _, _ = await raw.answer()
        assert status == 400


async def test_the_body_is_asked_for_only_when_it_is_wanted(api) -> None:
    location = await api.begin()
    async with api.raw() as raw:
        raw.send(f"PUT {location}?digest={DIGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(DATA)}\r\n"
                 "Expect: 100-continue\r\n\r\n")
        assert (await raw.head())[0] == 100
        raw.send(DATA)
        assert (await raw.head())[0] == 201
    async with api.raw() as raw:
        raw.send(f"PUT {location}?digest={DIGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(DATA)}\r\n"
                 "Expect: 100-continue\r\n\r\n")
        status, headers, _ = await raw.answer()
        assert (status, headers["connection"]) == (404, "close")
    async with api.raw() as raw:
        raw.send(f"PATCH {await api.begin()} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: miracles\r\n\r\n")
        assert (await raw.head())[0] == 417


async def test_content_encoding_changes_nothing(api) -> None:
    import gzip
    packed = gzip.compress(DATA)
    digest = Digest.of(packed)
    async with api.put(f"{await api.begin()}?digest={digest}", data=packed,
                       headers={"Content-Encoding": "gzip"}) as answer:
        await assert_created(answer, digest, api.repo)
