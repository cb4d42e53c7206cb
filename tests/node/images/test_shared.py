"""Layers that the nodes of one machine share."""

import os
import stat
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from node.images.shared import SharedLayers, SharedUnusable, open_shared
from node.snapshots.links import link_tree
from node.snapshots.trees import disk_usage
from ocispec.digest import Digest
from tests.node.images.conftest import link, listing, mounted, symlink, tar
from tests.node.images.registry import FakeRegistry, serving
from tests.node.images.test_images import Room, opened

pytestmark = pytest.mark.root

LOWER = tar(("bin/", {"mode": 0o2755, "gid": 7}), ("bin/sh", {"data": b"#" * 5000, "mode": 0o4755}),
            ("bin/ash", link("bin/sh")), ("sh", symlink("bin/sh")), "old/", "old/gone", "kept/", "kept/hidden")
UPPER = tar("kept/", "kept/.wh..wh..opq", "kept/seen", ".wh.old", ("usr/lib/deep", {"data": b"x" * 300}))


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serving(FakeRegistry()) as made:
        made.image("app", "1", LOWER, UPPER)
        yield made


async def tree(room: Room, registry: FakeRegistry) -> dict[str, tuple[object, ...]]:
    image = await room.images.get(f"{registry.host}/app:1")
    await room.snapshots.create("look", image.chain)
    try:
        with mounted(await room.snapshots.mount("look")) as path:
            return listing(path)
    finally:
        await room.snapshots.remove("look")


async def test_a_second_node_takes_what_the_first_unpacked(tmp_path: Path, registry: FakeRegistry) -> None:
    shared = await open_shared(tmp_path / "shared", tmp_path)
    async with opened(tmp_path / "plain") as plain, opened(tmp_path / "one", shared=shared) as one:
        await plain.pull(registry, "app:1")
        await one.pull(registry, "app:1")
        asked = len([path for path in registry.requests if "/blobs/" in path])
        async with opened(tmp_path / "two", shared=shared) as two:
            await two.pull(registry, "app:1")
            assert len([path for path in registry.requests if "/blobs/" in path]) == asked + 1  # the config
            assert await tree(two, registry) == await tree(plain, registry)
            ours, theirs = ((room.home / "snapshots/overlay/l/1/bin/sh").stat() for room in (one, two))
            assert os.path.samestat(ours, theirs)
            assert (await two.images.usage()).total() == (await plain.images.usage()).total()
            # What one node removes is its own alone.
            await one.images.remove(f"{registry.host}/app:1")
            assert one.on_disk() == 0
            assert await tree(two, registry) == await tree(plain, registry)


async def test_layers_that_nobody_takes_go(tmp_path: Path, registry: FakeRegistry) -> None:
    await open_shared(tmp_path / "shared", tmp_path)
    shared = SharedLayers(tmp_path / "shared", grace=timedelta(seconds=-1))
    async with opened(tmp_path / "one", shared=shared) as one:
        await one.pull(registry, "app:1")
        await one.images.remove(f"{registry.host}/app:1")
        assert await shared.expire(timedelta(days=1)) == []
        await one.pull(registry, "app:1")
        assert len(await shared.expire(timedelta(seconds=-1))) == 2
        assert disk_usage(tmp_path / "shared") == 0
        await tree(one, registry)
        await one.images.remove(f"{registry.host}/app:1")
        await one.pull(registry, "app:1")  # from the registry again
        assert disk_usage(tmp_path / "shared") > 5000


async def test_what_is_not_whole_is_not_taken(tmp_path: Path, registry: FakeRegistry) -> None:
    shared = await open_shared(tmp_path / "shared", tmp_path)
    async with opened(tmp_path / "one", shared=shared) as one, opened(tmp_path / "two", shared=shared) as two:
        await one.pull(registry, "app:1")
        for size in (tmp_path / "shared/sizes").iterdir():
            size.unlink()  # as if the giver had been killed
        for blob in (tmp_path / "shared/blobs").iterdir():
            blob.unlink()
            blob.write_bytes(b"short")
        await two.pull(registry, "app:1")
        assert await tree(two, registry) == await tree(one, registry)


async def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(SharedUnusable):
            await open_shared(tmp_path / name, tmp_path)
    with pytest.raises(SharedUnusable, match="two file systems"):
        await open_shared(Path("/dev/seawall-test-shared"), tmp_path)
    Path("/dev/seawall-test-shared").rmdir()
    made = await open_shared(tmp_path / "new", tmp_path)
    assert isinstance(made, SharedLayers)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


async def test_a_tree_that_was_half_removed_is_not_taken_for_a_layer(tmp_path: Path) -> None:
    """A node was killed in the middle of expiring; then another one gives the layer again."""
    shared = await open_shared(tmp_path / "shared", tmp_path)
    tree, blob, digest = _layer(tmp_path)
    half = tmp_path / "shared/layers" / f"{digest.algorithm}-{digest.encoded}"
    half.mkdir()
    (half / "one").write_text("1")
    await shared.give(digest, tree, 2, digest, blob)
    (tmp_path / "taken").mkdir()
    assert await shared.take(digest, tmp_path / "taken") == 2
    assert sorted(path.name for path in (tmp_path / "taken").iterdir()) == ["one", "two"]


async def test_a_layer_that_goes_while_it_is_taken_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_shared(tmp_path / "shared", tmp_path)
    shared = SharedLayers(tmp_path / "shared", grace=timedelta(seconds=-1))
    tree, blob, digest = _layer(tmp_path)
    await shared.give(digest, tree, 2, digest, blob)

    def slowly(source: Path, target: Path) -> None:
        link_tree(source, target)
        (target / "two").unlink()  # as if it had been listed after its removal
        shared._expire(time.time() + 60)

    monkeypatch.setattr("node.images.shared.link_tree", slowly)
    (tmp_path / "taken").mkdir()
    assert await shared.take(digest, tmp_path / "taken") is None


def _layer(tmp_path: Path) -> tuple[Path, Path, Digest]:
    tree, blob = tmp_path / "tree", tmp_path / "blob"
    tree.mkdir()
    for name in ("one", "two"):
        (tree / name).write_text("1")
    blob.write_bytes(b"blob")
    return tree, blob, Digest.of(b"blob")
