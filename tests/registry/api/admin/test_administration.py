"""The administration API over HTTP: what an operator sees and does, and what is refused."""

import io
import json
from urllib.parse import quote

from openapi_spec_validator import validate

from ocispec.digest import Digest


def at(repo: str, *rest: str) -> str:
    return "/api/v1/repositories/" + "/".join([quote(repo, safe=""), *rest])


async def ask(api, method: str, path: str, **options):
    async with api.request(method, path, **options) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text else None


async def test_about_says_who_asks(api) -> None:
    status, about = await ask(api, "GET", "/api/v1/about")
    assert status == 200
    assert about["caller"]["name"] == ""
    assert about["version"]


async def test_repositories_are_paged_with_sums(api) -> None:
    for name in ("team/a", "team/b", "z"):
        await api.image("one", "two", repo=name, layer=b"x" * 1000)
    status, first = await ask(api, "GET", "/api/v1/repositories?limit=2")
    assert status == 200
    assert [item["name"] for item in first["items"]] == ["team/a", "team/b"]
    assert first["next"] == "team/b"
    item = first["items"][0]
    assert (item["tags"], item["manifests"]) == (2, 1)
    assert item["bytes"] > 1000
    _, second = await ask(api, "GET", f"/api/v1/repositories?limit=2&after={quote(first['next'])}")
    assert [item["name"] for item in second["items"]] == ["z"]
    assert second["next"] == ""
    assert await ask(api, "GET", at("team/a")) == (200, item)


async def test_a_manifest_tells_what_it_names_and_how_it_is_tagged(api) -> None:
    digest = await api.image("v1", "v2", layer=b"y" * 10, annotations={"made": "here"})
    for reference in ("v1", str(digest)):
        status, found = await ask(api, "GET", at(api.repo, "manifests", reference))
        assert status == 200
        assert (found["digest"], found["tags"]) == (str(digest), ["v1", "v2"])
        assert found["bytes"] == 12
        assert [part["size"] for part in found["blobs"]] == [2, 10]
        assert found["annotations"] == {"made": "here"}


async def test_tags_are_put_and_deleted_one_by_one(api) -> None:
    digest = await api.image("v1")
    status, _ = await ask(api, "PUT", at(api.repo, "tags", "v2"), json={"digest": str(digest)})
    assert status == 204
    status, tags = await ask(api, "GET", at(api.repo, "tags"))
    assert [(item["tag"], item["digest"]) for item in tags["items"]] == [("v1", str(digest)), ("v2", str(digest))]
    assert (await ask(api, "DELETE", at(api.repo, "tags", "v1")))[0] == 204
    status, tags = await ask(api, "GET", at(api.repo, "tags"))
    assert [item["tag"] for item in tags["items"]] == ["v2"]
    assert (await ask(api, "DELETE", at(api.repo, "manifests", str(digest))))[0] == 204
    assert (await ask(api, "GET", at(api.repo, "tags")))[0] == 404


async def test_what_is_wrong_is_named(api, refused) -> None:
    await api.image("v1")
    error = await refused(api.get("/api/v1/repositories?limit=0"), 400, "UNSUPPORTED")
    assert "limit" in error["message"]
    error = await refused(api.get("/api/v1/repositories?limits=1"), 400, "UNSUPPORTED")
    assert "limits" in error["message"]
    await refused(api.get("/api/v1/repositories?limit=1&limit=2"), 400, "UNSUPPORTED")
    await refused(api.get("/api/v1/nothing"), 404, "UNKNOWN")
    await refused(api.get(at("team/none")), 404, "NAME_UNKNOWN")
    await refused(api.get(at("Team/A")), 400, "NAME_INVALID")
    await refused(api.get(at(api.repo, "manifests", "none")), 404, "MANIFEST_UNKNOWN")
    await refused(api.put(at(api.repo, "tags", "v2"), json={"digest": str(Digest.of(b""))}), 404, "MANIFEST_UNKNOWN")
    error = await refused(api.put(at(api.repo, "tags", "v2"), json={"digets": "x"}), 400, "UNSUPPORTED")
    assert "digets" in error["message"] or "digest" in error["message"]
    await refused(api.put(at(api.repo, "tags", "v2"), data=b"{", headers={"Content-Type": "application/json"}),
                  400, "UNSUPPORTED")
    # No JSON: a form, which a page of another site might have sent.
    await refused(api.put(at(api.repo, "tags", "v2"), data={"digest": "x"}), 400, "UNSUPPORTED")
    async with api.post(at(api.repo), json={}) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, DELETE, HEAD"


async def test_the_body_is_bounded(api, refused) -> None:
    await api.image("v1")
    await refused(api.put(at(api.repo, "tags", "v2"), data=io.BytesIO(b" " * 5_000_000),
                          headers={"Content-Type": "application/json"}), 413, "SIZE_INVALID")


async def test_the_document_is_valid_openapi(api) -> None:
    status, document = await ask(api, "GET", "/api/v1/openapi.json")
    assert status == 200
    validate(document)
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))

