"""Damage of a distribution's folder, class by class: what is reported, what is taken, and that the rest is taken."""

import json
import os

import pytest

from ocispec import mediatype
from ocispec.digest import Digest


@pytest.fixture
def sound(distribution):
    """A repository beside the damaged one; gives what must always be there of it."""
    digest = distribution.image("v1", layers=(b"sound layer",), repo="sound")
    return {"sound": {"v1": str(digest)}}


def test_a_sound_store_is_taken_whole(distribution, take, make_image, make_index, unchanged):
    first = distribution.image("v1", "latest", layers=(b"one", b"two"))
    second = distribution.image("old", layers=(b"one", b"three"), kind=mediatype.DOCKER_MANIFEST,
                                config_type=mediatype.DOCKER_CONFIG, layer_type=mediatype.DOCKER_LAYER_GZIP)
    untagged = distribution.image(layers=(b"untagged",))
    nested = distribution.image("v1", repo="team/app/nested")
    beside = distribution.image("v1", repo="team/app-two")
    plain = distribution.image("plain", layers=(b"no type",), kind=None)
    both = distribution.manifest(make_index(make_image((b"one", b"two")), make_image((b"untagged",))), "multi")
    above = distribution.manifest(make_index(make_index(make_image((b"one", b"two")), make_image((b"untagged",)))),
                                  "nested")
    before = unchanged(distribution.folder)
    result = take(distribution)
    assert result.entries == []
    assert result.holding() == {
        "team/app": {"v1": str(first), "latest": str(first), "old": str(second), "plain": str(plain),
                     "multi": str(both), "nested": str(above)},
        "team/app/nested": {"v1": str(nested)}, "team/app-two": {"v1": str(beside)}}
    assert ("team/app", str(untagged)) in result.manifests()
    assert unchanged(distribution.folder) == before
    assert (result.counts.repositories, result.counts.tags) == (3, 8)


def test_referrers_come_along(distribution, take, make_image, describe):
    subject = make_image()
    distribution.image("v1")
    referrer = distribution.image(layers=(b"signature",), subject=describe(subject, mediatype.OCI_MANIFEST))
    orphan = distribution.image(layers=(b"of nobody",), subject=describe(b"gone", mediatype.OCI_MANIFEST))
    result = take(distribution)
    assert result.entries == []
    assert {("team/app", str(referrer)), ("team/app", str(orphan))} <= result.manifests()


def test_where_the_folder_is_may_be_said_in_several_ways(distribution, take):
    distribution.image("v1")
    for source in (distribution.folder, distribution.folder / "docker", distribution.root):
        assert take(distribution, source=str(source)).holding().keys() == {"team/app"}


@pytest.mark.parametrize("what", ["empty", "garbage", "json"])
def test_bad_manifest_format(distribution, take, sound, what):
    raw = {"empty": b"{}", "garbage": b"\x00\xffno manifest", "json": b'{"schemaVersion": 2, "config": 7}'}[what]
    distribution.manifest(raw, "bad")
    good = distribution.image("good")
    result = take(distribution)
    assert result.damage == [("bad-manifest-format", "lost"), ("lost-tag", "lost")]
    assert result.holding() == {**sound, "team/app": {"good": str(good)}}


def test_empty_manifest(distribution, take, sound):
    digest = distribution.image("v1")
    distribution.data(digest).write_bytes(b"")
    result = take(distribution)
    assert result.damage == [("empty-manifest", "lost"), ("lost-tag", "lost")]
    assert result.holding() == sound
    assert {entry.path for entry in result.entries} == {
        str(distribution.data(digest).relative_to(distribution.folder)),
        str(distribution.tag_link("v1").relative_to(distribution.folder))}


def test_manifest_without_bytes(distribution, take, sound):
    digest = distribution.image("v1")
    distribution.data(digest).unlink()
    result = take(distribution)
    assert result.damage == [("lost-tag", "lost"), ("missing-manifest", "lost")]
    assert result.holding() == sound


def test_manifest_with_other_bytes(distribution, take, sound, make_image):
    digest = distribution.image("v1")
    distribution.data(digest).write_bytes(make_image((b"layer",), annotations={"evil": "yes"}))
    result = take(distribution)
    assert result.damage == [("lost-tag", "lost"), ("manifest-wrong-digest", "lost")]
    assert result.holding() == sound


