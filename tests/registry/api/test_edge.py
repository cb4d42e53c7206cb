"""What holds for every request: base answers, methods, failures, credentials, broken HTTP, slow clients, the log."""

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy.exc import OperationalError

from ocispec.digest import Digest
from registry.settings import LimitSettings, LogSettings
from storage.errors import StoreFull
from storage.metadata.engine import DatabaseUnavailable

UNKNOWN = Digest.of(b"unknown")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_base(api, path, method) -> None:
    async with api.request(method, path) as answer:
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert answer.headers["Server"] == "Seawall"


async def test_credentials_of_another_registry_do_no_harm(api) -> None:
    async with api.get("/v2/", headers={"Authorization": "Bearer nonsense"}) as answer:
        assert answer.status == 200


async def test_health(api, monkeypatch) -> None:
    async with api.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})

    async def catalog(**_):
        raise DatabaseUnavailable("gone fishing")

    monkeypatch.setattr(api.registry.content.tags, "catalog", catalog)
    async with api.get("/healthz") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize("path", ["/", "/v2/a", "/v2/a/b/c", "/favicon.ico", "/v2/_oci/ext/other", "/v1/",
                                  "/../etc"])
async def test_no_such_path(api, refused, path) -> None:
    await refused(api.get(path), 404, "UNSUPPORTED")


@pytest.mark.parametrize(("method", "path", "allow"), [
    ("POST", "/v2/", "GET, HEAD"), ("PATCH", f"/v2/a/blobs/{UNKNOWN}", "GET, HEAD, DELETE"),
    ("GET", "/v2/a/blobs/uploads/", "POST"), ("POST", "/v2/a/manifests/b", "GET, HEAD, PUT, DELETE"),
    ("DELETE", "/v2/_catalog", "GET, HEAD"), ("TRACE", "/healthz", "GET, HEAD"),
])
async def test_method_not_allowed(api, refused, method, path, allow) -> None:
    await refused(api.request(method, path), 405, "UNSUPPORTED")
    async with api.request(method, path) as answer:
        assert answer.headers["Allow"] == allow


@pytest.mark.parametrize("name", ["UPPER", "-a", "a..b", "a//b", "a/", "_catalog", "é", "a" * 256, "..", "a%00b",
                                  "%2e%2e%2f%2e%2e", "a;b", "a'b", "a b"])
