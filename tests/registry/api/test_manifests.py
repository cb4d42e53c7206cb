"""GET, HEAD, PUT and DELETE of manifests, by tag and by digest."""

import json
from dataclasses import replace

import pytest

from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.manifest import MAX_BYTES
from registry.settings import ManifestSettings

UNKNOWN = Digest.of(b"never pushed")
ABSENT = {"mediaType": mediatype.OCI_LAYER, "digest": str(UNKNOWN), "size": 12}


def as_docker(raw: bytes) -> bytes:
    document = json.loads(raw)
    document["mediaType"] = mediatype.DOCKER_MANIFEST
    document["config"]["mediaType"] = mediatype.DOCKER_CONFIG
    for layer in document["layers"]:
        layer["mediaType"] = mediatype.DOCKER_LAYER_GZIP
    return json.dumps(document, indent=3).encode()


def index_of(*children: tuple[str, bytes], kind: str = mediatype.OCI_INDEX) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [
        {"mediaType": child_kind, "digest": str(Digest.of(raw)), "size": len(raw)} for child_kind, raw in children]
    }).encode()


async def test_by_tag_and_by_digest(api) -> None:
    raw = await api.document()
    digest = Digest.of(raw)
    async with api.manifest("v1", raw) as answer:
        assert answer.status == 201
        assert answer.headers["Location"] == f"/v2/{api.repo}/manifests/{digest}"
        assert answer.headers["Docker-Content-Digest"] == str(digest)
        assert "OCI-Subject" not in answer.headers
    for reference in ("v1", str(digest), str(digest).replace(":", "%3A")):
        for method in ("GET", "HEAD"):
            async with api.request(method, f"/v2/{api.repo}/manifests/{reference}") as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"] == mediatype.OCI_MANIFEST
                assert answer.headers["Docker-Content-Digest"] == str(digest)
                assert answer.headers["ETag"] == f'"{digest}"'
                assert answer.headers["Content-Length"] == str(len(raw))
                assert await answer.read() == (raw if method == "GET" else b"")


@pytest.mark.parametrize("accept", [mediatype.OCI_INDEX, "*/*", mediatype.DOCKER_MANIFEST, "text/plain", ""])
async def test_the_stored_type_is_served_whatever_is_accepted(api, accept) -> None:
    await api.image("v1")
    async with api.get(f"/v2/{api.repo}/manifests/v1", headers={"Accept": accept}) as answer:
        assert (answer.status, answer.content_type) == (200, mediatype.OCI_MANIFEST)


async def test_all_four_kinds_byte_for_byte(api) -> None:
    oci = await api.document()
    docker = as_docker(oci)
    kinds = {
        "oci": (mediatype.OCI_MANIFEST, oci), "docker": (mediatype.DOCKER_MANIFEST, docker),
        "index": (mediatype.OCI_INDEX, index_of((mediatype.OCI_MANIFEST, oci), (mediatype.DOCKER_MANIFEST, docker))),
        "list": (mediatype.DOCKER_LIST, index_of((mediatype.DOCKER_MANIFEST, docker), kind=mediatype.DOCKER_LIST)),
    }
    for tag, (kind, raw) in kinds.items():
        async with api.manifest(tag, raw, kind=kind) as answer:
            assert answer.status == 201, await answer.text()
    for tag, (kind, raw) in kinds.items():
        for reference in (tag, Digest.of(raw)):
            async with api.get(f"/v2/{api.repo}/manifests/{reference}") as answer:
                assert (answer.content_type, await answer.read()) == (kind, raw)


async def test_sha512(api, refused) -> None:
    raw = await api.document()
    digest = Digest.of(raw, "sha512")
    async with api.manifest(str(digest), raw) as answer:
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, str(digest))
    async with api.get(f"/v2/{api.repo}/manifests/{digest}") as answer:
        assert await answer.read() == raw
    await refused(api.get(f"/v2/{api.repo}/manifests/{Digest.of(raw)}"), 404, "MANIFEST_UNKNOWN")


async def test_a_tag_moves(api) -> None:
    first = await api.image("latest", layer=b"first")
    second = await api.image("latest", layer=b"second")
    async with api.get(f"/v2/{api.repo}/manifests/latest") as answer:
        assert answer.headers["Docker-Content-Digest"] == str(second)
    async with api.get(f"/v2/{api.repo}/manifests/{first}") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("held", ['"{}"', "*"])
