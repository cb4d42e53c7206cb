"""Snapshots by plain copies: every layer is a whole tree, and so is every container's root.

Costs disk and time where the file system has no reflinks; works wherever directories do.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from node.snapshots.index import Index, in_thread
from node.snapshots.mounts import Difference, RootMount
from node.snapshots.store import LayerTarget
from node.snapshots.trees import copy_tree, disk_usage
from ocispec.digest import Digest


class VfsSnapshotter:
    """Snapshotter over one folder. Build it with `open`."""

    bare = False

    def __init__(self, root: Path) -> None:
        self._index = Index(root)

    @classmethod
    async def open(cls, root: Path) -> "VfsSnapshotter":
        self = cls(root)
        await self._index.load()
        return self

    # -- layers

    def has(self, chain_id: Digest) -> bool:
        return self._index.has(chain_id)

    def chains(self) -> Sequence[Digest]:
        return self._index.published()

    def tree(self, chain_id: Digest) -> Path:
        return self._index.directory(self._index.number(chain_id))

    async def layers_usage(self, known: Mapping[Digest, int]) -> tuple[Mapping[Digest, int], int]:
        """A layer's folder holds those below it too, and that is what it takes."""
        here, strays = {}, 0
        for number, chain_id in self._index.present().items():
            size = await self._index.usage(number)
            if chain_id is None or chain_id not in known:
                strays += size
            else:
                here[chain_id] = size
        return here, strays

    async def prepare(self, chain: Sequence[Digest]) -> LayerTarget:
        below = [self._index.number(chain[-2])] if len(chain) > 1 else []
        async with self._index.held(below):
            number = await self._index.reserve()
            target = self._index.directory(number)
            for source in map(self._index.directory, below):
                await self._index.filling(number, partial(copy_tree, source, target))
        return LayerTarget(chain[-1], number, target, False, tuple(chain[:-1]))

    async def settle(self, target: LayerTarget, *, inherit_root: bool = False) -> None:  # noqa: ARG002 - a copy has it
        await self._index.settle(target.chain_id, target.number)

    async def publish(self, chain: Sequence[Digest]) -> None:
        await self._index.publish(chain)

    async def discard(self, target: LayerTarget) -> None:
        await self._index.drop(target.number)

    async def adopt(self, container_id: str, chain: Sequence[Digest]) -> bool:  # noqa: ARG002 -- the Protocol's
        return False

    async def forget(self, chain_id: Digest) -> None:
        await self._index.forget(chain_id)

    def lower(self, target: LayerTarget) -> RootMount | None:
        below = self._top(target.below)
        return None if below is None else RootMount("bind", str(below), ("ro", "rbind"))

    def merged(self, target: LayerTarget) -> RootMount:
        return RootMount("bind", str(target.directory), ("rw", "rbind"))

    def _top(self, chain: Sequence[Digest]) -> Path | None:
        return self._index.directory(self._index.number(chain[-1])) if chain else None

    # -- containers

    async def create(self, container_id: str, chain: Sequence[Digest]) -> None:
        top = [self._index.number(chain[-1])] if chain else []
        async with self._index.held(top):
            trees = [self._index.directory(number) for number in top]
            await self._index.add_container(container_id, chain[-1:], lambda folder: _writable(folder, trees))

    async def mount(self, container_id: str) -> RootMount:
        return RootMount("bind", str(self._index.container(container_id) / "fs"), ("rw", "rbind"))

    async def view(self, container_id: str) -> RootMount:
        return RootMount("bind", str(self._index.container(container_id) / "fs"), ("ro", "rbind"))

    async def difference(self, container_id: str) -> Difference:
        """A container keeps the layer it was copied from for this."""
        folder = self._index.container(container_id)
        layers = [str(self._index.directory(number)) for number in self._index.stack(container_id)]
        below = RootMount("bind", layers[0], ("ro", "rbind")) if layers else None
        return Difference(folder / "fs", below, whole=True)

    async def remove(self, container_id: str) -> None:
        await self._index.remove_container(container_id)

    async def usage(self, container_id: str) -> int:
        folder = self._index.container(container_id)
        return await in_thread(lambda: max(0, disk_usage(folder / "fs") - int((folder / "base").read_text())))


def _writable(folder: Path, top: Sequence[Path]) -> None:
    tree = folder / "fs"
    tree.mkdir(mode=0o755)
    for source in top:
        copy_tree(source, tree)
    (folder / "base").write_text(str(disk_usage(tree)))
