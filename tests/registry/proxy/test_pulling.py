"""Pulling through: what comes, what is asked of the upstream for it, and what is kept."""

import asyncio
import json

import aiohttp
import pytest

from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag

from .conftest import hostile_server, upstream

REPO = "up.test/team/app"


async def body(request, status: int = 200) -> bytes:
    async with request as answer:
        assert answer.status == status, await answer.text()
        return await answer.read()


async def test_an_image_comes_once_and_stays(hostile, through, noise) -> None:
    layer = noise(3_000_000)
    digest = hostile.image("team/app", "v1", layer)
    async with through(hostile.url, tag_ttl=60.0) as api:
        for round_ in range(3):
            async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
                assert answer.headers["Docker-Content-Digest"] == str(digest)
                assert answer.content_type == mediatype.OCI_MANIFEST
                assert ("hit" in answer.headers["Cache-Status"]) == bool(round_)
                raw = await answer.read()
            for item in (json.loads(raw)["config"], *json.loads(raw)["layers"]):
                data = await body(api.get(f"/v2/{REPO}/blobs/{item['digest']}"))
                assert str(Digest.of(data)) == item["digest"]
        assert await body(api.get(f"/v2/{REPO}/manifests/{digest}")) == raw
        assert {path: times for (_, path), times in hostile.seen.items() if times > 1} == {}
        async with api.get("/v2/_catalog") as answer:
            assert (await answer.json())["repositories"] == [REPO]
        (tag,) = await api.registry.proxy.cached_tags(RepositoryName.parse(REPO))
        assert (tag.tag, tag.digest) == (Tag("v1"), digest)


async def test_an_upstreams_headers_stay_there(hostile, through, noise) -> None:
    layer = hostile.blob("team/app", noise(100))
    hostile.image("team/app", "v1")
    async with through(hostile.url) as api:
        for path in (f"blobs/{layer}", "manifests/v1"):
            async with api.get(f"/v2/{REPO}/{path}", headers={"Authorization": "Basic eDp5", "Cookie": "c=1"}) as answer:
                assert answer.status == 200
                assert "X-Ms-Copy-Source" not in answer.headers
    assert all("Authorization" not in sent and "Cookie" not in sent for sent in hostile.headers)


async def test_a_blob_streams_before_it_is_whole_and_whoever_comes_late_reads_along(hostile, through, noise) -> None:
    data = noise(6_000_000)
    digest = hostile.blob("team/app", data)
    hostile.pause_after = 4_000_000
    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/blobs/{digest}") as first:
            assert await first.content.readexactly(3_000_000) == data[:3_000_000]
            async with api.get(f"/v2/{REPO}/blobs/{digest}", headers={"Range": "bytes=1000000-"}) as late:
                assert (late.status, late.headers["Content-Range"]) == (206, "bytes 1000000-5999999/6000000")
                assert await late.content.readexactly(2_500_000) == data[1_000_000:3_500_000]
                hostile.gate.set()
                assert await late.read() == data[3_500_000:]
            assert await first.read() == data[3_000_000:]
        assert hostile.count("GET", str(digest)) == 1
        assert await body(api.get(f"/v2/{REPO}/blobs/{digest}")) == data
        assert hostile.count("GET", str(digest)) == 1


async def test_fifty_clients_one_download(hostile, through, noise) -> None:
    data = noise(5_000_000)
    digest = hostile.blob("team/app", data)
    tag = hostile.image("team/app", "v1")
    async with through(hostile.url, tag_ttl=60.0) as api:
        found = await asyncio.gather(*(body(api.get(f"/v2/{REPO}/blobs/{digest}")) for _ in range(50)))
        assert all(one == data for one in found)
        manifests = await asyncio.gather(*(body(api.get(f"/v2/{REPO}/manifests/v1")) for _ in range(50)))
        assert {Digest.of(one) for one in manifests} == {tag}
    assert hostile.count("GET", str(digest)) == 1
    assert hostile.count("GET", "/v1") + hostile.count("HEAD", "/v1") == 1


