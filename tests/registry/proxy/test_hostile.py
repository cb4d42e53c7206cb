"""Upstreams that are wrong, slow, gone or hostile: what is told, and that nothing of it is kept."""

import asyncio
import contextlib
import json
import time

import aiohttp
import pytest
from aiohttp import web

from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.proxy import fills, origins, transfer
from registry.proxy import manifests as proxied_manifests
from registry.settings import LimitSettings
from storage.errors import BlobUnknown
from storage.repository.manifests import ManifestUnknown

from .conftest import hostile_server, upstream

REPO = "up.test/team/app"
NAME = RepositoryName.parse(REPO)


def answering(status: int = 200, data: bytes = b"", **headers: str):
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=data,
                            headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


def breaking(hostile, after: int, times: int):
    """Serves as always, but breaks the connection `after` bytes into each of the first `times` answers."""
    left = [times]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if not left[0]:
            return await hostile.serve(request)
        left[0] -= 1
        _, data = hostile.content[request.path]
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in request.headers else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        response.content_length = len(data) - start
        await response.prepare(request)
        await response.write(data[start : start + after])
        request.transport.close()
        return response

    return answer


async def holds_blob(api, digest: Digest) -> bool:
    try:
        await api.registry.content.blobs.stat(NAME, digest)
    except BlobUnknown:
        return False
    return True


async def holds_manifest(api, reference: Digest) -> bool:
    try:
        await api.registry.content.manifests.get(NAME, reference)
    except ManifestUnknown:
        return False
    return True


@pytest.mark.parametrize("size", [1, 50_000, 3_000_000])
async def test_wrong_bytes_end_in_a_broken_connection_and_are_not_kept(hostile, through, noise, size) -> None:
    data = noise(size)
    digest = Digest.of(data)
    hostile.content[f"/v2/team/app/blobs/{digest}"] = ("application/octet-stream", noise(size))
    async with through(hostile.url) as api:
        with pytest.raises(aiohttp.ClientError):
            async with api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
                await answer.read()
        assert not await holds_blob(api, digest)
        hostile.content[f"/v2/team/app/blobs/{digest}"] = ("application/octet-stream", data)
        async with api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
            assert await answer.read() == data
        assert "Range" not in hostile.headers[-1]  # nothing of the wrong bytes was gone on from


async def test_a_broken_transfer_goes_on_where_it_broke(hostile, through, noise) -> None:
    data = noise(4_000_000)
    digest = hostile.blob("team/app", data)
    hostile.script[f"/v2/team/app/blobs/{digest}"] = breaking(hostile, 1_000_000, 2)
    async with through(hostile.url) as api, api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
        assert await answer.read() == data
    ranges = [sent.get("Range") for sent in hostile.headers]
    assert ranges[0] is None
    assert all(item is not None for item in ranges[1:])


async def test_an_upstream_that_ignores_ranges(hostile, through, noise) -> None:
    data = noise(2_000_000)
    digest = hostile.blob("team/app", data)
    path = f"/v2/team/app/blobs/{digest}"
    broken = breaking(hostile, 700_000, 1)

    async def whole(request):
        if hostile.count("GET", str(digest)) == 1:
            return await broken(request)
        return web.Response(body=data)

    hostile.script[path] = whole
    async with through(hostile.url) as api, api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
        assert await answer.read() == data


