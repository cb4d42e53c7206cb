"""zot's layout, and its damage."""

import json
import os

import pytest

from ocispec import mediatype
from ocispec.digest import Digest


@pytest.fixture
def sound(zot):
    return {"sound": {"v1": str(zot.image("v1", layers=(b"sound layer",), repo="sound"))}}


def test_a_sound_store_is_taken_whole(zot, take, make_image, make_index, unchanged, describe):
    first = zot.image("v1", "latest", layers=(b"one", b"two"))
    docker = zot.image("docker", layers=(b"one",), kind=mediatype.DOCKER_MANIFEST,
                       config_type=mediatype.DOCKER_CONFIG, layer_type=mediatype.DOCKER_LAYER_GZIP)
    untagged = zot.image(layers=(b"untagged",))
    nested = zot.image("v1", repo="team/app/nested")
    child = make_image((b"only a child",))
    for data in (child, b"only a child"):
        zot.blob(data)
    multi = zot.manifest(make_index(make_image((b"one", b"two")), child), "multi")
    referrer = zot.image(layers=(b"signature",), subject=describe(make_image((b"one", b"two")), mediatype.OCI_MANIFEST))
    by_512 = zot.manifest(make_image((b"one",), annotations={"by": "512"}), "long", algorithm="sha512")
    zot.blob(b"garbage of its own")
    before = unchanged(zot.folder)
    result = take(zot)
    assert result.entries == []
    assert result.holding() == {
        "team/app": {"v1": str(first), "latest": str(first), "docker": str(docker), "multi": str(multi),
                     "long": str(by_512)},
        "team/app/nested": {"v1": str(nested)}}
    assert {("team/app", str(digest)) for digest in (untagged, Digest.of(child), referrer)} <= result.manifests()
    assert unchanged(zot.folder) == before


def test_a_stub_is_looked_for_where_its_bytes_are(zot, take, sound):
    """In a bucket zot keeps one copy, and zero bytes under every other name."""
    other = zot.image("v1", layers=(b"shared",), repo="a/other")
    digest = zot.image("v1", layers=(b"shared", b"own"))
    zot.data(Digest.of(b"shared")).write_bytes(b"")
    zot.data(Digest.of(b"{}")).write_bytes(b"")
    zot.data(Digest.of(b""), "sound").parent.mkdir(parents=True, exist_ok=True)
    zot.data(Digest.of(b""), "sound").write_bytes(b"")
    result = take(zot)
    assert result.entries == []
    assert result.holding() == {**sound, "a/other": {"v1": str(other)}, "team/app": {"v1": str(digest)}}


def test_a_stub_of_nothing_is_an_empty_blob(zot, take, sound):
    zot.image("v1")
    zot.data(Digest.of(b"layer")).write_bytes(b"")
    result = take(zot)
    assert result.damage == [("empty-blob", "lost"), ("incomplete-manifest", "lost"), ("lost-tag", "lost")]
    assert result.holding() == sound


def test_hard_links_of_its_dedupe(zot, take):
    first = zot.image("v1", layers=(b"shared",), repo="a")
    second = zot.image("v1", layers=(b"shared",), repo="b")
    zot.data(Digest.of(b"shared"), "b").unlink()
    os.link(zot.data(Digest.of(b"shared"), "a"), zot.data(Digest.of(b"shared"), "b"))
    result = take(zot)
    assert result.entries == []
    assert result.holding() == {"a": {"v1": str(first)}, "b": {"v1": str(second)}}
    assert (result.counts.blobs, result.counts.blobs_known) == (2, 2)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"manifests": 7}', b"\xff"])
def test_an_index_that_is_none(zot, take, sound, content):
    zot.image("v1")
    (zot.place() / "index.json").write_bytes(content)
    result = take(zot)
    assert result.damage == [("bad-index", "lost")]
    assert result.holding() == sound


def test_without_an_index(zot, take, sound):
    zot.image("v1")
    (zot.place() / "index.json").unlink()
    assert take(zot).damage == [("bad-index", "lost")]


def test_entries_that_are_none(zot, take, sound):
    digest = zot.image("v1")
    zot.list([*zot.listed(), 7, {}, {"mediaType": mediatype.OCI_MANIFEST, "digest": "md5:0", "size": 1}])
    result = take(zot)
    assert result.damage == [("bad-index", "lost")] * 3
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_tags(zot, take, sound):
    first, second = zot.image("v1", layers=(b"1",)), zot.image("v1", layers=(b"2",))
    zot.image("-bad", "x" * 129)
    result = take(zot)
    assert first != second
    assert result.damage == [("duplicate-tag", "healed"), ("invalid-tag", "lost"), ("invalid-tag", "lost")]
    assert result.holding() == {**sound, "team/app": {"v1": str(second)}}


def test_a_child_that_is_absent_and_a_manifest_that_is(zot, take, sound, make_image, make_index):
    zot.image()
    multi = zot.manifest(make_index(make_image(), make_image((b"absent",))), "multi")
    gone = zot.image("gone", layers=(b"gone",))
    zot.data(gone).unlink()
    result = take(zot)
    assert sorted(result.damage) == [("lost-tag", "lost"), ("missing-children", "kept"), ("missing-manifest", "lost"),
                                     ("missing-manifest", "lost")]
    assert result.holding() == {**sound, "team/app": {"multi": str(multi)}}


def test_a_type_that_the_index_and_the_manifest_do_not_agree_on(zot, take, sound):
    zot.image("v1")
    zot.list([{**entry, "mediaType": mediatype.OCI_INDEX} for entry in zot.listed()])
    result = take(zot)
    assert result.damage == [("bad-manifest-format", "lost"), ("lost-tag", "lost")]
    assert result.holding() == sound


def test_names_links_and_foreign_things(zot, take, sound, tmp_path):
    digest = zot.image("v1")
    (zot.folder / "UPPER").mkdir()
    (zot.folder / os.fsdecode(b"\xff")).mkdir()
    (zot.folder / "linked").symlink_to("/etc")
    (zot.folder / "team/note").write_text("")
    os.mkfifo(zot.folder / "pipe")
    outside = tmp_path / "outside"
    outside.write_bytes(b"layer of another")
    zot.image("stolen", layers=(b"layer of another",))
    zot.data(Digest.of(b"layer of another")).unlink()
    zot.data(Digest.of(b"layer of another")).symlink_to(outside)
    result = take(zot)
    assert result.damage == [("incomplete-manifest", "lost"), ("invalid-name", "lost"), ("invalid-name", "lost"),
                             ("lost-tag", "lost"), ("not-a-file", "lost"), ("symlink", "lost"), ("symlink", "lost")]
    assert result.notes == ["foreign"]
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_buildkit_cache(zot, take, describe):
    zot.blob(b"cached"), zot.blob(b"{}")
    digest = zot.manifest(json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [
        describe(b"cached", mediatype.OCI_LAYER_ZSTD), describe(b"{}", "application/vnd.buildkit.cacheconfig.v0")]}
    ).encode(), "cache")
    result = take(zot)
    assert result.entries == []
    assert result.holding() == {"team/app": {"cache": str(digest)}}