async def test_what_the_client_holds_is_not_sent(api, held) -> None:
    digest = await api.image("v1")
    async with api.get(f"/v2/{api.repo}/manifests/v1", headers={"If-None-Match": held.format(digest)}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_several_tags_with_one_push(api) -> None:
    raw = await api.document()
    digest = Digest.of(raw)
    async with api.manifest(f"{digest}?tag=a&tag=b&tag=a", raw) as answer:
        assert answer.status == 201
        assert answer.headers.getall("OCI-Tag") == ["a", "b"]
    for tag in ("a", "b"):
        async with api.get(f"/v2/{api.repo}/manifests/{tag}") as answer:
            assert answer.headers["Docker-Content-Digest"] == str(digest)


async def test_too_many_tags(impatient, refused) -> None:
    raw = await impatient.document()
    path = f"{Digest.of(raw)}?tag=a&tag=b&tag=c"
    async with impatient.manifest(path, raw) as answer:
        assert answer.status == 201
    await refused(impatient.manifest(f"{path}&tag=d", raw), 414, "MANIFEST_INVALID")


async def test_malformed_tags_push_nothing(api, refused) -> None:
    raw = await api.document()
    await refused(api.manifest(f"{Digest.of(raw)}?tag=good&tag=-bad", raw), 400, "MANIFEST_INVALID")
    await refused(api.manifest("-bad", raw), 400, "MANIFEST_INVALID")
    await refused(api.manifest("a" * 129, raw), 400, "MANIFEST_INVALID")
    await refused(api.get(f"/v2/{api.repo}/manifests/good"), 404, "MANIFEST_UNKNOWN")
    await refused(api.get(f"/v2/{api.repo}/manifests/{Digest.of(raw)}"), 404, "MANIFEST_UNKNOWN")


async def test_subject(api) -> None:
    raw = await api.document(subject={**ABSENT, "mediaType": mediatype.OCI_MANIFEST})
    async with api.manifest("signature", raw) as answer:
        assert (answer.status, answer.headers["OCI-Subject"]) == (201, str(UNKNOWN))


@pytest.mark.parametrize(("method", "reference", "status", "code"), [
    ("GET", "absent", 404, "MANIFEST_UNKNOWN"), ("GET", str(UNKNOWN), 404, "MANIFEST_UNKNOWN"),
    ("GET", ".not-a-tag", 404, "MANIFEST_UNKNOWN"), ("GET", "sha256:zz", 400, "DIGEST_INVALID"),
    ("DELETE", "absent", 404, "MANIFEST_UNKNOWN"), ("DELETE", str(UNKNOWN), 404, "MANIFEST_UNKNOWN"),
    ("DELETE", "sha256:zz", 400, "DIGEST_INVALID"), ("GET", "md5:" + "a" * 32, 400, "DIGEST_INVALID"),
])
async def test_unknown_and_malformed(api, refused, method, reference, status, code) -> None:
    await api.image("there")
    await refused(api.request(method, f"/v2/{api.repo}/manifests/{reference}"), status, code)
    if status == 404:
        await refused(api.request(method, f"/v2/no/repo/manifests/{reference}"), status, code)
    await refused(api.request(method, f"/v2/-bad/manifests/{reference}"), 400, "NAME_INVALID")


@pytest.mark.parametrize("raw", [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schemaVersion": 1}', b'{"schemaVersion": 2, "config": 5}',
    b"[" * 100_000, b'{"schemaVersion": 2, "config": {"digest": "x"}}',
    b'{"schemaVersion": 2, "manifests": [], "config": {}, "layers": []}',
])
async def test_what_is_no_manifest(api, refused, raw) -> None:
    async with api.manifest("v1", raw) as answer:
        assert answer.status == 400
        assert (await answer.json())["errors"][0]["code"] in ("MANIFEST_INVALID", "DIGEST_INVALID")
    await refused(api.get(f"/v2/{api.repo}/manifests/v1"), 404, "MANIFEST_UNKNOWN")


async def test_the_type_it_came_with_must_be_its_own(api, refused) -> None:
    raw = await api.document()
    for kind in (mediatype.OCI_INDEX, mediatype.DOCKER_MANIFEST, "application/json"):
        await refused(api.manifest("v1", raw, kind=kind), 400, "MANIFEST_INVALID")
    await refused(api.manifest("v1", raw, kind=mediatype.DOCKER_SCHEMA1), 400, "MANIFEST_INVALID")


async def test_digest_of_other_bytes(api, refused) -> None:
    await refused(api.manifest(str(UNKNOWN), await api.document()), 400, "DIGEST_INVALID")
    await refused(api.get(f"/v2/{api.repo}/manifests/{UNKNOWN}"), 404, "MANIFEST_UNKNOWN")


async def test_missing_content_is_named(api, refused) -> None:
    document = json.loads(await api.document())
    document["layers"].append(ABSENT)
    error = await refused(api.manifest("v1", json.dumps(document).encode()), 400, "MANIFEST_BLOB_UNKNOWN")
    assert error["detail"] == [{"digest": str(UNKNOWN)}]
    await refused(api.get(f"/v2/{api.repo}/manifests/v1"), 404, "MANIFEST_UNKNOWN")
    missing_child = index_of((mediatype.OCI_MANIFEST, b"never pushed"))
    await refused(api.manifest("v1", missing_child, kind=mediatype.OCI_INDEX), 400, "MANIFEST_BLOB_UNKNOWN")


async def test_wrong_sizes(api, refused) -> None:
    document = json.loads(await api.document())
    document["layers"][0]["size"] += 1
    await refused(api.manifest("v1", json.dumps(document).encode()), 400, "MANIFEST_INVALID")


async def test_four_mebibytes_and_no_more(api, refused) -> None:
    raw = await api.document()
    fill = MAX_BYTES - len(raw) - len(b', "fill": ""')
    largest = raw[:-1] + b', "fill": "' + b"x" * fill + b'"}'
    assert len(largest) == MAX_BYTES

    async def pieces(data: bytes):
        for first in range(0, len(data), 100_000):
            yield data[first:first + 100_000]

    async with api.manifest("large", pieces(largest)) as answer:
        assert answer.status == 201, await answer.text()
    async with api.get(f"/v2/{api.repo}/manifests/large") as answer:
        assert await answer.read() == largest
    await refused(api.manifest("larger", pieces(largest + b" ")), 413, "SIZE_INVALID")
    async with api.raw() as raw_connection:  # announced: refused before a byte of it was read
        raw_connection.send(f"PUT /v2/{api.repo}/manifests/larger HTTP/1.1\r\nHost: x\r\n"
                            f"Content-Length: {MAX_BYTES + 1}\r\n\r\n")
        assert (await raw_connection.answer())[0] == 413


async def test_delete_a_tag_and_nothing_else(api, refused) -> None:
    digest = await api.image("one", "two")
    async with api.delete(f"/v2/{api.repo}/manifests/one") as answer:
        assert answer.status == 202
    await refused(api.get(f"/v2/{api.repo}/manifests/one"), 404, "MANIFEST_UNKNOWN")
    for reference in ("two", digest):
        async with api.get(f"/v2/{api.repo}/manifests/{reference}") as answer:
            assert answer.status == 200


async def test_delete_a_manifest_with_its_tags(api, refused) -> None:
    digest = await api.image("one", "two")
    async with api.delete(f"/v2/{api.repo}/manifests/{digest}") as answer:
        assert answer.status == 202
    for reference in ("one", "two", digest):
        await refused(api.get(f"/v2/{api.repo}/manifests/{reference}"), 404, "MANIFEST_UNKNOWN")


def sparse(platforms: list[str]) -> bytes:
    children = []
    for number, platform in enumerate(platforms):
        system, _, architecture = platform.partition("/")
        children.append({"mediaType": mediatype.OCI_MANIFEST, "digest": str(Digest.of(b"%d" % number)), "size": 1,
                         "platform": {"os": system, "architecture": architecture}})
    return json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": children}).encode()


@pytest.mark.parametrize(("required", "platforms", "status"), [
    ("all", ["linux/amd64"], 400), ("all", [], 201), ("none", ["linux/amd64", "linux/arm64"], 201),
    ("linux/amd64", ["linux/arm64", "windows/amd64"], 201), ("linux/amd64", ["linux/arm64", "linux/amd64"], 400),
    ("linux/s390x, linux/arm64", ["linux/arm64"], 400), ("linux/s390x,linux/arm64", ["linux/amd64"], 201),
])
async def test_sparse_indexes_by_setting(serve, settings, required, platforms, status) -> None:
    async with (serve(replace(settings, manifests=ManifestSettings(require_platforms=required))) as api,
                api.manifest("v1", sparse(platforms), kind=mediatype.OCI_INDEX) as answer):
        assert answer.status == status, await answer.text()


@pytest.mark.parametrize(("required", "status"), [(True, 400), (False, 201)])
async def test_images_without_their_layers_by_setting(serve, settings, required, status) -> None:
    async with serve(replace(settings, manifests=ManifestSettings(require_layers=required))) as api:
        document = json.loads(await api.document())
        document["layers"].append(ABSENT)
        async with api.manifest("v1", json.dumps(document).encode()) as answer:
            assert answer.status == status, await answer.text()
        document["config"]["digest"] = str(UNKNOWN)
        async with api.manifest("v1", json.dumps(document).encode()) as answer:
            assert answer.status == 400