async def test_a_client_that_leaves_does_not_stop_the_fill(hostile, through, noise, until) -> None:
    data = noise(3_000_000)
    digest = hostile.blob("team/app", data)
    hostile.pause_after = 1_000_000
    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
            await answer.content.readexactly(10)
            answer.close()
        hostile.gate.set()

        async def there() -> bool:
            async with api.head(f"/v2/{REPO}/blobs/{digest}") as answer:
                return answer.status == 200 and hostile.count("HEAD", str(digest)) == 0

        await until(there)
        assert await body(api.get(f"/v2/{REPO}/blobs/{digest}")) == data
    assert hostile.count("GET", str(digest)) == 1


@pytest.mark.parametrize("size", [0, 1, 2, 70_000])
async def test_blobs_of_every_size(hostile, through, noise, size) -> None:
    data = noise(size)
    digest = hostile.blob("team/app", data)
    async with through(hostile.url) as api:
        async with api.head(f"/v2/{REPO}/blobs/{digest}") as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(size))
        assert hostile.count("GET", str(digest)) == 0
        for _ in range(2):
            assert await body(api.get(f"/v2/{REPO}/blobs/{digest}")) == data
        assert hostile.count("GET", str(digest)) == 1


async def test_a_tag_is_revalidated_without_a_transfer(hostile, through) -> None:
    first = hostile.image("team/app", "v1", b"one")
    async with through(hostile.url) as api:  # tag_ttl 0: every time
        await body(api.get(f"/v2/{REPO}/manifests/v1"))
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            assert answer.headers["Docker-Content-Digest"] == str(first)
            assert "revalidated" in answer.headers["Cache-Status"]
        assert (hostile.count("GET", "/v1"), hostile.count("HEAD", "/v1")) == (1, 1)
        assert hostile.headers[-1]["If-None-Match"] == f'"{first}"'
        second = hostile.image("team/app", "v1", b"two")
        async with api.head(f"/v2/{REPO}/manifests/v1") as answer:
            assert answer.headers["Docker-Content-Digest"] == str(second)
        assert hostile.count("GET", "/v1") == 1  # the manifest was fetched by its digest
        await body(api.get(f"/v2/{REPO}/manifests/{first}"))
        asked = hostile.seen.total()
        await body(api.get(f"/v2/{REPO}/manifests/{second}"))
        assert hostile.seen.total() == asked


async def test_only_what_was_asked_for(hostile, through) -> None:
    children = [hostile.image("team/app", "", architecture.encode()) for architecture in ("amd64", "arm64")]
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [
        {"mediaType": mediatype.OCI_MANIFEST, "digest": str(child), "platform": {"os": "linux", "architecture": name},
         "size": len(hostile.content[f"/v2/team/app/manifests/{child}"][1])}
        for child, name in zip(children, ("amd64", "arm64"), strict=True)]}
    hostile.manifest("team/app", "multi", json.dumps(index).encode(), mediatype.OCI_INDEX)
    async with through(hostile.url, platforms=("linux/amd64",)) as api:
        await body(api.get(f"/v2/{REPO}/manifests/multi"))
        await body(api.get(f"/v2/{REPO}/manifests/{children[0]}"))
        assert hostile.seen.total() == 2
        async with api.get(f"/v2/{REPO}/manifests/{children[1]}") as answer:
            assert answer.status == 403
            assert "linux/arm64" in await answer.text()
        assert hostile.seen.total() == 2