@pytest.mark.parametrize("content", [b"", b"nonsense", b"sha256:short", b"\xff\xfe", b"md5:" + b"0" * 32])
def test_bad_manifest_link_is_read_from_its_path(distribution, take, sound, content):
    digest = distribution.image("v1")
    distribution.revision_link(digest).write_bytes(content)
    result = take(distribution)
    assert result.damage == [("bad-link", "healed")]
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_empty_layer_links_are_read_from_their_paths(distribution, take, sound, content):
    digest = distribution.image("v1")
    for data in (b"layer", b"{}"):
        distribution.layer_link(Digest.of(data)).write_bytes(content)
    result = take(distribution)
    assert result.damage == [("bad-link", "healed")] * 2
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_bad_tag_link_with_one_past_is_read_from_it(distribution, take, sound, content):
    digest = distribution.image("v1")
    distribution.tag_link("v1").write_bytes(content)
    result = take(distribution)
    assert result.damage == [("bad-tag-link", "healed")]
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_bad_tag_link_with_two_pasts_is_not_guessed(distribution, take, sound):
    distribution.image("v1", layers=(b"old",))
    distribution.image("v1", layers=(b"new",))
    distribution.tag_link("v1").write_bytes(b"")
    result = take(distribution)
    assert result.damage == [("bad-tag-link", "lost")]
    assert str(Digest.of(b"")) not in result.entries[0].what
    assert result.entries[0].what.count("sha256:") == 2
    assert result.holding() == sound
    assert len(result.manifests()) == 3, "both manifests are there, untagged"


def test_missing_tag_link(distribution, take, sound):
    digest = distribution.image("v1")
    distribution.tag_link("v1").unlink()
    assert take(distribution).damage == [("missing-tag-link", "lost")]
    result = take(distribution, relink=True)
    assert result.damage == [("missing-tag-link", "healed")]
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_missing_tags(distribution, take, sound):
    digest = distribution.image()
    result = take(distribution)
    assert (result.damage, result.notes) == ([], ["missing-tags"])
    assert result.holding() == sound
    assert ("team/app", str(digest)) in result.manifests()


def test_missing_revisions(distribution, take, sound):
    """Of a tag whose manifest is not listed nobody knows whether it was deleted: it comes back when that is wanted."""
    digest = distribution.image("v1")
    distribution.revision_link(digest).unlink()
    result = take(distribution)
    assert result.damage == [("missing-revision", "lost")]
    assert result.holding() == sound
    result = take(distribution, relink=True)
    assert result.damage == [("missing-revision", "healed")]
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


@pytest.mark.parametrize("algorithm", ["md5", "sha384", "sha256+b64", "SHA256", "\udcff"])
def test_unsupported_digest(distribution, take, sound, algorithm):
    digest = distribution.image("v1")
    for kind in ("_layers", "_manifests/revisions"):
        distribution.write(distribution.place() / kind / algorithm / ("0" * 64) / "link", b"whatever")
    distribution.write(distribution.place() / "_layers/sha256" / ("F" * 64) / "link", b"sha256:" + b"f" * 64)
    result = take(distribution)
    assert result.damage == [("unsupported-digest", "lost")] * 3
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_unlinked_layers_come_back_only_when_that_is_wanted(distribution, take, sound):
    digest = distribution.image("v1")
    distribution.layer_link(Digest.of(b"layer")).unlink()
    result = take(distribution)
    assert result.damage == [("incomplete-manifest", "lost"), ("lost-tag", "lost"), ("unlinked-blob", "lost")]
    assert result.holding() == sound
    result = take(distribution, relink=True)
    assert result.damage == [("unlinked-blob", "healed")]
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_unlinked_config(distribution, take, sound):
    digest = distribution.image("v1", config=b'{"os": "linux"}')
    distribution.layer_link(Digest.of(b'{"os": "linux"}')).unlink()
    assert take(distribution).damage == [
        ("incomplete-manifest", "lost"), ("lost-tag", "lost"), ("unlinked-blob", "lost")]
    assert take(distribution, relink=True).holding() == {**sound, "team/app": {"v1": str(digest)}}


@pytest.mark.parametrize("relink", [False, True])
def test_nobody_gets_a_blob_by_naming_it_as_one_that_need_not_be_there(distribution, take, make_image, relink):
    """Distribution takes a manifest whose layer has a URL without looking for the layer."""
    distribution.blob(b"secret", "other")
    distribution.image("v1", repo="other")
    document = json.loads(make_image((b"secret",)))
    document["layers"][0]["urls"] = ["https://example.com/layer"]
    distribution.blob(b"{}")
    distribution.manifest(json.dumps(document).encode(), "thief")
    result = take(distribution, relink=relink)
    assert result.damage == []
    assert result.holding()["team/app"].keys() == {"thief"}
    with pytest.raises(Exception, match="unknown to this repository"):
        stat(result, "team/app", Digest.of(b"secret"))


