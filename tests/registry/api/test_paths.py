import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.api.paths import Endpoint, Target, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(("path", "target"), [
    ("/v2/", Target(Endpoint.BASE)),
    ("/v2", Target(Endpoint.BASE)),
    ("/v2/_catalog", Target(Endpoint.CATALOG)),
    ("/v1/_ping", Target(Endpoint.PING)),
    ("/v1/search", Target(Endpoint.SEARCH)),
    ("/healthz", Target(Endpoint.HEALTH)),
    (f"/v2/a/blobs/{DIGEST}", Target(Endpoint.BLOB, "a", DIGEST)),
    (f"/v2/a/b/c/blobs/{DIGEST}", Target(Endpoint.BLOB, "a/b/c", DIGEST)),
    ("/v2/a/b/blobs/sha256%3Aff", Target(Endpoint.BLOB, "a/b", "sha256:ff")),
    ("/v2/a/blobs/uploads/", Target(Endpoint.UPLOADS, "a")),
    ("/v2/a/blobs/uploads", Target(Endpoint.UPLOADS, "a")),
    ("/v2/a/blobs/uploads/some-id", Target(Endpoint.UPLOAD, "a", "some-id")),
    ("/v2/a/manifests/latest", Target(Endpoint.MANIFEST, "a", "latest")),
    ("/v2/a/tags/list", Target(Endpoint.TAGS, "a")),
    (f"/v2/a/referrers/{DIGEST}", Target(Endpoint.REFERRERS, "a", DIGEST)),
    ("/v2/_oci/ext/discover", Target(Endpoint.EXTENSIONS)),
    ("/v2/a/b/_oci/ext/discover", Target(Endpoint.EXTENSIONS, "a/b")),
    # Repositories may be named like our own words.
    ("/v2/a/blobs/uploads/manifests/latest", Target(Endpoint.MANIFEST, "a/blobs/uploads", "latest")),
    ("/v2/manifests/tags/tags/list", Target(Endpoint.TAGS, "manifests/tags")),
    ("/v2/x/manifests/blobs/uploads/", Target(Endpoint.UPLOADS, "x/manifests")),
])
def test_a_path_is_read_from_its_end(path: str, target: Target) -> None:
    assert parse(path) == target


@pytest.mark.parametrize("path", [
    "", "/", "/v3/", "/v2/a", "/v2/tags/list", "/v2/manifests/latest", "/v2/blobs/uploads/", "/v2/a/manifests/",
    "/v2/a/blobs/", "/v2/a/referrers/", "x/v2/a/manifests/b", "/v2/_oci/ext", "/v2/_oci/ext/discover/", "/v2/_docker/x", "/v2/a/tags/list/",
])
def test_other_paths_are_nothing(path: str) -> None:
    assert parse(path) is None


def test_whole_trees_of_paths(monkeypatch) -> None:
    monkeypatch.setattr("registry.api.paths._BELOW", {"/api/v1/": Endpoint.HEALTH})
    assert parse("/api/v1/a/b%20c") == Target(Endpoint.HEALTH, value="a/b c")
    assert parse("/api/v1") is None


@given(st.text(alphabet="/abv2_%.:-~é\x00", max_size=60))
def test_no_path_confuses_it(rest: str) -> None:
    target = parse(f"/v2/{rest}")
    assert target is None or isinstance(target, Target)
