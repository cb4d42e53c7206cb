"""The daemon's side of the files workers: what can be asked of a container's tree, and of archives that come in.

The process is started by the first job and kept; each job is a child of it.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from node.files.errors import FilesFailed, TooMuch
from node.files.job import Job, Outlet, make_outlet
from node.files.trees import Difference, Running, Stopped, Tree
from node.images.unpack.pool import Feed, UnpackLimits, make_feed
from node.snapshots.mounts import RootMount
from ocispec.digest import Digest

Body = AsyncIterator[bytes]

MAX_CHANGES = 128 * 1024 * 1024
"""Bytes that one list of changes may take: a container makes files as it likes."""

_EACH = 200


@dataclass(frozen=True, slots=True)
class PathStat:
    """What is at a path. `mode` is Go's fs.FileMode; `target`: where a symbolic link leads in the end."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    target: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A layer as its bytes came out of a worker. `compression`: gzip or zstd."""

    diff_id: Digest
    digest: Digest
    size: int
    plain_size: int
    compression: str


@dataclass(frozen=True, slots=True)
class Extraction:
    """`keep_kinds`: no directory is replaced by a file, nor a file by a directory. `owner`: uid and gid of all that is
    put, instead of the archive's."""

    keep_kinds: bool = False
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What COPY takes of a tree and where it goes (`node.files.gathering.Wanted`)."""

    sources: tuple[str, ...]
    target: str
    folder: bool
    parents: bool = False
    exclude: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None
    mode: str = ""
    there: bool = False
    hidden: tuple[str, ...] = ()
    done: tuple[str, ...] = ()

    def to_json(self) -> Mapping[str, Any]:
        return {"sources": self.sources, "target": self.target, "folder": self.folder, "parents": self.parents,
                "exclude": self.exclude, "owner": self.owner, "mode": self.mode, "there": self.there,
                "hidden": self.hidden, "done": self.done}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """One member of an archive. `kind`: file, symlink or hardlink (then `link` is its target as spelled); a file's
    bytes lie in the spool folder under `file`, `packed` is their compression."""

    name: str
    kind: str
    link: str = ""
    file: str = ""
    size: int = 0
    digest: str = ""
    packed: str = ""


class Streaming:
    """Bytes that a job gives while it runs; `done` after the last of them."""

    def __init__(self, job: Job, outlet: Outlet) -> None:
        self._job = job
        self._outlet = outlet

    def chunks(self) -> Body:
        return self._outlet.chunks()

    async def done(self) -> Mapping[str, Any]:
        """Raises what went wrong in the middle."""
        return await self._job.done()


class LayerStreaming(Streaming):
    """A layer's bytes. `feeding`: where the job gets its own from; a part of them makes no layer."""

    def __init__(self, job: Job, outlet: Outlet, feeding: "asyncio.Future[None] | None" = None) -> None:
        super().__init__(job, outlet)
        self._feeding = feeding

    async def packed(self) -> Packed:
        """After the last chunk. Raises what went wrong on the way."""
        if self._feeding is not None:
            await self._feeding
        done = await self.done()
        return Packed(Digest("sha256", done["diff_id"]), Digest("sha256", done["digest"]), done["size"],
                      done["plain_size"], done["packed"])  # fmt: skip


