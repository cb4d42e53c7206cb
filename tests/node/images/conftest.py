"""A node's image room on real stores below tmp_path, and trees compared by what a container would see."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from node.images.image import Layer
from node.images.layers import Layers, Wanted
from node.images.unpack.pool import UnpackLimits, UnpackPool
from node.linux import syscalls
from node.snapshots.choose import open_snapshotter
from node.snapshots.store import Snapshotter
from node.state.database import open_state
from node.state.snapshots import DownloadRows, LayerSizeRows
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.image import chain_ids
from ocispec.reference import RepositoryName
from storage.blobs.disk import DiskBlobs
from storage.metadata.engine import open_database
from storage.repository.store import ContentStore

REPOSITORY = RepositoryName.qualified("localhost", RepositoryName.parse("test"))


class Unpacker:
    """Layers of bytes in, mounted trees out."""

    def __init__(self, content: ContentStore, snapshots: Snapshotter, layers: Layers) -> None:
        self.content = content
        self.snapshots = snapshots
        self.layers = layers
        self.statuses: list[tuple[str, int, int]] = []
        self._roots = 0

    async def store(self, data: bytes) -> Descriptor:
        upload = await self.content.uploads.start(REPOSITORY)

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await upload.append(chunks())
        digest = Digest.of(data)
        await upload.commit(digest)
        return Descriptor(mediatype.OCI_LAYER, digest, len(data))

    async def unpack(self, tars: Sequence[bytes], *, at_once: bool = False) -> tuple[Digest, ...]:
        """Plain tars, bottom first; gives the chain. `at_once` asks for all layers together, else one by one."""
        diff_ids = [Digest.of(tar) for tar in tars]
        chain = chain_ids(diff_ids)
        layers = [Layer(await self.store(gzip.compress(tar, 1)), diff_id, chain[:number + 1], "gzip")
                  for number, (tar, diff_id) in enumerate(zip(tars, diff_ids, strict=True))]
        await self.unpack_layers(layers, at_once=at_once)
        return chain

    async def unpack_layers(self, layers: Sequence[Layer], *, at_once: bool = False) -> None:
        wanted = Wanted(layers, REPOSITORY, None)
        if at_once:
            work = [self.layers.ensure(wanted, number, self._say) for number in range(len(layers))]
            failures = [one for one in await asyncio.gather(*work, return_exceptions=True) if one not in (True, False)]
            if failures:
                raise failures[0]  # type: ignore[misc]
        else:
            for number in range(len(layers)):
                await self.layers.ensure(wanted, number, self._say)
        await self.layers.publish([layer.chain_id for layer in layers])

    def _say(self, status: str, current: int, total: int) -> None:
        self.statuses.append((status, current, total))

    @contextlib.asynccontextmanager
    async def root(self, chain: Sequence[Digest]) -> AsyncIterator[Path]:
        """The tree that a container upon these layers would see."""
        self._roots += 1
        name = f"root{self._roots}"
        await self.snapshots.create(name, chain)
        try:
            with mounted(await self.snapshots.mount(name)) as path:
                yield path
        finally:
            await self.snapshots.remove(name)


@contextlib.contextmanager
def mounted(mount: "object") -> Iterator[Path]:
    from node.snapshots.mounts import RootMount

    assert isinstance(mount, RootMount)
    if mount.type == "bind":
        yield Path(mount.source)
        return
    place = Path(mount.cwd).parent / "mounted"
    place.mkdir(exist_ok=True)
    here = os.getcwd()
    os.chdir(mount.cwd)
    try:
        syscalls.mount(mount.source, str(place), mount.type, 0, mount.data())
    finally:
        os.chdir(here)
    try:
        yield place
    finally:
        syscalls.umount(str(place))


Make = Callable[..., contextlib.AbstractAsyncContextManager[Unpacker]]


@pytest.fixture
def unpacker(tmp_path: Path) -> Make:
    """`async with unpacker("overlay") as u`: several may live beside each other."""
    @contextlib.asynccontextmanager
    async def make(kind: str, limits: UnpackLimits | None = None, root: Path | None = None) -> AsyncIterator[Unpacker]:
        home = root or tmp_path / f"home-{kind}"
        home.mkdir(exist_ok=True, parents=True)
        blobs = DiskBlobs(home / "content")
        await blobs.prepare()
        async with (
            open_database(f"sqlite+aiosqlite:///{home}/content.db") as database,
            open_state(home / "state.db") as state,
            UnpackPool(limits or UnpackLimits(), 2) as pool,
        ):
            content = ContentStore(database, blobs)
            snapshots = await open_snapshotter(home / "snapshots", kind)
            layers = Layers(content, snapshots, pool, LayerSizeRows(state), DownloadRows(state))
            try:
                yield Unpacker(content, snapshots, layers)
            finally:
                await layers.close()
    return make


def listing(root: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything that can be seen of a tree: type, mode, owner, content or target, xattrs, names of an inode, mtime."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    todo = [""]
    while todo:
        here = todo.pop()
        path = root / here
        info = path.lstat()
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFDIR:
            todo.extend(sorted((f"{here}/{name}".lstrip("/") for name in os.listdir(path)), reverse=True))
        first = inodes.setdefault(info.st_ino, here) if kind != stat.S_IFDIR else here
        content: object = ""
        if kind == stat.S_IFREG:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = (os.major(info.st_rdev), os.minor(info.st_rdev))
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False)
                  for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.overlay.")}
        seen: tuple[object, ...] = (kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, content, first,
                                    tuple(sorted(xattrs.items())))
        found[here] = (*seen, info.st_mtime_ns) if times and kind != stat.S_IFDIR else seen
    return found


def tar(*members: "tuple[str, dict[str, object]] | str", **defaults: object) -> bytes:
    """A tar of `"name"` (file; directory with a trailing slash), or `(name, {field: value, "data": bytes})`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            name, fields = (member, {}) if isinstance(member, str) else member
            info = tarfile.TarInfo(name.rstrip("/") or name)
            info.name = name
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.mode = 0o755 if name.endswith("/") else 0o644
            fields = {**defaults, **fields}
            data = fields.pop("data", name.encode() if info.type == tarfile.REGTYPE and "type" not in fields else b"")
            assert isinstance(data, bytes)
            for key, value in fields.items():
                setattr(info, key, value)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def link(target: str) -> dict[str, object]:
    return {"type": tarfile.LNKTYPE, "linkname": target}


def symlink(target: str) -> dict[str, object]:
    return {"type": tarfile.SYMTYPE, "linkname": target}