def stat(result, repo, digest):
    import asyncio

    from ocispec.reference import RepositoryName
    from registry import app

    async def once():
        async with app.open_registry(result.settings, migrate=False) as registry:
            return await registry.content.blobs.stat(RepositoryName(repo), digest)

    return asyncio.run(once())


@pytest.mark.parametrize(("change", "kind"), [
    (lambda path: path.write_bytes(b"lAyer"), "wrong-digest"),
    (lambda path: path.write_bytes(b"lay"), "wrong-digest"),
    (lambda path: path.write_bytes(b""), "empty-blob"),
    (lambda path: path.unlink(), "missing-blob"),
    (lambda path: (path.unlink(), path.mkdir()), "not-a-file"),
    (lambda path: (path.unlink(), os.mkfifo(path)), "not-a-file"),
    (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "symlink"),
])
def test_invalid_blob(distribution, take, sound, change, kind):
    distribution.image("v1")
    good = distribution.image("good", layers=(b"other layer",))
    change(distribution.data(Digest.of(b"layer")))
    result = take(distribution)
    assert result.damage == sorted([(kind, "lost"), ("incomplete-manifest", "lost"), ("lost-tag", "lost")])
    assert result.holding() == {**sound, "team/app": {"good": str(good)}}


def test_unknown_config_and_layer_media_types_are_welcome(distribution, take, sound):
    digest = distribution.image("v1", layer_type="application/x.strange+what", config_type="application/vnd.x.y.v7+z")
    result = take(distribution)
    assert result.entries == []
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_unknown_manifest_media_type(distribution, take, sound):
    distribution.image("v1", kind="application/vnd.oci.artifact.manifest.v1+json")
    result = take(distribution)
    assert result.damage == [("lost-tag", "lost"), ("unknown-manifest-type", "lost")]
    assert result.holding() == sound


def test_schema1(distribution, take, sound):
    old = json.dumps({"schemaVersion": 1, "name": "team/app", "tag": "v1", "fsLayers": [], "history": [],
                      "signatures": [{"signature": "x"}]}).encode()
    digest = distribution.manifest(old, "v1")
    distribution.write(distribution.revision_link(digest).parent / "signatures/sha256" / ("1" * 64) / "link", b"x")
    result = take(distribution)
    assert result.damage == [("lost-tag", "lost"), ("schema1", "lost")]
    assert result.holding() == sound


@pytest.mark.parametrize("layers", [(b"cached", b"more cached"), ()])
@pytest.mark.parametrize("kind", [mediatype.OCI_INDEX, mediatype.DOCKER_LIST])
def test_buildkit_cache_as_an_index(distribution, take, sound, describe, layers, kind):
    config = b'{"layers": [], "records": []}'
    for data in (config, *layers):
        distribution.blob(data)
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [
        *(describe(layer, mediatype.OCI_LAYER_GZIP) for layer in layers),
        describe(config, "application/vnd.buildkit.cacheconfig.v0")]}).encode()
    digest = distribution.manifest(raw, "cache")
    result = take(distribution)
    assert result.entries == []
    assert result.holding() == {**sound, "team/app": {"cache": str(digest)}}


def test_sha512_alias_link_whose_content_wins_over_its_path(distribution, take, sound, make_image, describe):
    """Distribution keeps a sha512 blob under its sha256 digest, and both names lead to it."""
    layer, config = b"by two names", b"{}"
    distribution.blob(layer, link=False)
    distribution.blob(config)
    alias = Digest.of(layer, "sha512")
    distribution.write(distribution.layer_link(alias), str(Digest.of(layer)).encode())
    document = json.loads(make_image((layer,)))
    by_alias = {**document, "layers": [describe(layer, mediatype.OCI_LAYER, "sha512")]}
    first = distribution.manifest(json.dumps(document).encode(), "sha256")
    second = distribution.manifest(json.dumps(by_alias).encode(), "sha512")
    result = take(distribution)
    assert result.entries == []
    assert result.holding() == {**sound, "team/app": {"sha256": str(first), "sha512": str(second)}}