async def test_an_upstream_that_dies_leaves_nothing_and_the_next_try_goes_on(hostile, through, noise, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    data = noise(4_000_000)
    digest = hostile.blob("team/app", data)
    path = f"/v2/team/app/blobs/{digest}"
    hostile.script[path] = breaking(hostile, 2_500_000, 1)

    async def dead(request):
        request.transport.abort()
        return web.Response()

    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
            assert answer.headers["Content-Length"] == "4000000"
            await answer.content.readexactly(1_000_000)
            hostile.script[path] = dead
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        assert not await holds_blob(api, digest)
        del hostile.script[path]
        deadline = time.monotonic() + 15
        while True:  # it is left alone for a moment first
            async with api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
                if answer.status == 200:
                    assert await answer.read() == data
                    break
                assert answer.status == 502
                assert int(answer.headers["Retry-After"]) >= 1
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert hostile.headers[-1]["Range"].startswith("bytes=2")


@pytest.mark.parametrize("wrong", [
    answering(data=b"{" * 100_000), answering(data=b"{}"), answering(data=b"\x00\xff"), answering(data=b"[" * 5_000_000),
    answering(data=b'{"schemaVersion": 1}'), answering(data=b"x" * 5_000_000),
    answering(data=b'{"schemaVersion": 2}', Content_Encoding="gzip"),
    answering(status=302, Location="/v2/team/app/manifests/v1"), answering(status=302, Location="http://["),
    answering(status=302, Location="ftp://up.test/"), answering(status=302, Location="http://up.test.invalid/"),
    answering(status=418), answering(status=400),
])
async def test_documents_that_cannot_be_right(hostile, through, refused, wrong) -> None:
    hostile.every = wrong
    async with through(hostile.url) as api:
        digest = Digest.of(b"a manifest")
        error = await refused(api.get(f"/v2/{REPO}/manifests/v1"), 502, "UNAVAILABLE")
        assert "up.test" in error["message"]
        await refused(api.get(f"/v2/{REPO}/manifests/{digest}"), 502, "UNAVAILABLE")
        async with api.get(f"/v2/{REPO}/tags/list") as answer:
            assert answer.status in (200, 502)  # `{}` is a list without tags
        async with api.get(f"/v2/{REPO}/referrers/{digest}") as answer:
            assert answer.status == 502
        assert not await holds_manifest(api, digest)
        async with api.get("/v2/_catalog") as answer:
            assert (await answer.json())["repositories"] == []


async def test_manifests_under_another_digest(hostile, through, refused) -> None:
    real = hostile.image("team/app", "v1")
    other = Digest.of(b"another")
    hostile.content[f"/v2/team/app/manifests/{other}"] = hostile.content["/v2/team/app/manifests/v1"]
    _, raw = hostile.content["/v2/team/app/manifests/v1"]
    hostile.script["/v2/team/app/manifests/lies"] = answering(
        data=raw, Content_Type=mediatype.OCI_MANIFEST, Docker_Content_Digest=str(other))
    async with through(hostile.url) as api:
        for reference in (other, "lies"):
            await refused(api.get(f"/v2/{REPO}/manifests/{reference}"), 502, "UNAVAILABLE")
        assert not await holds_manifest(api, other)
        assert not await holds_manifest(api, real)


@pytest.mark.parametrize("told", [str(Digest.of(b"never there")), "nonsense", ""])
async def test_a_head_that_lies(hostile, through, told) -> None:
    """About a digest that is not there, or with no digest at all: the tag is fetched, or the copy stays."""
    hostile.image("team/app", "v1")
    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            raw = await answer.read()

        async def head(request):
            if request.method == "HEAD":
                return web.Response(headers={"Docker-Content-Digest": told} if told else {})
            return await hostile.serve(request)

        hostile.script["/v2/team/app/manifests/v1"] = head
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            if told:
                assert answer.status in (404, 502)
            else:
                assert await answer.read() == raw


async def test_a_blob_without_end(hostile, through, settings, serve, refused, noise) -> None:
    from dataclasses import replace
    sent = [0]

    async def endless(request):
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))
            sent[0] += 65536

    digest = Digest.of(b"endless")
    hostile.script[f"/v2/team/app/blobs/{digest}"] = endless
    limited = replace(settings, upstreams=(upstream(hostile.url),), limits=LimitSettings(blob_bytes=1_000_000))
    async with serve(limited) as api:
        await refused(api.get(f"/v2/{REPO}/blobs/{digest}"), 502, "UNAVAILABLE")
        large = hostile.blob("team/app", noise(1_000_001))
        await refused(api.get(f"/v2/{REPO}/blobs/{large}"), 502, "UNAVAILABLE")
    assert sent[0] < 20_000_000