async def test_names_and_the_ns_parameter(hostile, through, refused) -> None:
    hostile.image("team/app", "v1")
    async with through(upstreams=(upstream(hostile.url, namespaces=("mirror.test:5000",)),)) as api:
        for name in ("up.test", "mirror.test:5000", "UP.test"):
            async with api.get("/v2/team/app/manifests/v1", params={"ns": name}) as answer:
                assert (answer.status, answer.headers["OCI-Namespace"]) == (200, name)
        await refused(api.get("/v2/team/app/manifests/v1", params={"ns": "elsewhere.test"}), 400, "NAME_INVALID")
        await refused(api.get("/v2/team/app/manifests/v1"), 404, "MANIFEST_UNKNOWN")
        await refused(api.get("/v2/up.test/manifests/v1"), 400, "NAME_INVALID")
        digest = await api.image("v1", repo="team/app")
        async with api.get("/v2/team/app/manifests/v1") as answer:
            assert answer.headers["Docker-Content-Digest"] == str(digest)
            assert "OCI-Namespace" not in answer.headers


async def test_without_upstreams_ns_means_nothing(api) -> None:
    await api.image("v1", repo="team/app")
    await body(api.get("/v2/team/app/manifests/v1", params={"ns": "docker.io"}))


async def test_nothing_is_pushed_to_an_upstream(hostile, through, refused, noise) -> None:
    async with through(hostile.url) as api:
        digest = Digest.of(b"x")
        for request in (api.post(f"/v2/{REPO}/blobs/uploads/"), api.put(f"/v2/{REPO}/manifests/v1", data=b"{}"),
                        api.post("/v2/team/app/blobs/uploads/?ns=up.test"),
                        api.post(f"/v2/{REPO}/blobs/uploads/?digest={digest}", data=b"x"),
                        api.patch(f"/v2/{REPO}/blobs/uploads/abc", data=b"x"), api.get(f"/v2/{REPO}/blobs/uploads/abc")):
            error = await refused(request, 403, "DENIED")
            assert "pulled through" in error["message"]
    assert not hostile.seen


async def test_what_is_kept_can_be_dropped_and_comes_back(hostile, through) -> None:
    digest = hostile.image("team/app", "v1")
    async with through(hostile.url, tag_ttl=60.0) as api:
        await body(api.get(f"/v2/{REPO}/manifests/v1"))
        await body(api.delete(f"/v2/{REPO}/manifests/{digest}"), 202)
        await body(api.get(f"/v2/{REPO}/manifests/v1"))
    assert hostile.count("GET", "/v1") == 2


async def test_patterns_and_prefix(hostile, through, refused) -> None:
    hostile.image("mirrors/hub/team/app", "v1")
    async with through(hostile.url, prefix="mirrors/hub", repositories=("team/*",)) as api:
        await body(api.get(f"/v2/{REPO}/manifests/v1"))
        await refused(api.get("/v2/up.test/other/app/manifests/v1"), 403, "DENIED")
        await refused(api.get("/v2/up.test/team/app/more/manifests/v1"), 403, "DENIED")
    assert hostile.seen.total() == 1


async def test_several_upstreams_beside_our_own(hostile, through, noise) -> None:
    async with hostile_server() as other:
        one, two = hostile.image("app", "v1", b"1"), other.image("app", "v1", b"2")
        async with through(upstreams=(upstream(hostile.url), upstream(other.url, name="second"))) as api:
            three = await api.image("v1", repo="app", layer=b"3")
            for name, digest in (("up.test/app", one), ("second/app", two), ("app", three)):
                async with api.get(f"/v2/{name}/manifests/v1") as answer:
                    assert answer.headers["Docker-Content-Digest"] == str(digest)


async def test_a_mirror_answers_for_an_upstream_that_is_down(hostile, through, unused_tcp_port) -> None:
    hostile.image("team/app", "v1")
    async with through(f"http://127.0.0.1:{unused_tcp_port}", mirrors=(hostile.url,), username="u", password="p") as api:
        await body(api.get(f"/v2/{REPO}/manifests/v1"))
    assert all("Authorization" not in sent for sent in hostile.headers)