class Workers:
    """`scratch`: a folder over which a job may mount, in a namespace of its own."""

    def __init__(self, scratch: Path, limits: UnpackLimits) -> None:
        self._scratch = str(scratch)
        self._limits = limits
        self._starting = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()
            self._control = None
        if process is not None:
            await asyncio.to_thread(process.wait)

    # -- trees

    async def stat(self, tree: Tree, path: str) -> PathStat:
        """Raises PathMissing, NotADirectory, Misfit."""
        async with self._in_tree("stat", tree, {}, path=path) as job:
            return _stat(await job.done())

    @contextlib.asynccontextmanager
    async def read(self, tree: Tree, path: str) -> AsyncIterator[tuple[PathStat, Streaming]]:
        """What is at the path and all below it, as tar."""
        async with self._out() as (outlet, writing), self._in_tree("read", tree, {"output": writing}, path=path) as job:
            stat = _stat((await job.message())["stat"])
            yield stat, Streaming(job, outlet)

    async def write(self, tree: Tree, path: str, body: Body, how: Extraction) -> None:
        """Put an archive (of any known compression) into the directory at `path`. Raises PathMissing, NotADirectory,
        ReadOnly, Misfit, NoSpace, TooMuch."""
        reading, feed = make_feed()
        fields = {"path": path, "keep_kinds": how.keep_kinds, "owner": how.owner, **self._bounds()}
        async with self._in_tree("write", tree, {"input": reading}, **fields) as job:
            await self._fed(feed, body, job.done())

    async def texts(self, tree: Tree, paths: Sequence[str]) -> Mapping[str, bytes]:
        """The first MiB of regular files; those that are not there are left out."""
        async with self._in_tree("texts", tree, {}, paths=list(paths)) as job:
            return {path: text.encode("utf-8", "surrogateescape") for path, text in (await job.done()).items()}

    @contextlib.asynccontextmanager
    async def export(self, tree: Tree) -> AsyncIterator[Streaming]:
        """The root file system without what is mounted in it, as tar."""
        async with self._out() as (outlet, writing), self._in_tree("export", tree, {"output": writing}) as job:
            await job.message()
            yield Streaming(job, outlet)

    # -- differences

    async def changes(self, difference: Difference) -> list[tuple[int, str]]:
        """Kind (0 modified, 1 added, 2 deleted) and absolute path, parents before what is in them."""
        found, size = [], 0
        async with self._job("changes", {}, **self._difference(difference)) as job:
            async for kind, path in job.many("changes"):
                found.append((kind, f"/{path}"))
                size += len(path) + _EACH
                if size > MAX_CHANGES:
                    raise TooMuch(f"the container has changed too much to be listed: more than {len(found)} paths")
        return found

    @contextlib.asynccontextmanager
    async def layer(self, difference: Difference, newest: int | None = None) -> AsyncIterator[LayerStreaming]:
        """The difference as a gzipped layer. `newest`: seconds since the epoch; no file in it is younger."""
        fields = {**self._difference(difference), "newest": newest}
        async with self._out() as (outlet, writing), self._job("layer", {"output": writing}, **fields) as job:
            yield LayerStreaming(job, outlet)

    # -- what builds copy

    async def digest(self, tree: Tree, choice: Choice) -> str:
        """Of all that counts about the files chosen: names, kinds, modes, owners, contents. Raises PathMissing, Misfit,
        TooMuch."""
        async with self._in_tree("gather", tree, {}, what="digest", **choice.to_json()) as job:
            return str((await job.done())["digest"])

    async def archives(self, tree: Tree, choice: Choice) -> list[str]:
        """Which of the sources are archives."""
        async with self._in_tree("gather", tree, {}, what="archives", **choice.to_json()) as job:
            return list((await job.done())["archives"])

    @contextlib.asynccontextmanager
    async def gather(self, tree: Tree, choice: Choice) -> AsyncIterator[Streaming]:
        """The files chosen, as tar, under the names they get."""
        async with (
            self._out() as (outlet, writing),
            self._in_tree("gather", tree, {"output": writing}, what="tar", **choice.to_json()) as job,
        ):
            yield Streaming(job, outlet)

    @contextlib.asynccontextmanager
    async def raw(self, tree: Tree, path: str) -> AsyncIterator[Streaming]:
        """The bytes of a regular file. Raises PathMissing, in the middle of the stream."""
        async with self._out() as (outlet, writing), self._in_tree("raw", tree, {"output": writing}, path=path) as job:
            yield Streaming(job, outlet)

    async def tidy(self, difference: Difference, paths: Sequence[str]) -> None:
        """Take away, of a container's own tree, what was made only to be mounted over: empty files and directories."""
        async with self._job("tidy", {}, own=str(difference.own), paths=list(paths)) as job:
            await job.done()

    # -- archives that come in

    @contextlib.asynccontextmanager
    async def pack(self, body: Body) -> AsyncIterator[LayerStreaming]:
        """An archive of any known compression as a layer."""
        reading, feed = make_feed()
        async with self._out() as (outlet, writing):
            fds = {"input": reading, "output": writing}
            async with self._job("pack", fds, max_bytes=self._limits.max_bytes) as job:
                pumping = asyncio.ensure_future(_pump(feed, body))
                try:
                    yield LayerStreaming(job, outlet, pumping)
                finally:
                    pumping.cancel()
                    await asyncio.gather(pumping, return_exceptions=True)
                    feed.close()

    async def spool(self, body: Body, folder: Path) -> list[SpooledFile]:
        """Take an archive apart into numbered files in `folder`."""
        reading, feed = make_feed()
        async with self._job("spool", {"input": reading}, folder=str(folder), **self._bounds()) as job:

            async def members() -> list[SpooledFile]:
                return [SpooledFile(**member) async for member in job.many("members")]

            found: list[SpooledFile] = await self._fed(feed, body, members())
            return found

    # -- jobs

    def _bounds(self) -> Mapping[str, int]:
        return {"max_bytes": self._limits.max_bytes, "max_entries": self._limits.max_entries}

    def _difference(self, difference: Difference) -> Mapping[str, Any]:
        return {"own": str(difference.own), "below": _mount(difference.below), "whole": difference.whole,
                "scratch": self._scratch}  # fmt: skip

    @contextlib.asynccontextmanager
    async def _out(self) -> AsyncIterator[tuple[Outlet, int]]:
        outlet, writing = make_outlet()
        try:
            yield outlet, writing
        finally:
            outlet.close()

    async def _fed(self, feed: Feed, body: Body, ending: Any) -> Any:
        """Pump the body while the job works. A job that ends early, by an error, ends the pumping."""
        pumping = asyncio.ensure_future(_pump(feed, body))
        waiting = asyncio.ensure_future(ending)
        both: set[asyncio.Future[Any]] = {pumping, waiting}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
            if pumping.done() and pumping.exception() is not None:
                pumping.result()
            return await waiting
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            feed.close()

    @contextlib.asynccontextmanager
    async def _in_tree(self, kind: str, tree: Tree, fds: Mapping[str, int], **fields: Any) -> AsyncIterator[Job]:
        if isinstance(tree, Running):
            fds = {**fds, "pid": os.dup(tree.pidfd)}
        else:
            fields |= self._stopped(tree)
        async with self._job(kind, fds, **fields) as job:
            yield job

    def _stopped(self, tree: Stopped) -> Mapping[str, Any]:
        mounts = [{"source": mount.source, "target": mount.target, "read_only": mount.read_only,
                   "recursive": mount.recursive, "subpath": mount.subpath} for mount in tree.mounts]  # fmt: skip
        return {"root": _mount(tree.root), "mounts": mounts, "writable": tree.writable, "scratch": self._scratch}

    @contextlib.asynccontextmanager
    async def _job(self, kind: str, fds: Mapping[str, int], **fields: Any) -> AsyncIterator[Job]:
        """`fds` are closed here."""
        ours, theirs = socket.socketpair()
        job = Job(ours)
        try:
            try:
                with theirs:
                    names = ["line", *fds]
                    request = json.dumps({"kind": kind, "fds": names, **fields}).encode()
                    control = await self._ready()
                    socket.send_fds(control, [request], [theirs.fileno(), *fds.values()])
            except (BrokenPipeError, ConnectionError) as error:
                self._forget()
                raise FilesFailed("the files worker has gone") from error
            finally:
                for descriptor in fds.values():
                    os.close(descriptor)
            await job.introduced()
            yield job
        finally:
            await job.close()

    async def _ready(self) -> socket.socket:
        async with self._starting:
            if self._process is not None and self._process.poll() is not None:
                self._forget()
            if self._control is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    self._process = await asyncio.to_thread(_start, theirs)
                self._control = ours
            return self._control

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = self._process = None


async def _pump(feed: Feed, body: Body) -> None:
    try:
        async for chunk in body:
            await feed.write(chunk)
    finally:
        feed.close()


def _start(control: socket.socket) -> "subprocess.Popen[bytes]":
    # -I: neither the working directory nor the environment chooses what a root process imports.
    return subprocess.Popen([sys.executable, "-I", "-m", "node.files.worker"], stdin=control.fileno(),
                            stdout=subprocess.DEVNULL, cwd="/")


def _stat(value: Mapping[str, Any]) -> PathStat:
    return PathStat(**value)


def _mount(mount: RootMount | None) -> Mapping[str, str] | None:
    if mount is None:
        return None
    return {"type": mount.type, "source": mount.source, "data": mount.data(), "cwd": mount.cwd}
