"""The classes of incident that other registries had, those about content and the wire; about identity:
`test_incidents_identity`. Each names where it hit. Three more have rooms of their own: credentials for a foreign realm
(distribution CVE-2026-33540: tests/registry/proxy/test_hostile, tests/storage/remote), requests into the private network
(Quay CVE-2026-32591 and others: the same, and tests/registry/notifications), storage headers passed on (GHCR 2023:
tests/registry/test_s3)."""

import io
import json

import pytest

from ocispec import mediatype
from ocispec.digest import Digest

DIGEST = Digest.of(b"{}")


async def test_unbounded_bodies(api, refused) -> None:
    """distribution CVE-2017-11468, zot's manifests and API keys: whatever is read into memory has an end, announced or
    not."""
    async def endless():
        for _ in range(200):
            yield b" " * 65536

    for path, kind in ((f"/v2/{api.repo}/manifests/v1", mediatype.OCI_MANIFEST),
                       ("/api/v1/rules/immutable", "application/json")):
        for body in (io.BytesIO(b" " * (8 << 20)), endless()):
            await refused(api.put(path, data=body, headers={"Content-Type": kind}), 413, "SIZE_INVALID")


@pytest.mark.parametrize("n", ["999999999999999999", "1" * 400])
async def test_allocation_by_page_size(api, n) -> None:
    """distribution CVE-2023-2253: a page is as large as the registry likes, whatever is asked for."""
    await api.image("v1")
    for path in ("/v2/_catalog", f"/v2/{api.repo}/tags/list", f"/v2/{api.repo}/referrers/{DIGEST}"):
        async with api.get(path, params={"n": n}) as answer:
            assert answer.status in (200, 400), await answer.text()


@pytest.mark.parametrize(("kind", "fields"), [
    (mediatype.OCI_MANIFEST, {"mediaType": mediatype.OCI_INDEX, "manifests": []}),
    (mediatype.OCI_INDEX, {"mediaType": mediatype.OCI_INDEX, "manifests": [], "layers": []}),
    (mediatype.OCI_INDEX, {"mediaType": mediatype.OCI_INDEX, "manifests": [], "config": {}}),
    (mediatype.OCI_MANIFEST, {"mediaType": mediatype.OCI_MANIFEST, "manifests": []}),
    (mediatype.OCI_MANIFEST, {"manifests": [], "layers": []}),
])
async def test_type_confusion(api, refused, kind, fields) -> None:
    """CVE-2021-41190, GHSA-mc8v-mgrf-8f4m, GHSA-qq97-vm5h-rrhg: one document is one thing to every reader."""
    raw = json.dumps({"schemaVersion": 2, **fields}).encode()
    await refused(api.manifest("v1", raw, kind=kind), 400, "MANIFEST_INVALID")


async def test_a_document_that_two_parsers_read_differently(api, refused) -> None:
    for raw in (b'{"schemaVersion":2,"mediaType":"%s","manifests":[],"manifests":[1]}',
                b'{"schemaVersion":2,"mediaType":"%s","manifests":[],"Layers":[]}'):
        await refused(api.manifest("v1", raw % mediatype.OCI_INDEX.encode(), kind=mediatype.OCI_INDEX), 400,
                      "MANIFEST_INVALID")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../b", "%2e%2e/a", "a%2f..%2fb", "a//b", "/a", "a/./b", "a\\b",
                                  "a%00b", "A", "-a", "a-", "."])
async def test_path_traversal(api, name) -> None:
    """distribution's upload purge, ORAS CVE-2026-50163: no name that a client sends becomes part of a path unparsed."""
    for path in (f"/v2/{name}/manifests/v1", f"/v2/{name}/blobs/{DIGEST}", f"/v2/{name}/blobs/uploads/"):
        async with api.raw() as connection:
            method = "POST" if path.endswith("/") else "GET"
            connection.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            status, _, body = await connection.answer()
            assert status in (400, 404, 405), body


@pytest.mark.parametrize("value", ["../v1", "sha256:..", "sha256:" + "0" * 63 + "/", "v1%0d%0aX: y", "v1\x7f"])
async def test_values_that_are_no_tag_and_no_digest(api, value) -> None:
    async with api.raw() as connection:
        connection.send(f"GET /v2/a/manifests/{value} HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await connection.answer()
        assert status in (400, 404)
        assert "x" not in headers


async def test_content_is_never_a_page(api) -> None:
    """Harbor GO-2025-3825 and others: what anybody pushed is not rendered by a browser that is led to it."""
    digest = await api.blob(b"<script>alert(1)</script>")
    async with api.get(f"/v2/{api.repo}/blobs/{digest}") as answer:
        assert answer.content_type == "application/octet-stream"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    async with api.get("/v2/<script>alert(1)</script>/tags/list") as answer:
        assert answer.content_type == "application/json"


async def test_no_origin_is_reflected(api) -> None:
    """Harbor GO-2024-2915, Quay CVE-2026-2376: another site's page reads nothing here."""
    await api.image("v1")
    for path in ("/v2/", f"/v2/{api.repo}/manifests/v1", "/api/v1/about"):
        async with api.get(path, headers={"Origin": "https://evil.test"}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_no_state_comes_from_a_client(api, refused) -> None:
    """Quay CVE-2026-32590: an upload's location holds its name and nothing that is believed."""
    location = await api.begin()
    assert "?" not in location
    async with api.patch(f"{location}?_state=gASVKAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU", data=b"abc") as answer:
        assert answer.status == 202
    async with api.put(f"{location}?digest={Digest.of(b'abc')}") as answer:
        assert answer.status == 201
    await refused(api.patch(location, data=b"abc"), 404, "BLOB_UPLOAD_UNKNOWN")