async def test_tags_pass_with_pages_and_ours_serve_when_it_is_down(hostile, through, refused) -> None:
    async def tags(request):
        from aiohttp import web
        names = sorted(["v1", "v2", "v3", "v4", "bad tag"])
        after = [name for name in names if name > request.query.get("last", "")]
        some = after[:int(request.query["n"])]
        more = {"Link": f'</v2/team/app/tags/list?last={some[-1]}&n=2>; rel="next"'} if len(after) > len(some) else {}
        return web.json_response({"name": "team/app", "tags": some}, headers=more)

    hostile.script["/v2/team/app/tags/list"] = tags
    hostile.image("team/app", "v1")
    async with through(hostile.url) as api:
        await body(api.get(f"/v2/{REPO}/manifests/v1"))
        found, path = [], f"/v2/{REPO}/tags/list?n=2"
        while path:
            async with api.get(path) as answer:
                found += (await answer.json())["tags"]
                path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert found == ["v1", "v2", "v3", "v4"]
        await refused(api.get("/v2/up.test/absent/tags/list"), 404, "NAME_UNKNOWN")
        hostile.script["/v2/team/app/tags/list"] = failing(503)
        async with api.get(f"/v2/{REPO}/tags/list") as answer:
            assert (await answer.json())["tags"] == ["v1"]
            assert answer.headers["Warning"].startswith("299 - ")


async def test_tags_of_a_registry_without_pages(hostile, through) -> None:
    hostile.content["/v2/team/app/tags/list"] = ("application/json", json.dumps({"tags": ["c", "a", "b"]}).encode())
    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/tags/list?n=2") as answer:
            assert (await answer.json())["tags"] == ["a", "b"]
            assert "last=b" in answer.headers["Link"]
        async with api.get(f"/v2/{REPO}/tags/list?n=2&last=b") as answer:
            assert (await answer.json())["tags"] == ["c"]
            assert "Link" not in answer.headers


async def test_extensions_of_a_repository_there(hostile, through) -> None:
    async with through(hostile.url) as api:
        found = json.loads(await body(api.get(f"/v2/{REPO}/_oci/ext/discover")))
        assert found["extensions"][0]["name"] == "_oci"


async def test_long_lists_of_referrers_are_not_remembered(hostile, through) -> None:
    subject = Digest.of(b"signed")
    item = {"mediaType": mediatype.OCI_MANIFEST, "digest": str(Digest.of(b"it")), "size": 2}
    path = f"/v2/team/app/referrers/{subject}"
    async with through(hostile.url, tag_ttl=60.0) as api:
        for length, asked in ((10, 1), (100_000, 3)):
            index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX,
                     "manifests": [{**item, "annotations": {"a": "x" * length}}]}
            place = path if length == 10 else path.replace(str(subject), str(Digest.of(b"long")))
            hostile.content[place] = (mediatype.OCI_INDEX, json.dumps(index).encode())
            for _ in range(2):
                await body(api.get(place.replace("team/app", REPO)))
            assert sum(hostile.seen.values()) == asked


@pytest.mark.parametrize("by", ["api", "tag"])
async def test_referrers_pass(hostile, through, by) -> None:
    subject = hostile.image("team/app", "v1")
    kinds = ["application/vnd.sig", "application/vnd.sbom"]
    index = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [
        {"mediaType": mediatype.OCI_MANIFEST, "digest": str(Digest.of(kind.encode())), "size": 3, "artifactType": kind}
        for kind in kinds]}).encode()
    if by == "api":
        hostile.content[f"/v2/team/app/referrers/{subject}"] = (mediatype.OCI_INDEX, index)
    else:
        hostile.manifest("team/app", str(subject).replace(":", "-"), index, mediatype.OCI_INDEX)
    async with through(hostile.url, tag_ttl=60.0) as api:
        async with api.get(f"/v2/{REPO}/referrers/{subject}") as answer:
            assert [item["artifactType"] for item in (await answer.json(content_type=None))["manifests"]] == kinds
        async with api.get(f"/v2/{REPO}/referrers/{subject}", params={"artifactType": kinds[1]}) as answer:
            assert answer.headers["OCI-Filters-Applied"] == "artifactType"
            assert [item["artifactType"] for item in (await answer.json(content_type=None))["manifests"]] == kinds[1:]
        assert hostile.count("GET", str(subject)) == 1
        async with api.get(f"/v2/{REPO}/referrers/{Digest.of(b'none')}") as answer:
            assert (await answer.json(content_type=None))["manifests"] == []


