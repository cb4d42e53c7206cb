"""`docker cp`, diff and export: a container's files, by workers that are shut into its tree (node.files).

A running container is entered; of a stopped one the root and its volumes are mounted for the work alone. Reading a
stopped container holds nobody up; writing into one keeps it from being started until the archive is in, as two mounts
of one overlay's upper directory must never both write.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Protocol

from node.containers.bundle.users import resolve_user
from node.containers.live import Live
from node.containers.model import Container
from node.containers.news import News
from node.files.errors import NotADirectory, PathMissing
from node.files.trees import Bound, Difference, Running, Stopped, Tree
from node.files.workers import Extraction, LayerStreaming, PathStat, Streaming, Workers
from node.snapshots.mounts import RootMount
from ocispec.errors import InvalidArgument, NotFound

ACCOUNTS = ("/etc/passwd", "/etc/group")
PATIENCE = 60.0
"""Seconds that a client may be silent while a stopped container waits for its archive."""

Body = AsyncIterator[bytes]


class NoSuchFile(NotFound):
    def __init__(self, path: str, container: str) -> None:
        super().__init__(f"Could not find the file {path} in container {container}")


class SilentClient(InvalidArgument):
    """The archive did not go on; the container is let go."""


class Snapshots(Protocol):
    """Roots, to be looked at (node.snapshots.store.RootSnapshots)."""

    async def mount(self, container_id: str) -> RootMount: ...
    async def view(self, container_id: str) -> RootMount: ...
    async def difference(self, container_id: str) -> Difference: ...


class ContainerFiles:
    """Names are a name, an id or a prefix. All methods raise NoSuchContainer."""

    def __init__(self, find: Callable[[str], Live], snapshots: Snapshots, workers: Workers, news: News) -> None:
        self._find = find
        self._snapshots = snapshots
        self._workers = workers
        self._news = news

    async def stat(self, name: str, path: str) -> PathStat:
        """Raises NoSuchFile, NotADirectory."""
        live = self._find(name)
        async with self._told(name, path), self._reading(live) as tree:
            return await self._workers.stat(tree, path)

    @contextlib.asynccontextmanager
    async def read(self, name: str, path: str) -> AsyncIterator[tuple[PathStat, Streaming]]:
        """Raises NoSuchFile, NotADirectory."""
        live = self._find(name)
        async with self._told(name, path), self._reading(live) as tree, self._workers.read(tree, path) as found:
            yield found
        self._news.tell(live.container, "archive-path")

    async def write(self, name: str, path: str, body: Body, *, keep_kinds: bool = False, as_user: bool = False) -> None:
        """`as_user`: everything belongs to the container's user. Raises NoSuchFile, NotADirectory, ReadOnly, Misfit."""
        live = self._find(name)
        async with self._told(name, path), self._writing(live) as tree:
            owner = await self._owner(live.container, tree) if as_user else None
            patient = body if isinstance(tree, Running) else _patient(body)
            await self._workers.write(tree, path, patient, Extraction(keep_kinds, owner))
        self._news.tell(live.container, "extract-to-dir")

    @contextlib.asynccontextmanager
    async def export(self, name: str) -> AsyncIterator[Streaming]:
        """The file system without volumes, as one tar."""
        live = self._find(name)
        async with self._reading(live, volumes=False) as tree, self._workers.export(tree) as stream:
            yield stream
        self._news.tell(live.container, "export")

    async def changes(self, name: str) -> list[tuple[int, str]]:
        """Kind (0 modified, 1 added, 2 deleted) and path."""
        live = self._find(name)
        return await self._workers.changes(await self._snapshots.difference(live.id))

    @contextlib.asynccontextmanager
    async def layer(self, live: Live) -> AsyncIterator[LayerStreaming]:
        """What the container changed, as a layer."""
        async with self._workers.layer(await self._snapshots.difference(live.id)) as stream:
            yield stream

    # -- trees

    @contextlib.asynccontextmanager
    async def _reading(self, live: Live, *, volumes: bool = True) -> AsyncIterator[Tree]:
        async with _entered(live) as running:
            if running is not None:
                yield running
                return
        mounts = _mounts(live.container) if volumes else ()
        yield Stopped(await self._snapshots.view(live.id), mounts)

    @contextlib.asynccontextmanager
    async def _writing(self, live: Live) -> AsyncIterator[Tree]:
        async with _entered(live) as running:
            if running is not None:
                yield running
                return
        async with live.lock:
            async with _entered(live) as running:  # it may have been started while we waited
                if running is not None:
                    yield running
                    return
            read_only = live.container.spec.security.read_only_rootfs
            root = await (self._snapshots.view if read_only else self._snapshots.mount)(live.id)
            yield Stopped(root, _mounts(live.container), writable=not read_only)

    async def _owner(self, container: Container, tree: Tree) -> tuple[int, int] | None:
        """Raises UnknownUser."""
        if not container.spec.user:
            return None
        texts: Mapping[str, bytes] = await self._workers.texts(tree, ACCOUNTS)
        user = resolve_user(container.spec.user, (), texts.get)
        return user.uid, user.gid

    @contextlib.asynccontextmanager
    async def _told(self, name: str, path: str) -> AsyncIterator[None]:
        try:
            yield
        except PathMissing as error:
            raise NoSuchFile(path, name) from error
        except NotADirectory as error:
            raise NotADirectory(error.message) from error


@contextlib.asynccontextmanager
async def _entered(live: Live) -> AsyncIterator[Running | None]:
    """The running container's namespaces, held by its first process; None when nothing runs."""
    pidfd = await asyncio.to_thread(_open_first, live.id, live.state.pid) if live.state.running else None
    if pidfd is None:
        yield None
        return
    try:
        yield Running(pidfd)
    finally:
        os.close(pidfd)


def _open_first(container_id: str, pid: int) -> int | None:
    """A pidfd of the process, which is the container's and no other that got its number since: its cgroup says so or,
    where a node has none, the root file system that its monitor mounted."""
    if pid <= 0:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        if container_id in Path(f"/proc/{pid}/cgroup").read_text() or container_id in _root_mount(pid):
            return pidfd
    except OSError:
        pass
    os.close(pidfd)
    return None


def _root_mount(pid: int) -> str:
    """The line of /proc/<pid>/mountinfo that says what its root is. Raises OSError."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines()
    return next((line for line in lines if line.split(" ")[4:5] == ["/"]), "")


def _mounts(container: Container) -> tuple[Bound, ...]:
    """Volumes and binds, outer ones first, and the three files that every container gets. A tmpfs is gone."""
    folder = Path(container.directory)
    own = [Bound(str(folder / name), f"/etc/{name}") for name in ("hosts", "hostname", "resolv.conf")]
    points = [point for point in container.mounts if point.kind in ("bind", "volume") and point.source]
    taken = {point.target for point in points}
    user = [Bound(point.source, point.target, point.read_only, point.recursive, point.subpath)
            for point in sorted(points, key=lambda point: point.target.count("/"))]  # fmt: skip
    return (*(bound for bound in own if bound.target not in taken), *user)


async def _patient(body: Body) -> Body:
    stream = aiter(body)
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), PATIENCE)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise SilentClient(f"the archive did not go on for {PATIENCE:.0f} seconds") from error
