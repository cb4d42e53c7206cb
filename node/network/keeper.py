"""The daemon's side of the keeper (node.keeper): the process that answers containers' DNS questions and holds their
published ports, whether or not a daemon is there.

The daemon is told what to keep by `Networks`; should the keeper be killed, another one is started and told again.
"""

import array
import asyncio
import contextlib
import importlib.util
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from node.linux import companions
from ocispec.errors import Unavailable

SOCKET = "net.sock"
VERSION = 1
MAX_MESSAGE = 128 * 1024
MAX_FDS = 200
"""unix(7): 253 descriptors a message."""

PATIENCE = 30.0

# No site-packages and no environment; what is needed beside the standard library is named.
_PROGRAM = "import sys; sys.path[:0] = sys.argv[1:3]; from node.keeper.main import main; main(sys.argv[3])"

log = logging.getLogger(__name__)


class KeeperGone(Unavailable):
    """The process that keeps names and ports cannot be started, or ended while it was asked."""


class Keeper:
    """Made once a daemon. `open` finds the process of an earlier daemon; `close` leaves it alone when it is needed.

    `on_lost` is called when the process ended by itself and had something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._channel: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._starting = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._closing = False
        self.on_lost: Callable[[], Awaitable[None]] | None = None

    async def open(self) -> dict[str, list[str]]:
        """What an earlier daemon left in its care: container → keys of held ports. Nothing is started for it."""
        channel = await asyncio.to_thread(companions.connect, self._folder, SOCKET)
        if channel is None:
            return {}
        self._use(channel)
        if (await self._ask({"op": "hello"})).get("version") != VERSION:
            await self._ask({"op": "quit"})
            self._drop()
            return {}
        return await self._list()

    async def close(self) -> None:
        self._closing = True
        if self._restoring is not None:
            self._restoring.cancel()
        reading = self._reading
        self._drop()
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)

    async def quit(self) -> None:
        """Nothing is kept any more: the process ends."""
        self._closing = True
        if self._channel is not None:
            with contextlib.suppress(KeeperGone):
                await self._ask({"op": "quit"})

    # -- what is kept. Every method raises KeeperGone.

    async def begin(self, container_id: str, life: int, ports: dict[str, socket.socket] | None = None,
                    targets: dict[str, tuple[str, int]] | None = None) -> None:
        """`life`: a descriptor that becomes readable when the container has ended. Copied, as all others here."""
        held = ports or {}
        first = dict(list(held.items())[:MAX_FDS])
        message = {"op": "begin", "id": container_id, "keys": list(first)}
        relayed = targets if targets and len(first) == len(held) else {}
        await self._request(message | {"targets": relayed}, [life, *(sock.fileno() for sock in first.values())])
        await self.hold(container_id, {key: sock for key, sock in held.items() if key not in first})
        if targets and not relayed:
            await self.relay(container_id, targets)

    async def listen(self, container_id: str, netns: int, datagrams: socket.socket, streams: socket.socket,
                     names: dict[str, Any]) -> None:
        await self._request({"op": "listen", "id": container_id, "names": names},
                            [netns, datagrams.fileno(), streams.fileno()])

    async def names(self, container_id: str, names: dict[str, Any]) -> None:
        await self._request({"op": "names", "id": container_id, "names": names})

    async def hold(self, container_id: str, sockets: dict[str, socket.socket]) -> None:
        for some in _batches(list(sockets), MAX_FDS):
            await self._request({"op": "hold", "id": container_id, "keys": some},
                                [sockets[key].fileno() for key in some])

    async def relay(self, container_id: str, targets: dict[str, tuple[str, int]]) -> None:
        """What comes to these held ports is carried to those addresses, of no others."""
        await self._request({"op": "relay", "id": container_id, "targets": targets})

    async def let_go(self, container_id: str, keys: Sequence[str]) -> None:
        for some in _batches(keys, MAX_FDS):
            await self._request({"op": "let_go", "id": container_id, "keys": some})

    async def drop(self, container_id: str) -> None:
        if self._channel is not None:
            await self._ask({"op": "drop", "id": container_id})

    # -- the channel

    async def _request(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        await self._ensure()
        return await self._ask(message, fds)

    async def _ensure(self) -> None:
        async with self._starting:
            if self._channel is None:
                self._use(await asyncio.to_thread(_start, self._folder))

    async def _list(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        number, queue = self._expect()
        try:
            await self._send({"op": "list", "n": number}, ())
            while True:
                answer = await _within(queue)
                found.update(answer["sandboxes"])
                if not answer["more"]:
                    return found
        finally:
            self._answers.pop(number, None)

    async def _ask(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        number, queue = self._expect()
        try:
            await self._send({**message, "n": number}, fds)
            return await _within(queue)
        finally:
            self._answers.pop(number, None)

    def _expect(self) -> tuple[int, "asyncio.Queue[dict[str, Any]]"]:
        number, queue = next(self._numbers), asyncio.Queue[dict[str, Any]]()
        self._answers[number] = queue
        return number, queue

    async def _send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE:
            raise KeeperGone(f"the names of one container are more than {MAX_MESSAGE} bytes")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        async with self._sending:
            while True:
                if self._channel is None:
                    raise KeeperGone("the process that keeps names and ports is gone")
                try:
                    self._channel.sendmsg([data], rights)
                except BlockingIOError:
                    await asyncio.sleep(0.005)  # it is reading: its queue is full for a moment
                except OSError as error:
                    raise KeeperGone(f"the process that keeps names and ports is gone: {error.strerror}") from error
                else:
                    return

    def _use(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._reading = asyncio.get_running_loop().create_task(self._read(channel))

    async def _read(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(channel, MAX_MESSAGE):
                answer = json.loads(data)
                if (queue := self._answers.get(int(answer.get("n") or 0))) is not None:
                    queue.put_nowait(answer)
        if self._channel is not channel:
            return
        self._drop()
        for queue in self._answers.values():
            queue.put_nowait({"gone": True})
        if not self._closing and self.on_lost is not None:
            log.warning("the process that keeps names and ports of containers ended; another one is started")
            self._restoring = loop.create_task(_quietly(self.on_lost))

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        if channel is not None:
            channel.close()


async def _within(queue: "asyncio.Queue[dict[str, Any]]") -> dict[str, Any]:
    try:
        answer = await asyncio.wait_for(queue.get(), PATIENCE)
    except TimeoutError as error:
        raise KeeperGone(f"the process that keeps names and ports has not answered for {PATIENCE:.0f} s") from error
    if answer.get("gone"):
        raise KeeperGone("the process that keeps names and ports is gone")
    if answer.get("error"):
        raise KeeperGone(f"names and ports cannot be kept: {answer['error']}")
    return answer


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception:
        log.exception("names and ports of running containers are not kept")


def _batches(keys: Sequence[str], size: int) -> list[list[str]]:
    return [list(keys[start:start + size]) for start in range(0, len(keys), size)]


def _start(folder: Path) -> socket.socket:
    """The one that is there, or a new one."""
    try:
        made = companions.connect_or_start(folder, SOCKET, "net.err", _spawn)
    except OSError as error:
        raise KeeperGone(f"the process that keeps names and ports cannot be started: {error}") from error
    if made is None:
        raise KeeperGone("the process that keeps names and ports ended at once")
    return made


def _spawn(listener: int, complaints: int) -> None:
    found = importlib.util.find_spec("dnslib")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package dnslib is not installed")
    root, packages = str(Path(__file__).resolve().parents[2]), str(Path(found.origin).resolve().parents[1])
    # Started by a process that ends at once, so that it is init's child and nobody has to wait for it.
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", _PROGRAM, root, packages, str(listener)]
    starter = ["/bin/sh", "-c", '"$@" &', "sh", *command]
    subprocess.run(starter, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints,
                   pass_fds=[listener], cwd="/", env={"LC_ALL": "C.UTF-8"}, start_new_session=True,
                   check=True)