def failing(status: int, **headers: str):
    async def answer(request):
        from aiohttp import web
        return web.json_response({"errors": [{"code": "X", "message": "no"}]}, status=status, headers=headers)

    return answer


async def test_what_does_not_exist_is_asked_for_once_in_a_while(hostile, through, refused) -> None:
    async with through(hostile.url, missing_ttl=60.0) as api:
        for _ in range(3):
            await refused(api.get(f"/v2/{REPO}/manifests/none"), 404, "MANIFEST_UNKNOWN")
            await refused(api.get(f"/v2/{REPO}/blobs/{Digest.of(b'none')}"), 404, "BLOB_UNKNOWN")
            await refused(api.get(f"/v2/{REPO}/manifests/{Digest.of(b'none')}"), 404, "MANIFEST_UNKNOWN")
    assert hostile.seen.total() == 3


async def test_a_tag_that_is_gone_there_is_gone_here(hostile, through, refused) -> None:
    digest = hostile.image("team/app", "v1")
    async with through(hostile.url) as api:
        await body(api.get(f"/v2/{REPO}/manifests/v1"))
        del hostile.content["/v2/team/app/manifests/v1"]
        await refused(api.get(f"/v2/{REPO}/manifests/v1"), 404, "MANIFEST_UNKNOWN")
        await body(api.get(f"/v2/{REPO}/manifests/{digest}"))


@pytest.mark.parametrize(("unused_after", "status"), [(0.0, 502), (3600.0, 200)])
async def test_unused_tags_expire_and_their_content_is_collected(hostile, through, unused_after, status) -> None:
    """The content as long after its own last use as a tag: there are those who pull by digest alone."""
    from datetime import timedelta
    digest = hostile.image("team/app", "v1")
    async with through(hostile.url, unused_after=unused_after) as api:
        raw = await body(api.get(f"/v2/{REPO}/manifests/v1"))
        await body(api.get(f"/v2/{REPO}/blobs/{json.loads(raw)['layers'][0]['digest']}"))
        own = await api.image("kept", repo="team/own")
        assert await api.registry.proxy.expire(timedelta(hours=1)) == 0
        assert await api.registry.proxy.expire(timedelta(0)) == 1
        assert await api.registry.proxy.cached_tags(RepositoryName.parse(REPO)) == []
        await api.registry.collector.run(grace=timedelta(0))
        hostile.every = failing(503)
        async with api.get(f"/v2/{REPO}/manifests/{digest}") as answer:
            assert answer.status == status
        await body(api.get("/v2/team/own/manifests/kept"))
        await body(api.get(f"/v2/team/own/manifests/{own}"))


async def test_two_registries_share_one_download(hostile, serve, settings, noise, until) -> None:
    """Two processes on one database and folder: the second reads along."""
    from dataclasses import replace
    data = noise(8_000_000)
    digest = hostile.blob("team/app", data)
    hostile.pause_after = 6_000_000
    shared = replace(settings, upstreams=(upstream(hostile.url),))
    async with serve(shared) as one, serve(shared) as two, one.get(f"/v2/{REPO}/blobs/{digest}") as first:
        await first.content.readexactly(1_000_000)
        async with two.get(f"/v2/{REPO}/blobs/{digest}") as second:
            assert await second.content.readexactly(1_500_000) == data[:1_500_000]
            hostile.gate.set()
            assert await second.read() == data[1_500_000:]
        assert await first.read() == data[1_000_000:]
    assert hostile.count("GET", str(digest)) == 1


