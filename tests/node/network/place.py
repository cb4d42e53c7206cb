"""A host of its own for each test: a network namespace, a neighbour on its wire, real bridges, rules and sockets."""

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from node.linux import syscalls
from node.network.model import EndpointSpec, Joining, PortBinding, Sandbox
from node.network.namespace import new_namespace
from node.network.opening import open_networks
from node.network.store import Networks
from node.settings import Settings
from node.state.database import open_state

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"


class Place:
    """A network namespace to do things in. Nothing in it is seen outside."""

    def __init__(self) -> None:
        self.fd, inside = new_namespace()
        inside.close()
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """In a thread that is there."""
        return in_namespace(self.path, work, *arguments)

    def shell(self, *words: str, check: bool = True) -> str:
        def run() -> str:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
            return done.stdout

        return str(self.run(run))

    def ip(self, line: str) -> str:
        return self.shell("ip", *line.split())

    def sysctl(self, path: str, value: str) -> None:
        self.run(Path("/proc/sys", path).write_text, value)

    def links(self) -> set[str]:
        """Names of interfaces, `lo` aside."""
        return {line.split(":")[1].split("@")[0].strip() for line in self.ip("-o link").splitlines()} - {"lo"}

    def close(self) -> None:
        os.close(self.fd)


class Host(Place):
    """What a node runs on. Its neighbour is reached by the interface `lan`."""

    def __init__(self) -> None:
        super().__init__()
        self.sysctl("net/ipv6/conf/default/disable_ipv6", "0")  # a host as it comes
        self.neighbour = Place()
        self.ip(f"link add lan type veth peer name lan netns {self.neighbour.path}")
        self.ip(f"addr add {HOST}/24 dev lan")
        self.ip("link set lan up")
        self.neighbour.ip(f"addr add {NEIGHBOUR}/24 dev lan")
        self.neighbour.ip("link set lan up")

    def tables(self) -> str:
        return self.shell("nft", "list", "tables").strip()

    def ruleset(self) -> str:
        return self.shell("nft", "list", "ruleset")

    def node(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """A daemon's loop whose threads all are on this host."""

        async def main() -> Any:
            with ThreadPoolExecutor(4, initializer=_enter, initargs=(self.path,)) as pool:
                asyncio.get_running_loop().set_default_executor(pool)
                return await work()

        return self.run(lambda: asyncio.run(main()))

    def close(self) -> None:
        self.neighbour.close()
        super().close()


@asynccontextmanager
async def networks_of(home: Path, **settings: Any) -> AsyncIterator[Networks]:
    (home / "run").mkdir(parents=True, exist_ok=True)
    async with (
        open_state(home / "state.db") as state,
        open_networks(Settings.make(home, **settings), state) as networks,
    ):
        yield networks


async def attach(
    networks: Networks, container_id: str, *, mode: str, published: Sequence[PortBinding], other_netns: str | None = None
) -> Sandbox:
    """As a container of that id that asks for nothing else."""
    asked = (EndpointSpec(mode),)
    return await networks.attach(
        Joining(container_id, container_id[:12], container_id[:12], mode, asked, tuple(published), other_netns)
    )


def _enter(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, syscalls.CLONE_NEWNET)
    os.close(fd)


def in_namespace(path: str, work: Callable[..., Any], *arguments: Any) -> Any:
    outcome: list[Any] = []

    def run() -> None:
        try:
            _enter(path)
            outcome.append(work(*arguments))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


class Servers:
    """Servers in namespaces; each answers with a text and the address it saw."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def tcp(self, path: str, port: int, name: str, address: str = "") -> None:
        self._start(in_namespace(path, socket.create_server, (address, port)), self._serve_tcp, name)

    def udp(self, path: str, port: int, name: str) -> None:
        def bound() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("", port))
            return sock

        self._start(in_namespace(path, bound), self._serve_udp, name)

    def _start(self, sock: socket.socket, serve: Callable[[socket.socket, str], None], name: str) -> None:
        sock.settimeout(0.05)
        thread = threading.Thread(target=serve, args=(sock, name))
        self._threads.append(thread)
        thread.start()

    def _serve_tcp(self, sock: socket.socket, name: str) -> None:
        with sock:
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    channel, address = sock.accept()
                    with channel:
                        channel.sendall(f"{name} {address[0]}".encode())

    def _serve_udp(self, sock: socket.socket, name: str) -> None:
        with sock:
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    _, address = sock.recvfrom(100)
                    sock.sendto(f"{name} {address[0]}".encode(), address)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def fetch(path: str, address: str, port: int, within: float = 3) -> str:
    """What a TCP server says to a client in that namespace; raises OSError."""

    def ask() -> str:
        with socket.create_connection((address, port), within) as channel:
            return channel.recv(100).decode()

    return str(in_namespace(path, ask))


def ask(path: str, address: str, port: int, within: float = 3) -> str:
    """The same by UDP."""

    def send() -> str:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(within)
            sock.sendto(b"?", (address, port))
            return sock.recv(100).decode()

    return str(in_namespace(path, send))