async def test_a_document_without_end_or_byte_by_byte(hostile, through, refused, monkeypatch) -> None:
    monkeypatch.setattr(origins, "ANSWER_WITHIN", 0.5)
    monkeypatch.setattr(origins.Origin.ask, "__defaults__", (0.5,))

    async def drips(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    hostile.every = drips
    async with through(hostile.url) as api:
        await refused(api.get(f"/v2/{REPO}/manifests/v1"), 504, "UNAVAILABLE")


async def test_a_blob_that_comes_too_slowly(hostile, through, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "WINDOW", 0.3)

    async def drips(request):
        response = web.StreamResponse()
        response.content_length = 100_000
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    hostile.every = drips
    async with through(hostile.url) as api, api.get(f"/v2/{REPO}/blobs/{Digest.of(b'slow')}") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_stale_copies_while_it_fails_and_fresh_ones_after(hostile, through) -> None:
    first = hostile.image("team/app", "v1", b"one")
    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            assert "Warning" not in answer.headers
        hostile.every = answering(status=503)
        for _ in range(30):
            async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
                assert answer.headers["Docker-Content-Digest"] == str(first)
                assert answer.headers["Warning"].startswith('299 - "stale: last checked 2')
                assert "stale" in answer.headers["Cache-Status"]
        assert hostile.count("HEAD", "/v1") <= 4  # two tries, and another once the pause was over
        hostile.every = None
        second = hostile.image("team/app", "v1", b"two")
        deadline = time.monotonic() + 20
        while True:
            async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
                if answer.headers["Docker-Content-Digest"] == str(second):
                    assert "Warning" not in answer.headers
                    break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_429_is_obeyed_and_passed_on(hostile, through, refused) -> None:
    hostile.image("team/app", "v1")
    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            assert answer.status == 200
        hostile.every = answering(status=429, Retry_After="300")
        asked = hostile.seen.total()
        for _ in range(10):
            async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
                assert answer.status == 200
                assert "429" in answer.headers["Warning"] or "failed" in answer.headers["Warning"]
            async with api.get(f"/v2/{REPO}/manifests/new") as answer:
                assert answer.status == 429
                assert 290 <= int(answer.headers["Retry-After"]) <= 300
            await refused(api.get(f"/v2/{REPO}/blobs/{Digest.of(b'new')}"), 429, "TOOMANYREQUESTS")
        assert hostile.seen.total() == asked + 1


@pytest.mark.parametrize("status", [401, 403])
async def test_what_it_denies_is_denied(hostile, through, refused, status) -> None:
    hostile.image("team/app", "v1")
    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            assert answer.status == 200
        hostile.every = answering(status=status)
        await refused(api.get(f"/v2/{REPO}/manifests/v1"), 403, "DENIED")


async def test_nobody_waits_twice_for_an_upstream_that_answers_nothing(hostile, through, monkeypatch) -> None:
    monkeypatch.setattr(proxied_manifests, "CHECK_WITHIN", 0.5)
    hostile.image("team/app", "v1")
    release = asyncio.Event()

    async def silent(request):
        await release.wait()
        return web.Response(status=500)

    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            assert answer.status == 200
        hostile.every = silent
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            assert "no answer within" in answer.headers["Warning"]
        begun = time.monotonic()
        for _ in range(20):
            async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
                assert answer.status == 200
        assert time.monotonic() - begun < 5
        release.set()


# -- credentials and addresses


def guarded(hostile, realm: str):
    """Wants a bearer token of `realm`."""
    serve = hostile.serve

    async def answer(request):
        if request.path == "/token":
            return web.json_response({"token": "good"})
        if request.headers.get("Authorization") != "Bearer good":
            return web.json_response({"errors": []}, status=401, headers={
                "WWW-Authenticate": f'Bearer realm="{realm}",service="up.test"'})
        return await serve(request)

    return answer


async def test_the_password_goes_to_its_own_realm(hostile, through) -> None:
    hostile.image("team/app", "v1")
    hostile.every = guarded(hostile, f"{hostile.url}/token")
    async with (through(hostile.url, username="robot", password="s3cret") as api,
                api.get(f"/v2/{REPO}/manifests/v1") as answer):
        assert answer.status == 200
    asked = [sent["Authorization"] for sent in hostile.headers if "Authorization" in sent]
    assert [item.split()[0] for item in asked] == ["Basic", "Bearer"]


@pytest.mark.parametrize("configured", [False, True])
async def test_another_realm_gets_it_only_where_the_settings_say_so(hostile, through, refused, configured) -> None:
    """CVE-2026-33540. The other is the same machine by another name."""
    hostile.image("team/app", "v1")
    async with hostile_server() as other:
        realm = other.url.replace("127.0.0.1", "localhost") + "/token"
        other.every = guarded(other, "")
        hostile.every = guarded(hostile, realm)
        realms = ("localhost",) if configured else ()
        async with through(hostile.url, username="robot", password="s3cret", realms=realms) as api:
            if configured:
                async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
                    assert answer.status == 200
                assert other.headers[0]["Authorization"].startswith("Basic ")
            else:
                error = await refused(api.get(f"/v2/{REPO}/manifests/v1"), 502, "UNAVAILABLE")
                assert "localhost" in error["message"]
                assert "s3cret" not in json.dumps(error)
                assert not other.seen


async def test_no_redirect_gets_the_token(hostile, through, noise) -> None:
    data = noise(100_000)
    digest = Digest.of(data)
    async with hostile_server() as store:
        store.content["/storage/x"] = ("application/octet-stream", data)
        hostile.script[f"/v2/team/app/blobs/{digest}"] = answering(307, Location=f"{store.url}/storage/x?signature=1")
        inner = hostile.serve

        async def scripted(request):
            return await (hostile.script.get(request.path) or inner)(request)

        hostile.serve = scripted
        hostile.every = guarded(hostile, f"{hostile.url}/token")
        async with (through(hostile.url, username="robot", password="s3cret") as api,
                    api.get(f"/v2/{REPO}/blobs/{digest}") as answer):
            assert await answer.read() == data
        assert "Authorization" not in store.headers[0]


async def test_inner_addresses_are_refused(hostile, through, refused) -> None:
    hostile.image("team/app", "v1")
    for url in (hostile.url, hostile.url.replace("127.0.0.1", "localhost")):
        async with through(url, allow_private=False) as api:
            error = await refused(api.get(f"/v2/{REPO}/manifests/v1"), 502, "UNAVAILABLE")
            assert "not a public address" in error["message"]
    assert not hostile.seen


async def test_a_redirect_to_the_clouds_own_address_is_refused(hostile, through, refused) -> None:
    hostile.every = answering(302, Location="https://169.254.169.254/latest/meta-data/")
    async with through(hostile.url) as api:
        error = await refused(api.get(f"/v2/{REPO}/manifests/v1"), 502, "UNAVAILABLE")
        assert "169.254.169.254" in error["message"]


async def test_a_head_that_never_ends(through, refused, monkeypatch) -> None:
    monkeypatch.setattr(origins, "ANSWER_WITHIN", 0.5)

    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                writer.write(b"X: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            over.set()

    over = asyncio.Event()
    server = await asyncio.start_server(drips, "127.0.0.1", 0)
    async with server, through(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as api:
        await refused(api.get(f"/v2/{REPO}/blobs/{Digest.of(b'x')}"), 504, "UNAVAILABLE")
        await asyncio.wait_for(over.wait(), 10)  # it was hung up on


async def test_an_upstream_that_holds_its_slots_does_not_hold_others(hostile, serve, settings, noise) -> None:
    from dataclasses import replace

    from registry.settings import ProxySettings

    async with hostile_server() as slow:
        held = slow.blob("app", noise(500_000))
        slow.pause_after = 100_000
        digest = hostile.blob("team/app", noise(1000))
        made = (upstream(hostile.url), upstream(slow.url, name="slow"))
        async with (serve(replace(settings, upstreams=made, proxy=ProxySettings(downloads=1))) as api,
                    api.get(f"/v2/slow/app/blobs/{held}") as answer):
            assert answer.status == 200
            async with api.get(f"/v2/{REPO}/blobs/{digest}") as other:
                assert len(await other.read()) == 1000
            slow.gate.set()
            assert len(await answer.read()) == 500_000


async def test_clients_that_leave_do_not_pile_up_what_they_asked_for(hostile, through, monkeypatch) -> None:
    monkeypatch.setattr(fills, "MOST", 2)

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await hostile.gate.wait()
        return await hostile.serve(request)

    hostile.every = slow
    digests = [hostile.blob("team/app", str(number).encode()) for number in range(3)]
    async with through(hostile.url) as api:
        for digest in digests[:2]:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), api.get(f"/v2/{REPO}/blobs/{digest}"):
                    pass
        async with api.get(f"/v2/{REPO}/blobs/{digests[2]}") as answer:
            assert answer.status == 502
            assert int(answer.headers["Retry-After"]) > 0
        hostile.gate.set()
        async with asyncio.timeout(10):
            for digest in digests:
                answer = await api.get(f"/v2/{REPO}/blobs/{digest}")
                while answer.status == 502:  # the others are not away yet
                    answer = await api.get(f"/v2/{REPO}/blobs/{digest}")
                assert Digest.of(await answer.read()) == digest
