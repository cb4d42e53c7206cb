"""Layers that the nodes of one machine share: unpacked and verified once, taken by hard links ever after.

    <root>/layers/<chain id>/       one layer's own files, in overlayfs' form
    <root>/sizes/<chain id>         bytes of its files, digest of its blob; the mtime is when it was last taken
    <root>/blobs/<digest>           the layer as it came from the registry
    <root>/lock                     held by who puts in or removes

Only root may be in there (`open_shared` looks), because what is in there is believed: a node puts a layer in after it
has verified digest and diff_id, and a layer is in there exactly while it has a size. Whoever takes one has the manifest
from a registry that showed it to him. A taken layer is the node's own: what others remove does not touch it.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from node.snapshots.links import link_tree
from node.snapshots.trees import remove_tree
from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition

log = logging.getLogger(__name__)

_FOLDERS = ("layers", "sizes", "blobs")


class SharedUnusable(FailedPrecondition):
    """The folder cannot be used; the message says why."""


class SharedLayers:
    def __init__(self, root: Path, grace: timedelta = timedelta(hours=1)) -> None:
        self._root = root
        self._grace = grace

    async def take(self, chain_id: Digest, target: Path) -> int | None:
        """Fill the empty `target`; gives the bytes of its files. None: not there, or it cannot be linked (any more),
        and what `target` holds then is to be thrown away."""
        return await asyncio.to_thread(self._take, _name(chain_id), target)

    def _take(self, name: str, target: Path) -> int | None:
        with contextlib.suppress(FileNotFoundError), (self._root / "sizes" / name).open() as file:
            size = int(file.read().split()[0])
            try:
                link_tree(self._root / "layers" / name, target)
                os.utime(file.fileno())
            except OSError as error:
                log.info("shared layer %s is not taken: %s", name, error)
                return None
            # A tree is only removed after its size: one that still has it has been whole all the time.
            return size if os.fstat(file.fileno()).st_nlink else None
        return None

    async def open_blob(self, digest: Digest) -> int | None:
        """A descriptor that the caller closes."""
        def opened() -> int | None:
            with contextlib.suppress(FileNotFoundError):
                return os.open(self._root / "blobs" / _name(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            return None
        return await asyncio.to_thread(opened)

    async def give(self, chain_id: Digest, tree: Path, size: int, digest: Digest, blob: Path) -> None:
        """A verified layer, for others. Whatever hinders is only logged: the layer is there for us anyway."""
        try:
            await asyncio.to_thread(self._give, _name(chain_id), tree, size, _name(digest), blob)
        except OSError as error:
            log.info("layer %s is not shared: %s", chain_id, error)

    def _give(self, name: str, tree: Path, size: int, blob_name: str, blob: Path) -> None:
        if (self._root / "sizes" / name).exists():
            return
        with self._alone():
            self._put(name, tree, size, blob_name, blob)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Of all nodes that put in or remove: a tree of before, perhaps half removed, is not taken for a new one."""
        lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _put(self, name: str, tree: Path, size: int, blob_name: str, blob: Path) -> None:
        if (self._root / "sizes" / name).exists():
            return  # another node was faster
        remove_tree(self._root / "layers" / name)
        with contextlib.suppress(FileExistsError):
            os.link(blob, self._root / "blobs" / blob_name, follow_symlinks=False)
        made = self._root / "layers" / f".{secrets.token_hex(8)}"
        made.mkdir(0o700)
        try:
            link_tree(tree, made)
            made.rename(self._root / "layers" / name)
            part = self._root / "sizes" / f".{secrets.token_hex(8)}"
            part.write_text(f"{size} {blob_name}")
            part.rename(self._root / "sizes" / name)
        finally:
            remove_tree(made)

    async def expire(self, older_than: timedelta) -> Sequence[str]:
        """Remove layers that nobody took for so long, blobs that no other name holds, and what a crash left."""
        return await asyncio.to_thread(self._expire, time.time() - older_than.total_seconds())

    def _expire(self, before: float) -> list[str]:
        with self._alone():
            return self._drop(before)

    def _drop(self, before: float) -> list[str]:
        gone, kept = [], set()
        for size in sorted((self._root / "sizes").iterdir()):
            if size.stat().st_mtime < before:
                size.unlink(missing_ok=True)
                gone.append(size.name)
            else:
                kept |= {size.name, *size.read_text().split()[1:]}
        # What has no size is a layer that went, or one that is just coming: that one's ctime is young.
        young = time.time() - self._grace.total_seconds()
        for folder in ("layers", "blobs"):
            for entry in (self._root / folder).iterdir():
                if entry.name not in kept and entry.lstat().st_ctime < young:
                    remove_tree(entry)
        return gone


async def open_shared(root: Path, home: Path) -> SharedLayers:
    """Raises SharedUnusable."""
    await asyncio.to_thread(_prepare, root, home)
    return SharedLayers(root)


def _prepare(root: Path, home: Path) -> None:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = root.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise SharedUnusable(f"the shared layers' folder {root} must belong to root and to nobody else (mode 0700)")
        if info.st_dev != home.stat().st_dev:
            raise SharedUnusable(f"{root} and {home} are on two file systems: files cannot be linked between them")
        for name in _FOLDERS:
            (root / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SharedUnusable(f"the shared layers' folder {root} cannot be used: {error}") from error


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.encoded}"
