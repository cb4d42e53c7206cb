"""What every snapshotter must do; run by tests/node/snapshots for each of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from node.snapshots.store import SnapshotExists, SnapshotMissing, Snapshotter
from ocispec.digest import Digest
from ocispec.image import chain_ids


def chain(*names: str) -> tuple[Digest, ...]:
    return chain_ids([Digest("sha256", hashlib.sha256(name.encode()).hexdigest()) for name in names])


async def add(snapshots: Snapshotter, layers: Sequence[Digest], name: str) -> Path:
    target = await snapshots.prepare(layers)
    (target.directory / name).write_text(name)
    await snapshots.settle(target)
    return target.directory


class SnapshotterContract:
    """Subclasses give a fixture `snapshots`."""

    async def test_a_layer_is_there_when_it_is_settled(self, snapshots: Snapshotter) -> None:
        layers = chain("a")
        assert not snapshots.has(layers[0])
        await add(snapshots, layers, "a")
        assert snapshots.has(layers[0])
        assert not snapshots.chains()
        await snapshots.publish(layers)
        assert list(snapshots.chains()) == list(layers)

    async def test_what_is_discarded_leaves_nothing(self, snapshots: Snapshotter) -> None:
        target = await snapshots.prepare(chain("a"))
        await snapshots.discard(target)
        assert not target.directory.exists()
        assert not snapshots.has(target.chain_id)

    async def test_the_second_of_two_same_layers_is_dropped(self, snapshots: Snapshotter) -> None:
        first = await add(snapshots, chain("a"), "a")
        second = await add(snapshots, chain("a"), "a")
        assert first.exists()
        assert not second.exists()

    async def test_only_what_is_there_can_be_published(self, snapshots: Snapshotter) -> None:
        with pytest.raises(SnapshotMissing):
            await snapshots.publish(chain("a"))

    async def test_a_root_needs_its_layers_and_is_made_once(self, snapshots: Snapshotter) -> None:
        with pytest.raises(SnapshotMissing):
            await snapshots.create("one", chain("a"))
        await add(snapshots, chain("a"), "a")
        await snapshots.create("one", chain("a"))
        with pytest.raises(SnapshotExists):
            await snapshots.create("one", chain("a"))
        assert await snapshots.usage("one") == 0
        await snapshots.remove("one")
        await snapshots.remove("one")
        with pytest.raises(SnapshotMissing):
            await snapshots.mount("one")

    async def test_an_empty_root_can_be_had(self, snapshots: Snapshotter) -> None:
        await snapshots.create("empty", ())
        mount = await snapshots.mount("empty")
        assert mount.type == "bind"
        assert not list(Path(mount.source).iterdir())

    async def test_ids_that_are_paths_are_refused(self, snapshots: Snapshotter) -> None:
        for name in ("", "..", "a/b", "."):
            with pytest.raises(SnapshotMissing):
                await snapshots.create(name, ())

    async def test_what_a_container_wrote_can_be_told_from_its_layers(self, snapshots: Snapshotter) -> None:
        await add(snapshots, chain("a"), "a")
        await snapshots.create("one", chain("a"))
        difference = await snapshots.difference("one")
        assert difference.below is not None
        assert difference.own.is_dir()
        assert (difference.own / "a").exists() == difference.whole
        await snapshots.forget(chain("a")[0])
        assert (Path(difference.below.source) / "a").exists()
        assert await snapshots.view("one")
        with pytest.raises(SnapshotMissing):
            await snapshots.difference("two")
        await snapshots.remove("one")
        assert not Path(difference.below.source).exists()
