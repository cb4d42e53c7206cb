"""The daemon's end of the unpack workers: start a layer, follow it, cancel it."""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from node.images.unpack import errors
from node.snapshots.mounts import RootMount
from ocispec.digest import Digest

_PIPE_SIZE = 1024 * 1024
_MAX_LINE = 256 * 1024 * 1024  # the list of implied directories of the largest layer that the limits allow

OnRead = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What one layer may become. Reached: LayerTooLarge, and nothing is left of the layer."""

    max_bytes: int = 128 * 1024**3
    max_entries: int = 5_000_000


@dataclass(frozen=True, slots=True)
class UnpackJob:
    """Unpack into `directory`, which the worker makes its root. `mount`: mount this over it first (a merged view)."""

    directory: str
    compression: str
    bare: bool
    bottom: bool
    mount: RootMount | None = None
    algorithm: str = "sha256"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """`size`: bytes of the regular files. `implied`: directories used but not contained, parents first, `""` the root
    (see tree.Tree.implied). `whiteouts`: those that were made (see tree.Tree.whiteouts)."""

    diff_id: Digest
    size: int
    entries: int
    implied: Sequence[str]
    whiteouts: Sequence[str]


class NeedsMergedTree(Exception):
    """The bare layer names what only lower layers hold; unpack it again with `mount`."""


class Feed:
    """The writing end of a worker's input pipe. Back-pressure comes from the pipe; when the worker stopped reading (it
    has failed, or needs no more) the rest goes nowhere, and its report says why."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._open = True

    async def write(self, chunk: bytes) -> None:
        piece = memoryview(chunk)
        while piece and self._open:
            try:
                piece = piece[os.write(self._descriptor, piece):]
            except BlockingIOError:
                await self._writable()
            except BrokenPipeError:
                self.close()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._descriptor, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self._descriptor)

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def make_feed() -> tuple[int, Feed]:
    """The reading end (for `UnpackPool.unpack`, which closes it) and the feed of a new pipe."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(PermissionError):  # beyond fs.pipe-user-pages-soft: the default size does too
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return reading, Feed(writing)


class UnpackPool:
    """Workers for every pull of this node: at most `width` that read a file and as many that are fed by a download."""

    def __init__(self, limits: UnpackLimits, width: int) -> None:
        self._limits = limits
        self._width = width
        self._files = asyncio.Semaphore(width)
        self._fed = 0
        self._starting = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def __aenter__(self) -> Self:
        await self._ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    @contextlib.contextmanager
    def fed(self) -> Iterator[bool]:
        """Whether a worker may be fed by a download now; holds the place."""
        free = self._fed < self._width
        self._fed += free
        try:
            yield free
        finally:
            self._fed -= free

    async def unpack_file(self, job: UnpackJob, source: int, on_read: OnRead) -> Unpacked:
        """As `unpack`, waiting for a free place."""
        try:
            async with self._files:
                return await self.unpack(job, os.dup(source), on_read)
        finally:
            os.close(source)

    async def unpack(self, job: UnpackJob, source: int, on_read: OnRead) -> Unpacked:
        """Unpack what descriptor `source` gives (it is closed here).

        Raises NeedsMergedTree, errors.InvalidLayer, LayerTooLarge, LayerUnsupported, DiskFull, UnpackFailed. When this
        returns or raises, also by cancellation, no process touches the directory any more.
        """
        request = {
            "kind": "unpack", "directory": job.directory, "compression": job.compression, "bare": job.bare,
            "bottom": job.bottom, "mount": _mount(job.mount), "algorithm": job.algorithm,
            "max_bytes": self._limits.max_bytes, "max_entries": self._limits.max_entries,
        }
        done = await self._run(request, source, on_read)
        diff_id = Digest(job.algorithm, done["diff_id"])
        return Unpacked(diff_id, done["size"], done["entries"], done["implied"], done["whiteouts"])

    async def adopt(self, directory: str, lower: RootMount, unpacked: Unpacked) -> None:
        """Give implied directories the attributes that they have in `lower`, and remove whiteouts of what is not there.
        Raises NeedsMergedTree, UnpackFailed."""
        listing = os.memfd_create("implied", os.MFD_CLOEXEC)
        os.write(listing, json.dumps([unpacked.implied, unpacked.whiteouts]).encode())
        os.lseek(listing, 0, os.SEEK_SET)
        overlay = lower.type != "bind"
        await self._run({"kind": "adopt", "directory": directory, "lower": directory if overlay else lower.source,
                         "mount": _mount(lower) if overlay else None}, listing, lambda _: None)

    async def _run(self, request: Mapping[str, Any], source: int, on_read: OnRead) -> Mapping[str, Any]:
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                control = await self._ready()
                socket.send_fds(control, [json.dumps(request).encode()], [theirs.fileno(), source])
                theirs.close()
                os.close(source)
                source = -1
                ours.setblocking(False)
                return await _follow(ours, on_read)
        except (BrokenPipeError, ConnectionError) as error:
            await self._stop()
            raise errors.UnpackFailed("the unpack worker has gone") from error
        finally:
            if source >= 0:
                os.close(source)

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

    async def _stop(self) -> None:
        process = self._process
        self._forget()
        if process is not None:
            await asyncio.to_thread(process.wait)


def _start(control: socket.socket) -> "subprocess.Popen[bytes]":
    # -I: neither the working directory nor the environment chooses what a root process imports.
    return subprocess.Popen([sys.executable, "-I", "-m", "node.images.unpack.worker"], stdin=control.fileno(),
                            stdout=subprocess.DEVNULL, cwd="/")


def _mount(mount: RootMount | None) -> Mapping[str, str] | None:
    if mount is None or mount.type == "bind":
        return None
    return {"type": mount.type, "source": mount.source, "data": mount.data(), "cwd": mount.cwd}


async def _follow(line: socket.socket, on_read: OnRead) -> Mapping[str, Any]:
    try:
        async for message in _messages(line):
            if "read" in message:
                on_read(message["read"])
            elif "done" in message:
                done: Mapping[str, Any] = message["done"]
                return done
            elif "needs_lower" in message:
                raise NeedsMergedTree
            else:
                raise _error(message["error"])
        raise errors.UnpackFailed("the unpack worker died")
    finally:
        await _gone(line)


async def _messages(line: socket.socket) -> AsyncIterator[Mapping[str, Any]]:
    loop = asyncio.get_running_loop()
    buffer = bytearray()
    while chunk := await loop.sock_recv(line, 1 << 20):
        buffer += chunk
        if len(buffer) > _MAX_LINE:
            raise errors.UnpackFailed("the unpack worker's report is too long")
        *lines, rest = buffer.split(b"\n")
        buffer = bytearray(rest)
        for text in lines:
            yield json.loads(text)


async def _gone(line: socket.socket) -> None:
    """Wait until the child is no more: it leaves when it sees our end closed for writing."""
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_WR)

    async def drained() -> None:
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(line, 1 << 20):
            pass

    waiting = asyncio.ensure_future(drained())
    cancelled = False
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


def _error(report: Mapping[str, str]) -> Exception:
    kinds = {kind.__name__: kind for kind in (errors.InvalidLayer, errors.LayerTooLarge, errors.LayerUnsupported,
                                              errors.DiskFull)}
    return kinds.get(report["kind"], errors.UnpackFailed)(report["message"])