async def test_a_head_is_no_download_and_conditions_hold(hostile, through, noise) -> None:
    data = noise(200_000)
    digest = hostile.blob("team/app", data)
    async with through(hostile.url) as api:
        async with api.get(f"/v2/{REPO}/blobs/{digest}", headers={"Range": "bytes=100-199"}) as answer:
            assert (answer.status, await answer.read()) == (206, data[100:200])
        async with api.get(f"/v2/{REPO}/blobs/{digest}", headers={"Range": "bytes=200000-"}) as answer:
            assert answer.status == 416
        async with api.get(f"/v2/{REPO}/blobs/{digest}", headers={"If-None-Match": f'"{digest}"'}) as answer:
            assert answer.status == 304


async def test_an_upstream_that_tells_no_size(hostile, through, noise) -> None:
    from aiohttp import web
    data = noise(300_000)
    digest = Digest.of(data)

    async def chunked(request):
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(data)
        await response.write_eof()
        return response

    hostile.script[f"/v2/team/app/blobs/{digest}"] = chunked
    async with through(hostile.url) as api, api.get(f"/v2/{REPO}/blobs/{digest}") as answer:
        assert answer.headers["Content-Length"] == "300000"
        assert await answer.read() == data




async def test_a_layer_that_two_repositories_share_comes_once(hostile, through, noise, refused) -> None:
    data = noise(1_000_000)
    digest = hostile.blob("team/base", data)
    hostile.blob("team/app", data)
    async with through(hostile.url) as api:
        await body(api.get(f"/v2/up.test/team/base/blobs/{digest}"))
        assert await body(api.get(f"/v2/{REPO}/blobs/{digest}")) == data
        assert (hostile.count("GET", str(digest)), hostile.count("HEAD", str(digest))) == (1, 1)
        await refused(api.get(f"/v2/up.test/team/without/blobs/{digest}"), 404, "BLOB_UNKNOWN")


async def test_what_we_hold_is_not_given_to_who_only_names_it(hostile, through, noise) -> None:
    """An upstream says that it has a blob of one of our own repositories, without having its bytes."""
    from aiohttp import web
    async with through(hostile.url) as api:
        secret = await api.blob(noise(5000), repo="team/secret")

        async def claims(request):
            return web.Response(body=b"x" * 5000 if request.method == "GET" else b"")

        hostile.script[f"/v2/team/app/blobs/{secret}"] = claims
        with pytest.raises(aiohttp.ClientError):
            async with api.get(f"/v2/{REPO}/blobs/{secret}") as answer:
                await answer.read()


async def test_the_policy_holds_for_an_upstreams_names(hostile, serve, settings, noise) -> None:
    from dataclasses import replace

    from registry.settings import AuthSettings

    for repo in ("public/app", "private/app"):
        hostile.image(repo, "v1")
    digest = hostile.blob("private/app", noise(100))
    settings = replace(settings, upstreams=(upstream(hostile.url),), auth=AuthSettings(mode="accounts"))
    async with serve(settings) as api:
        await api.registry.identity.policies.set("up.test/public/**", "anonymous", ["pull"])
        await body(api.get("/v2/up.test/public/app/manifests/v1"))
        await body(api.get("/v2/public/app/manifests/v1?ns=up.test"))
        asked = hostile.seen.total()
        for path in ("manifests/v1", f"blobs/{digest}", "tags/list", f"referrers/{digest}"):
            await body(api.get(f"/v2/up.test/private/app/{path}"), 401)
            await body(api.get(f"/v2/private/app/{path}?ns=up.test"), 401)
        for method in ("POST", "PUT"):
            await body(api.request(method, "/v2/up.test/public/app/blobs/uploads/"), 401)
        assert hostile.seen.total() == asked


