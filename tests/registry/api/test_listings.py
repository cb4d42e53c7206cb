"""tags/list, _catalog, referrers: contents, pages, and bad counts."""

import json
import re

import pytest

from ocispec import mediatype
from ocispec.digest import Digest

TAGS = ["1.0", "Z", "_x", "a", "b"]


async def pages(api, path: str, key: str) -> list[list[str]]:
    """Follows the links from `path`."""
    found = []
    while path:
        async with api.get(path) as answer:
            assert answer.status == 200, await answer.text()
            found.append((await answer.json())[key])
            link = answer.headers.get("Link")
        if link is None:
            return found
        match = re.fullmatch(r'<([^>]+)>; rel="next"', link)
        assert match
        path = match[1]
    raise AssertionError


async def test_tags_in_order(api) -> None:
    await api.image(*reversed(TAGS))
    async with api.get(f"/v2/{api.repo}/tags/list") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == {"name": api.repo, "tags": TAGS}


@pytest.mark.parametrize(("query", "expected"), [
    ("", [TAGS]), ("?n=2", [["1.0", "Z"], ["_x", "a"], ["b"]]), ("?n=5", [TAGS]), ("?n=100", [TAGS]), ("?n=0", [[]]),
    ("?last=Z", [["_x", "a", "b"]]), ("?n=2&last=_x", [["a", "b"]]), ("?last=zz", [[]]), ("?n=1&last=a", [["b"]]),
])
async def test_pages_of_tags(api, query, expected) -> None:
    await api.image(*TAGS)
    assert await pages(api, f"/v2/{api.repo}/tags/list{query}", "tags") == expected


async def test_pages_are_never_larger_than_the_setting(impatient) -> None:
    await impatient.image(*TAGS)
    for query in ("", "?n=4", "?n=99999999999999999999"):
        assert await pages(impatient, f"/v2/{impatient.repo}/tags/list{query}", "tags") == [TAGS[:3], TAGS[3:]]


@pytest.mark.parametrize("query", ["n=-1", "n=x", "n=", "n=1.5", "n=%00", "n=" + "9" * 50, "n=٣"])
@pytest.mark.parametrize("path", ["/v2/team/app/tags/list", "/v2/_catalog"])
async def test_bad_counts(api, refused, path, query) -> None:
    await api.image("v1")
    await refused(api.get(f"{path}?{query}"), 400, "PAGINATION_NUMBER_INVALID")


async def test_tags_of_no_repository(api, refused) -> None:
    await refused(api.get("/v2/no/such/tags/list"), 404, "NAME_UNKNOWN")
    await refused(api.get("/v2/NO/tags/list"), 400, "NAME_INVALID")


async def test_a_repository_without_tags(api) -> None:
    await api.image()
    async with api.get(f"/v2/{api.repo}/tags/list") as answer:
        assert (await answer.json())["tags"] == []


async def test_catalog(api) -> None:
    names = ["a", "a/b", "a-b", "z/y/x"]
    for name in names:
        await api.image("v1", repo=name)
    await api.blob(b"no manifest", repo="blobs/only")
    assert await pages(api, "/v2/_catalog", "repositories") == [sorted(names)]
    assert await pages(api, "/v2/_catalog?n=3", "repositories") == [sorted(names)[:3], sorted(names)[3:]]
    assert await pages(api, "/v2/_catalog?n=0", "repositories") == [[]]


async def test_an_empty_catalog(api) -> None:
    assert await pages(api, "/v2/_catalog", "repositories") == [[]]


async def test_referrers(api) -> None:
    subject = await api.image("v1")
    at = {"mediaType": mediatype.OCI_MANIFEST, "digest": str(subject), "size": 3}
    sbom = await api.document(subject=at, artifactType="application/sbom", annotations={"made": "here"}, layer=b"sbom")
    signature = await api.document(subject=at, config=b"sig", layer=b"signature")
    for raw in (sbom, signature):
        async with api.manifest(str(Digest.of(raw)), raw) as answer:
            assert answer.headers["OCI-Subject"] == str(subject)
    path = f"/v2/{api.repo}/referrers/{subject}"
    async with api.get(path) as answer:
        assert (answer.status, answer.content_type) == (200, mediatype.OCI_INDEX)
        assert "OCI-Filters-Applied" not in answer.headers
        listed = await answer.json(content_type=None)
    assert listed["schemaVersion"] == 2
    assert listed["mediaType"] == mediatype.OCI_INDEX
    assert listed["manifests"] == sorted([
        {"mediaType": mediatype.OCI_MANIFEST, "digest": str(Digest.of(sbom)), "size": len(sbom),
         "annotations": {"made": "here"}, "artifactType": "application/sbom"},
        {"mediaType": mediatype.OCI_MANIFEST, "digest": str(Digest.of(signature)), "size": len(signature),
         "artifactType": mediatype.OCI_CONFIG},
    ], key=lambda item: item["digest"])
    async with api.get(f"{path}?artifactType=application/sbom") as answer:
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        assert [item["digest"] for item in (await answer.json(content_type=None))["manifests"]] == [
            str(Digest.of(sbom))]


async def test_referrers_of_what_is_not_there(api, refused) -> None:
    for repo in (api.repo, "no/such/repo"):
        async with api.get(f"/v2/{repo}/referrers/{Digest.of(b'nothing')}") as answer:
            assert answer.status == 200
            assert (await answer.json(content_type=None))["manifests"] == []
    await refused(api.get(f"/v2/{api.repo}/referrers/sha256:zz"), 400, "DIGEST_INVALID")


async def refer(api, subject: Digest, count: int) -> list[str]:
    at = {"mediaType": mediatype.OCI_MANIFEST, "digest": str(subject), "size": 3}
    made = []
    for number in range(count):
        raw = await api.document(subject=at, artifactType="a/b", annotations={"number": str(number)})
        made.append(str(Digest.of(raw)))
        async with api.manifest(made[-1], raw) as answer:
            assert answer.status == 201
    return sorted(made)


async def follow(api, path: str) -> list[list[str]]:
    found = []
    while path:
        async with api.get(path) as answer:
            assert answer.status == 200
            assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if "artifactType" in path else None)
            found.append([item["digest"] for item in json.loads(await answer.read())["manifests"]])
            path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    return found


async def test_pages_of_referrers(api, refused) -> None:
    subject = Digest.of(b"subject")
    made = await refer(api, subject, 5)
    path = f"/v2/{api.repo}/referrers/{subject}"
    for kind in ("", "&artifactType=a%2Fb"):
        assert await follow(api, f"{path}?n=2{kind}") == [made[:2], made[2:4], made[4:]]
        assert await follow(api, f"{path}?n=0{kind}") == [[]]
        assert await follow(api, f"{path}?n=5&last={made[1]}{kind}") == [made[2:]]
    assert await follow(api, f"{path}?n=99999999999999999999999") == [made]
    await refused(api.get(f"{path}?n=x"), 400, "PAGINATION_NUMBER_INVALID")
    await refused(api.get(f"{path}?last=x"), 400, "DIGEST_INVALID")


async def test_pages_of_referrers_are_no_larger_than_a_manifest_may_be(api, monkeypatch) -> None:
    monkeypatch.setattr("registry.api.listings.ROOM", 700)
    monkeypatch.setattr("registry.api.listings.RENDER_ON_LOOP", 1)
    subject = Digest.of(b"subject")
    made = await refer(api, subject, 5)
    found = await follow(api, f"/v2/{api.repo}/referrers/{subject}?artifactType=a%2Fb")
    assert [len(page) for page in found] == [2, 2, 1]
    assert [digest for page in found for digest in page] == made