async def test_malformed_names_everywhere(api, name) -> None:
    for method, rest in (("GET", "manifests/latest"), ("PUT", "manifests/latest"), ("GET", f"blobs/{UNKNOWN}"),
                         ("POST", "blobs/uploads/"), ("GET", "tags/list"), ("GET", f"referrers/{UNKNOWN}"),
                         ("DELETE", f"blobs/{UNKNOWN}"), ("PATCH", "blobs/uploads/x")):
        async with api.raw() as raw:
            raw.send(f"{method} /v2/{name.replace(' ', '%20')}/{rest} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            status, headers, body = await raw.answer()
        # Some of these are no path of ours at all, or broken HTTP; none may be found, made or break anything.
        assert status in (400, 404), (method, rest, status)
        if headers["content-type"] == "application/json":
            assert json.loads(body)["errors"][0]["code"] in ("NAME_INVALID", "UNSUPPORTED")
    async with api.get("/v2/_catalog") as answer:
        assert (await answer.json())["repositories"] == []


async def test_faults_name_nothing_of_the_inside(api, refused, monkeypatch, caplog) -> None:
    async def broken(*_, **__):
        raise OperationalError("SELECT secret", {}, Exception("inner"))

    monkeypatch.setattr(api.registry.content.tags, "list", broken)
    error = await refused(api.get("/v2/a/tags/list"), 500, "UNKNOWN")
    assert "secret" not in json.dumps(error)
    assert "secret" in caplog.text


async def test_a_connection_of_ours_is_not_the_clients(api, refused, monkeypatch) -> None:
    async def unreachable(*_, **__):
        raise ConnectionRefusedError("the database is away")

    monkeypatch.setattr(api.registry.content.tags, "list", unreachable)
    await refused(api.get("/v2/a/tags/list"), 500, "UNKNOWN")


async def test_a_full_disk(api, refused, monkeypatch) -> None:
    async def full(*_, **__):
        raise StoreFull("no space left for blobs")

    monkeypatch.setattr(api.registry.content.uploads, "start", full)
    await refused(api.post("/v2/a/blobs/uploads/"), 507, "UNAVAILABLE")


BROKEN = [
    "NONSENSE\r\n\r\n", "BREW /v2/ HTTP/1.1\r\n\r\n", "GET /v2/ HTTP/9.9\r\n\r\n", "GET  HTTP/1.1\r\n\r\n",
    "GET /v2/ HTTP/1.1\r\nno colon\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    f"GET /v2/{'a' * 20_000} HTTP/1.1\r\n\r\n", f"GET /v2/ HTTP/1.1\r\nX: {'a' * 20_000}\r\n\r\n",
    "GET /v2/ HTTP/1.1\r\n" + "X: y\r\n" * 500 + "\r\n",
    "PUT /v2/a/manifests/b HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    "PUT /v2/a/manifests/b HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("text", BROKEN)
async def test_broken_http(api, text) -> None:
    async with api.raw() as raw:
        raw.send(text.encode("latin-1"))
        answer = await raw.ended()
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"aiohttp" not in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]["code"] == "UNSUPPORTED"
    async with api.get("/v2/") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("sent", [b"", b"GET /v2/ HTTP/1.1\r\nHost"])
async def test_a_client_that_never_finishes_its_request_is_let_go(impatient, sent) -> None:
    async with impatient.raw() as raw:
        raw.send(sent)
        assert await raw.ended() == b""


async def test_a_manifest_that_trickles_is_let_go(impatient) -> None:
    async with impatient.raw() as raw:
        raw.send("PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert (await raw.answer())[0] == 408


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_manifest_that_never_pauses_and_never_ends_is_let_go(impatient, monkeypatch, chunked) -> None:
    monkeypatch.setattr("registry.api.bodies.SLOWEST", 1 << 40)
    coding = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1000000"
    async with impatient.raw() as raw:
        raw.send(f"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\n{coding}\r\n\r\n")

        async def trickle() -> None:
            with suppress(ConnectionError):
                while True:
                    raw.send("1\r\n \r\n" if chunked else " ")
                    await raw.writer.drain()
                    await asyncio.sleep(0.02)

        sending = asyncio.create_task(trickle())
        assert (await raw.answer())[0] == 408
        sending.cancel()


async def test_head_is_get_without_a_body(api) -> None:
    digest = await api.image("v1")
    blob = await api.blob(b"some bytes")
    upload = await api.begin()
    varies = {"Date", "X-Request-Id", "X-Request-ID"}
    for path in ("/v2/", f"/v2/{api.repo}/manifests/v1", f"/v2/{api.repo}/manifests/{digest}",
                 f"/v2/{api.repo}/blobs/{blob}", f"/v2/{api.repo}/tags/list?n=0", f"/v2/{api.repo}/tags/list?n=1",
                 f"/v2/{api.repo}/referrers/{digest}", "/v2/_catalog", "/v2/_oci/ext/discover", "/healthz", upload,
                 f"/v2/{api.repo}/manifests/none", f"/v2/{api.repo}/blobs/{UNKNOWN}", "/v2/NO/tags/list"):
        async with api.get(path) as answer:
            got = answer.status, {name: value for name, value in answer.headers.items() if name not in varies}
        async with api.head(path) as answer:
            assert await answer.read() == b""
            headers = {name: value for name, value in answer.headers.items() if name not in varies}
            assert (answer.status, headers) == got, path


async def test_every_answer_for_content_says_its_digest(api) -> None:
    digest, blob = await api.image("v1"), await api.blob(b"some bytes")
    manifest, content = f"/v2/{api.repo}/manifests/v1", f"/v2/{api.repo}/blobs/{blob}"
    for path, headers, status, expected in (
        (manifest, {}, 200, digest), (manifest, {"If-None-Match": f'"{digest}"'}, 304, digest),
        (content, {}, 200, blob), (content, {"Range": "bytes=2-"}, 206, blob),
        (content, {"If-None-Match": f'"{blob}"'}, 304, blob),
    ):
        for method in ("GET", "HEAD") if status != 206 else ("GET",):
            async with api.request(method, path, headers=headers) as answer:
                assert (answer.status, answer.headers["Docker-Content-Digest"]) == (status, str(expected))


async def test_no_more_connections_than_may_be(serve, settings, until) -> None:
    async with serve(replace(settings, limits=LimitSettings(connections=3))) as api:
        async with api.raw() as one, api.raw() as two, api.raw() as three:
            for raw in (one, two, three):
                raw.send("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await raw.answer())[0] == 200
            async with api.raw() as late:
                status, headers = await late.head()
                assert (status, headers["retry-after"], await late.ended()) == (503, "1", b"")
            two.send("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await two.answer())[0] == 200

        async def again() -> bool:
            async with api.get("/v2/") as answer:
                return answer.status == 200

        assert await until(again)


async def test_access_log(serve, settings, caplog) -> None:
    with caplog.at_level(logging.INFO, "registry.access"):
        async with serve(replace(settings, log=LogSettings(access=True))) as api:
            digest = await api.image("v1", layer=bytes(300_000))
            for path in ("manifests/v1", "manifests/v1", f"blobs/{Digest.of(bytes(300_000))}", "manifests/absent"):
                async with api.get(f"/v2/{api.repo}/{path}") as answer:
                    await answer.read()
            size = len(await (await api.get(f"/v2/{api.repo}/manifests/{digest}")).read())
    lines = [json.loads(record.message) for record in caplog.records if record.name == "registry.access"]
    lines = [line for line in lines if line["method"] == "GET"]
    assert [line["status"] for line in lines] == [200, 200, 200, 404, 200]
    assert lines[1]["bytes"] == size
    assert lines[2]["bytes"] >= 300_000
    assert lines[0]["path"] == "/v2/team/app/manifests/v1"
    assert {"time", "remote", "agent", "seconds"} < set(lines[0])


async def test_no_code_of_a_login_in_the_access_log(serve, settings, caplog) -> None:
    logged = replace(settings, log=LogSettings(access=True))
    with caplog.at_level(logging.INFO):
        async with serve(logged) as api, api.get("/login/callback?code=hidden&state=x") as answer:
            assert answer.status == 501
        async with serve(logged) as api, api.get("/v2/_catalog?n=17"):
            pass
    assert "/login/callback" in caplog.text
    assert "hidden" not in caplog.text
    assert "n=17" in caplog.text


async def test_no_access_log_unless_asked_for(api, caplog) -> None:
    with caplog.at_level(logging.INFO):
        async with api.get("/v2/"):
            pass
    assert not [record for record in caplog.records if "access" in record.name]


@pytest.mark.parametrize("path", ["/v2/_oci/ext/discover", "/v2/team/app/_oci/ext/discover"])
async def test_extensions(api, path) -> None:
    async with api.get(path) as answer:
        (extension,) = (await answer.json())["extensions"]
        assert extension["name"] == "_oci"
        assert extension["endpoints"] == ["_oci/ext/discover"]
        assert extension["url"].startswith("https://")


async def test_reserved_names(api, refused) -> None:
    for name in ("_catalog", "_docker", "_chainguard", "_oci", "a/_docker"):
        await refused(api.get(f"/v2/{name}/tags/list"), 400, "NAME_INVALID")
        await refused(api.get(f"/v2/{name}/manifests/v1"), 400, "NAME_INVALID")


async def test_options_need_no_identity(api) -> None:
    async with api.session.options("/v2/team/app/manifests/v1") as answer:
        assert answer.status == 204
        assert answer.headers["Allow"] == "GET, HEAD, PUT, DELETE, OPTIONS"
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


async def test_pages_of_named_origins_may_read(serve, settings) -> None:
    ours = {"Origin": "https://ui.example.com"}
    async with serve(replace(settings, cors_origins="https://ui.example.com, http://localhost:3000")) as api:
        await api.image("v1")
        path = f"/v2/{api.repo}/manifests/v1"
        for _ in range(2):  # the second from memory
            async with api.get(path, headers=ours) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == "https://ui.example.com"
                assert "Docker-Content-Digest" in answer.headers["Access-Control-Expose-Headers"]
                assert "Access-Control-Allow-Credentials" not in answer.headers
        for origin in ("https://evil.example.com", "https://ui.example.com.evil.org", "null", "http://ui.example.com"):
            async with api.get(path, headers={"Origin": origin}) as answer:
                assert "Access-Control-Allow-Origin" not in answer.headers
                assert answer.headers["Vary"] == "Origin"
        asked = {**ours, "Access-Control-Request-Method": "DELETE"}
        async with api.session.options(path, headers=asked) as answer:
            assert answer.status == 204
            assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]


async def test_no_page_may_read_by_itself(api) -> None:
    async with api.get("/v2/", headers={"Origin": "https://ui.example.com"}) as answer:
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