async def test_a_store_that_is_no_folder(hostile, settings, noise, tmp_path) -> None:
    """As S3: what comes is readable from a spool meanwhile."""
    from ocispec.reference import RepositoryName
    from registry.proxy.fills import FillSettings
    from registry.proxy.service import open_pull_through
    from registry.proxy.upstreams import Upstreams
    from registry.settings import ProxySettings
    from storage.blobs.memory import MemoryBlobs
    from storage.metadata.engine import open_database
    from storage.repository.store import ContentStore

    data = noise(6_000_000)
    digest = hostile.blob("team/app", data)
    hostile.pause_after = 4_000_000
    upstreams, store = Upstreams.of((upstream(hostile.url),), ProxySettings()), MemoryBlobs()
    async with open_database(settings.database_url) as database:
        content = ContentStore(database, store)
        async with open_pull_through(upstreams, database, content, store, FillSettings(0, 4, tmp_path)) as proxy:
            place = upstreams.place(RepositoryName.parse(REPO))
            assert place
            filling = proxy.blob(place, digest)
            assert await filling.wait_begun() == len(data)
            early, late = b"", b""
            async for chunk in filling.read(0, len(data)):
                early += chunk
                if len(early) > 3_500_000 and not late:
                    async for piece in filling.read(0, 3_000_000):
                        late += piece
                        if len(late) == 2_999_999:  # the last byte waits for the digest
                            break
                    assert late == data[:2_999_999]
                    hostile.gate.set()
            assert early == data
            info = await content.blobs.stat(place.repo, digest)
            assert b"".join([piece async for piece in content.blobs.read(info)]) == data
    assert not list(tmp_path.iterdir())


async def test_a_spool_folder_that_cannot_be_written(hostile, settings, noise, tmp_path) -> None:
    """A failure of ours is the client's answer, and the next try is not blocked by it."""
    from registry.proxy.fills import FillSettings
    from registry.proxy.service import open_pull_through
    from registry.proxy.upstreams import Upstreams
    from registry.settings import ProxySettings
    from storage.blobs.memory import MemoryBlobs
    from storage.errors import StoreFull
    from storage.metadata.engine import open_database
    from storage.repository.store import ContentStore

    data = noise(500_000)
    digest = hostile.blob("team/app", data)
    upstreams, store, spool = Upstreams.of((upstream(hostile.url),), ProxySettings()), MemoryBlobs(), tmp_path / "spool"
    async with open_database(settings.database_url) as database:
        content = ContentStore(database, store)
        async with open_pull_through(upstreams, database, content, store, FillSettings(0, 4, spool)) as proxy:
            place = upstreams.place(RepositoryName.parse(REPO))
            assert place
            with pytest.raises(StoreFull):
                await proxy.blob(place, digest).wait_done()
            spool.mkdir()
            assert (await proxy.blob(place, digest).wait_done()).size == len(data)


async def test_an_operator_sees_upstreams_and_copies(hostile, through) -> None:
    digest = hostile.image("team/app", "v1")
    async with through(hostile.url, username="robot", password="s3cret") as api:
        await body(api.get(f"/v2/{REPO}/manifests/v1"))
        async with api.get("/api/v1/upstreams") as answer:
            text = await answer.text()
            (found,) = json.loads(text)["items"]
            assert (found["name"], found["addresses"], found["answers"]) == ("up.test", [hostile.url], True)
            assert "s3cret" not in text
        async with api.get(f"/api/v1/repositories/{REPO.replace('/', '%2F')}/copies") as answer:
            (copy,) = (await answer.json())["items"]
            assert (copy["tag"], copy["digest"]) == ("v1", str(digest))
        hostile.every = failing(503)
        async with api.get(f"/v2/{REPO}/manifests/v1") as answer:
            assert "Warning" in answer.headers
        async with api.get("/api/v1/upstreams") as answer:
            (found,) = (await answer.json())["items"]
            assert not found["answers"]
            assert found["paused_for"] > 0
        async with api.get("/metrics") as answer:
            text = await answer.text()
            assert "seawall_upstream_stale_answers_total 1" in text
            assert 'seawall_cache_misses_total{cache="upstream"}' in text
