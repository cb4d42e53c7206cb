"""Questions that others answer: the host's resolvers, or those a container names."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from node.linux import syscalls

IMPATIENCE = 1.0
"""Seconds after which the next server is asked as well; the first may still answer."""

ATTEMPTS = 4
PATIENCE = 4.5
"""Altogether: less than the five seconds after which resolvers ask again, so that a failure is told and not guessed."""

MOST = 1000
MOST_EACH = 100
"""Questions under way, of all containers and of one."""

MOST_SERVERS = 3
LARGEST = 65535
SERVER_FAILURE, REFUSED = 2, 5


class NoAnswer(Exception):
    """Nobody answered, or too many questions are under way."""


@dataclass(frozen=True, slots=True)
class Server:
    address: str
    from_host: bool
    """Asked from the host's network, as the host would: it may be the host's own loopback. Otherwise from the
    container's."""


HOST = "host"
RESOLV = Path("/etc/resolv.conf")


class HostServers:
    """Whom the host asks now (resolv.conf(5)). The file is read again when it is another one, as after a VPN came up.
    """

    def __init__(self, path: Path = RESOLV) -> None:
        self._path = path
        self._read: tuple[int, int, int] | None = None
        self._servers: tuple[Server, ...] = ()

    def __call__(self) -> tuple[Server, ...]:
        try:
            now = self._path.stat()
            about = (now.st_ino, now.st_mtime_ns, now.st_size)
            if about != self._read:
                self._servers, self._read = _servers(self._path.read_text(errors="replace")), about
        except OSError:
            self._servers, self._read = (), None
        return self._servers


def _servers(text: str) -> tuple[Server, ...]:
    found = []
    for words in (line.split() for line in text.splitlines()):
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(Server(str(ip_address(words[1])), from_host=True))
    return tuple(found[:MOST_SERVERS])


class Forwarder:
    def __init__(self, host_servers: Callable[[], Sequence[Server]]) -> None:
        self._host_servers = host_servers
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._under_way: dict[str, int] = {}

    async def ask(self, sandbox: str, netns: int, servers: Sequence[Server], query: bytes, *, tcp: bool) -> bytes:
        """The answer of the first server that has one, with the query's own id. Raises NoAnswer."""
        servers = [known for server in servers for known in
                   (self._host_servers() if server.address == HOST else (server,))]
        mine = self._under_way.get(sandbox, 0)
        if not servers or mine >= MOST_EACH or sum(self._under_way.values()) >= MOST:
            raise NoAnswer
        self._under_way[sandbox] = mine + 1
        try:
            # A fresh id and port for each: an answer cannot be guessed by who sees neither.
            disguised = os.urandom(2) + query[2:]
            async with asyncio.timeout(PATIENCE):
                return query[:2] + (await self._hedged(netns, servers, disguised, tcp=tcp))[2:]
        except TimeoutError as error:
            raise NoAnswer from error
        finally:
            self._under_way[sandbox] -= 1
            if not self._under_way[sandbox]:
                del self._under_way[sandbox]

    async def _hedged(self, netns: int, servers: Sequence[Server], query: bytes, *, tcp: bool) -> bytes:
        """Ask one after the other, not waiting for a slow one before asking the next."""
        running: set[asyncio.Task[bytes]] = set()
        plan = [servers[turn % len(servers)] for turn in range(max(ATTEMPTS, len(servers)))]
        last: bytes | None = None
        try:
            while plan or running:
                if plan:
                    running.add(asyncio.create_task(self._one(netns, plan.pop(0), query, tcp=tcp)))
                done, running = await asyncio.wait(running, timeout=IMPATIENCE if plan else None,
                                                   return_when=asyncio.FIRST_COMPLETED)
                for answer in (task.result() for task in done if task.exception() is None):
                    if answer[3] & 15 not in (SERVER_FAILURE, REFUSED):
                        return answer
                    last = answer
                if done and len(servers) == 1 and last is not None:
                    return last
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if last is None:
            raise NoAnswer
        return last

    async def _one(self, netns: int, server: Server, query: bytes, *, tcp: bool) -> bytes:
        """Raises OSError or EOFError."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ip_address(server.address).version == 6 else socket.AF_INET
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with self._socket(None if server.from_host else netns, family, kind) as channel:
            await loop.sock_connect(channel, (server.address, 53))
            await loop.sock_sendall(channel, struct.pack("!H", len(query)) + query if tcp else query)
            while True:
                answer = await (_framed(loop, channel) if tcp else loop.sock_recv(channel, LARGEST))
                if _answers(query, answer):
                    return answer

    def _socket(self, netns: int | None, family: int, kind: int) -> socket.socket:
        """Made in the container's network. This process has one thread, so nothing else happens meanwhile."""
        if netns is None:
            return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        try:
            return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._home)


async def _framed(loop: asyncio.AbstractEventLoop, channel: socket.socket) -> bytes:
    (length,) = struct.unpack("!H", await _exactly(loop, channel, 2))
    return await _exactly(loop, channel, length)


async def _exactly(loop: asyncio.AbstractEventLoop, channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await loop.sock_recv(channel, count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _answers(query: bytes, answer: bytes) -> bool:
    """Whether it answers this question: same id, a reply, and the question repeated where it repeats any."""
    if len(answer) < 12 or answer[:2] != query[:2] or not answer[2] & 0x80:
        return False
    end = _question_end(query)
    return answer[4:6] == b"\0\0" or answer[12:end].lower() == query[12:end].lower()


def _question_end(message: bytes) -> int:
    position = 12
    while position < len(message) and message[position]:
        position += 1 + message[position]
    return position + 5
