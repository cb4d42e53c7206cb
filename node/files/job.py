"""One job of a files worker, from the daemon's side: its answers, its pipes, its end."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

from node.files.errors import KINDS, FilesFailed

_PIPE_SIZE = 1024 * 1024
_READ = 256 * 1024
_MAX_LINE = 64 * 1024 * 1024
_LEAVE = 5.0
"""Seconds that a killed child may take. One that waits for a FUSE server of a container may not go at all; it holds
nothing of ours."""


class Job:
    """Made by `Workers.job`, which also ends it: after that no process works in the tree any more."""

    def __init__(self, line: socket.socket) -> None:
        line.setblocking(False)
        self._line = line
        self._buffer = bytearray()
        self._pidfd = -1
        self._over = False

    async def introduced(self) -> None:
        """Raises FilesFailed."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._line, 1, 1)
                break
            except BlockingIOError:
                await _readable(loop, self._line.fileno())
        if not data or not fds:
            raise FilesFailed("the files worker died")
        self._pidfd = fds[0]
        await loop.sock_sendall(self._line, b"g")

    async def message(self) -> Mapping[str, Any]:
        """The next one that is no error. Raises what the worker says, FilesFailed."""
        loop = asyncio.get_running_loop()
        while b"\n" not in self._buffer:
            data = await loop.sock_recv(self._line, _READ)
            if not data:
                self._over = True
                raise FilesFailed("the files worker died")
            self._buffer += data
            if len(self._buffer) > _MAX_LINE:
                raise FilesFailed("the files worker's answer is too long")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        message: Mapping[str, Any] = json.loads(line)
        if "error" in message:
            self._over = True
            told = message["error"]
            raise KINDS.get(told["kind"], FilesFailed)(told["message"])
        self._over = "done" in message
        return message

    async def done(self) -> Mapping[str, Any]:
        """The last message's value."""
        while "done" not in (message := await self.message()):
            pass
        value: Mapping[str, Any] = message["done"]
        return value

    async def many(self, key: str) -> AsyncIterator[Any]:
        """The members of every batch called `key`, until the job is done."""
        while "done" not in (message := await self.message()):
            for member in message.get(key, ()):
                yield member

    async def close(self) -> None:
        if not self._over and self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        ending = asyncio.ensure_future(self._end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            # The caller goes on to unmount or remove the tree: not before the child is gone.
            await asyncio.wait({ending})
            raise

    async def _end(self) -> None:
        """Whoever is cancelled meanwhile: a descriptor is closed when nobody waits for it any more."""
        try:
            await asyncio.wait_for(self._gone(), _LEAVE)
        except TimeoutError:
            pass
        finally:
            self._line.close()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    async def _gone(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await loop.sock_recv(self._line, _READ):
                pass


async def _readable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


class Outlet:
    """The reading end of a job's output pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def chunks(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = os.read(self._descriptor, _READ)
            except BlockingIOError:
                await _readable(loop, self._descriptor)
                continue
            if not data:
                return
            yield data

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def make_outlet() -> tuple[Outlet, int]:
    """The outlet and the writing end of a new pipe."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # beyond fs.pipe-user-pages-soft: the default size does too
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return Outlet(reading), writing
