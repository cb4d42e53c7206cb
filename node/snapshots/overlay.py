"""Snapshots by the kernel's overlayfs (Documentation/filesystems/overlayfs.rst): a bare directory a layer.

Whiteouts are character devices 0:0, opaque directories carry trusted.overlay.opaque=y, or
user.overlay.opaque=y where the node is root of a user namespace alone (kernel ≥ 5.11).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from node.linux.usernamespaces import OVERLAY_OPTIONS
from node.snapshots.index import Index, in_thread
from node.snapshots.mounts import Difference, RootMount
from node.snapshots.store import ChainTooLong, LayerTarget
from node.snapshots.trees import copy_attributes, disk_usage, remove_tree
from ocispec.digest import Digest

MAX_LAYERS = 500
"""OVL_MAX_STACK of the kernel's fs/overlayfs/params.h."""

# The kernel's build may switch these on; an upper directory that uses them cannot serve as a layer, nor be understood
# when it is copied or moved.
PORTABLE = ("metacopy=off", "index=off", *OVERLAY_OPTIONS)


class OverlaySnapshotter:
    """Snapshotter over one folder. Build it with `open`."""

    bare = True

    def __init__(self, root: Path) -> None:
        self._index = Index(root)
        self._work = root / "w"

    @classmethod
    async def open(cls, root: Path) -> "OverlaySnapshotter":
        self = cls(root)
        await self._index.load()
        await in_thread(self._clear_work)
        return self

    def _clear_work(self) -> None:
        remove_tree(self._work)
        self._work.mkdir(mode=0o700)

    # -- layers

    def has(self, chain_id: Digest) -> bool:
        return self._index.has(chain_id)

    def chains(self) -> Sequence[Digest]:
        return self._index.published()

    def tree(self, chain_id: Digest) -> Path:
        return self._index.directory(self._index.number(chain_id))

    async def layers_usage(self, known: Mapping[Digest, int]) -> tuple[Mapping[Digest, int], int]:
        here, strays = {}, 0
        for number, chain_id in self._index.present().items():
            if chain_id is None or chain_id not in known:
                strays += await self._index.usage(number)
            else:
                here[chain_id] = known[chain_id]
        return here, strays

    async def prepare(self, chain: Sequence[Digest]) -> LayerTarget:
        _check_length(chain)
        number = await self._index.reserve()
        return LayerTarget(chain[-1], number, self._index.directory(number), True, tuple(chain[:-1]))

    async def settle(self, target: LayerTarget, *, inherit_root: bool = False) -> None:
        if inherit_root and target.below:
            below = self._index.directory(self._index.number(target.below[-1]))
            await in_thread(lambda: _like(below, target.directory))
        await self._index.settle(target.chain_id, target.number)
        await in_thread(lambda: remove_tree(self._work / str(target.number)))

    async def publish(self, chain: Sequence[Digest]) -> None:
        await self._index.publish(chain)

    async def discard(self, target: LayerTarget) -> None:
        await self._index.drop(target.number)
        await in_thread(lambda: remove_tree(self._work / str(target.number)))

    async def adopt(self, container_id: str, chain: Sequence[Digest]) -> bool:
        upper = self._index.container(container_id) / "upper"
        number = await self._index.reserve()
        below = self._index.directory(self._index.number(chain[-2])) if len(chain) > 1 else None
        # A directory takes the place of an empty one: whoever dies in between leaves a layer that nothing names.
        await self._index.filling(number, lambda: _moved(upper, self._index.directory(number), below))
        await self._index.settle(chain[-1], number)
        return True

    async def forget(self, chain_id: Digest) -> None:
        await self._index.forget(chain_id)

    def lower(self, target: LayerTarget) -> RootMount | None:
        return self._read_only(self._stack(target.below))

    def _read_only(self, stack: Sequence[int]) -> RootMount | None:
        if len(stack) < 2:
            # overlayfs wants two lower directories when there is no upper one.
            source = str(self._index.directory(stack[0])) if stack else ""
            return RootMount("bind", source, ("ro", "rbind")) if stack else None
        return RootMount("overlay", "overlay", (_lowerdir(stack), *PORTABLE), str(self._index.layers))

    def merged(self, target: LayerTarget) -> RootMount:
        stack = self._stack(target.below)
        if not stack:
            return RootMount("bind", str(target.directory), ("rw", "rbind"))
        work = self._work / str(target.number)
        work.mkdir(mode=0o700, exist_ok=True)
        return RootMount("overlay", "overlay", (
            _lowerdir(stack), f"upperdir={target.number}", f"workdir=../w/{target.number}", *PORTABLE,
        ), str(self._index.layers))

    def _stack(self, chain: Sequence[Digest]) -> list[int]:
        return [self._index.number(chain_id) for chain_id in reversed(chain)]

    # -- containers

    async def create(self, container_id: str, chain: Sequence[Digest]) -> None:
        _check_length(chain)
        top = self._index.directory(self._index.number(chain[-1])) if chain else None
        await self._index.add_container(container_id, chain, lambda folder: _writable(folder, top))

    async def mount(self, container_id: str) -> RootMount:
        folder = self._index.container(container_id)
        stack = self._index.stack(container_id)
        if not stack:
            return RootMount("bind", str(folder / "upper"), ("rw", "rbind"))
        return RootMount("overlay", "overlay", (
            _lowerdir(stack), f"upperdir=../c/{container_id}/upper", f"workdir=../c/{container_id}/work", *PORTABLE,
        ), str(self._index.layers))

    async def view(self, container_id: str) -> RootMount:
        folder = self._index.container(container_id)
        stack = self._index.stack(container_id)
        if not stack:
            return RootMount("bind", str(folder / "upper"), ("ro", "rbind"))
        # The container's own tree as the topmost lower one: nothing is written and no work directory is claimed.
        lower = f"lowerdir=../c/{container_id}/upper:{':'.join(map(str, stack))}"
        return RootMount("overlay", "overlay", (lower, *PORTABLE), str(self._index.layers))

    async def difference(self, container_id: str) -> Difference:
        folder = self._index.container(container_id)
        return Difference(folder / "upper", self._read_only(self._index.stack(container_id)), whole=False)

    async def remove(self, container_id: str) -> None:
        await self._index.remove_container(container_id)

    async def usage(self, container_id: str) -> int:
        upper = self._index.container(container_id) / "upper"
        return await in_thread(lambda: disk_usage(upper))


def _lowerdir(stack: Sequence[int]) -> str:
    return "lowerdir=" + ":".join(map(str, stack))


def _check_length(chain: Sequence[Digest]) -> None:
    if len(chain) > MAX_LAYERS:
        raise ChainTooLong(f"an image of {len(chain)} layers: overlayfs stacks at most {MAX_LAYERS}")


def _writable(folder: Path, top: Path | None) -> None:
    upper = folder / "upper"
    upper.mkdir(mode=0o755)
    (folder / "work").mkdir(mode=0o700)
    if top is not None:
        _like(top, upper)


def _moved(upper: Path, target: Path, below: Path | None) -> None:
    upper.rename(target)
    if below is not None:
        # The packed layer says nothing about the root: whoever unpacks it has what is below.
        _like(below, target)


def _like(below: Path, above: Path) -> None:
    """A merged root shows the attributes of the uppermost directory, not those of the layers below it."""
    source, target = os.open(below, os.O_RDONLY | os.O_CLOEXEC), os.open(above, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy_attributes(source, target)
    finally:
        os.close(source)
        os.close(target)