def test_an_alias_that_lies_is_found_out(distribution, take, sound):
    digest = distribution.image("v1")
    lie = Digest.of(b"secret", "sha512")
    distribution.write(distribution.layer_link(lie), str(Digest.of(b"layer")).encode())
    result = take(distribution)
    assert result.damage == [("wrong-digest", "lost")]
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_a_link_that_names_another_digest_than_its_path(distribution, take, sound):
    digest = distribution.image("v1")
    distribution.blob(b"elsewhere", link=False)
    distribution.write(distribution.layer_link(Digest.of(b"path")), str(Digest.of(b"elsewhere")).encode())
    result = take(distribution)
    assert result.damage == [("link-mismatch", "healed")]
    assert stat(result, "team/app", Digest.of(b"elsewhere")).size == 9
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_what_deleting_leaves_is_no_damage(distribution, take, sound):
    """Folders without their links."""
    digest = distribution.image("v1")
    gone = distribution.image(layers=(b"deleted",))
    distribution.revision_link(gone).unlink()
    distribution.layer_link(Digest.of(b"deleted")).unlink()
    distribution.history("v1", gone)
    result = take(distribution)
    assert result.entries == []
    assert ("team/app", str(gone)) not in result.manifests()
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


def test_an_index_without_one_of_its_manifests_keeps_the_others(distribution, take, sound, make_image, make_index):
    distribution.image()
    digest = distribution.manifest(make_index(make_image(), make_image((b"absent",))), "multi")
    result = take(distribution)
    assert result.damage == [("missing-children", "kept")]
    assert result.holding() == {**sound, "team/app": {"multi": str(digest)}}


def test_a_manifest_that_lies_about_sizes(distribution, take, sound, make_image):
    document = json.loads(make_image())
    document["layers"][0]["size"] += 1
    distribution.blob(b"layer"), distribution.blob(b"{}")
    distribution.manifest(json.dumps(document).encode(), "v1")
    result = take(distribution, verify=False)
    assert result.damage == [("lost-tag", "lost"), ("size-mismatch", "lost")]
    assert result.holding() == sound


def test_names_that_cannot_be(distribution, take, sound):
    digest = distribution.image("v1")
    for name in ("UPPER", "a..b", "-a", "a b", "\x1b[2J", "ü", os.fsdecode(b"\xff\xfe")):
        distribution.image("v1", repo=f"team/{name}")
    for tag in ("-v", "a b", os.fsdecode(b"\xff"), "x" * 200, "ä"):
        distribution.write(distribution.tag_link(tag), str(digest).encode())
    deep = "/".join(["abcdefghij"] * 24)
    distribution.image("v1", repo=deep)
    result = take(distribution)
    assert result.damage == [("invalid-name", "lost")] * 8 + [("invalid-tag", "lost")] * 5
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}
    for entry in result.entries:
        assert json.dumps(entry.to_json()).isprintable()


def test_foreign_files_are_left_alone(distribution, take, sound):
    digest = distribution.image("v1")
    distribution.write(distribution.place() / "_layers/sha256/notes.txt", b"")
    distribution.write(distribution.place() / "README", b"")
    distribution.write(distribution.root / "repositories/.DS_Store", b"")
    distribution.write(distribution.place() / "_uploads/0000-uuid/data", b"half")
    (distribution.place() / "_trash").mkdir()
    result = take(distribution)
    assert (result.damage, result.notes) == ([], ["foreign"] * 4)
    assert result.holding() == {**sound, "team/app": {"v1": str(digest)}}


@pytest.mark.parametrize("where", ["repository", "layers", "link", "tag", "current", "blobs"])
def test_symbolic_links_lead_nowhere(distribution, take, sound, tmp_path, where):
    """We may be root, and whoever wrote the folder may want us to serve them /etc/shadow."""
    from shutil import rmtree
    outside = tmp_path / "outside"
    digest = distribution.image("v1")
    target = {"repository": distribution.place(), "layers": distribution.place() / "_layers",
              "link": distribution.layer_link(Digest.of(b"layer")), "tag": distribution.tag_link("v1").parent.parent,
              "current": distribution.tag_link("v1"),
              "blobs": distribution.data(Digest.of(b"layer")).parent}[where]
    target.rename(outside)
    target.symlink_to(outside)
    result = take(distribution)
    assert result.holding() == sound, digest
    assert any(code in ("symlink", "not-a-file") for code, _ in result.damage)
    target.unlink()
    rmtree(outside) if outside.is_dir() else outside.unlink()


def test_a_folder_that_is_none(distribution, take, tmp_path):
    from ocispec.errors import InvalidArgument
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(InvalidArgument):
            take(distribution, source=str(source))


def test_a_manifest_that_is_too_large(distribution, take, sound):
    distribution.image("v1", annotations={"x": "y" * (4 << 20)})
    result = take(distribution)
    assert result.damage == [("lost-tag", "lost"), ("manifest-too-large", "lost")]
    assert result.holding() == sound
