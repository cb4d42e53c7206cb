"""Networks of a node inside a network namespace that stands for the host: real bridge, real rules, real sockets."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.linux import syscalls
from node.linux.netlink import Netlink
from node.network.model import Endpoint, Joining, NoFreeAddress, NoSuchNetwork, PortBinding, PortInUse
from node.network.opening import open_networks
from node.network.store import Networks
from node.settings import Settings
from node.state.database import open_state
from tests.node.network.place import attach

pytestmark = pytest.mark.root

ID = "c1" + "0" * 62
OTHER = "c2" + "0" * 62


def inside_host(work: Callable[[], Any]) -> Any:
    """Run `work` in a thread that has a network namespace of its own, and /sys and /proc/sys are that namespace's."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
            syscalls.mount("", "/", flags=syscalls.MS_PRIVATE | syscalls.MS_REC)
            with Netlink() as host:
                host.set_up(1)
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def with_networks(tmp_path: Path, use: Callable[[Networks], Any], **settings: Any) -> Any:
    """`use` is a coroutine function. One thread does everything, since the namespace belongs to a thread."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        original = loop.run_in_executor

        def here(executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
            future = loop.create_future()
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)
            return future

        loop.run_in_executor = here  # type: ignore[method-assign]
        try:
            chosen = Settings.make(tmp_path, **settings)
            (tmp_path / "run").mkdir(exist_ok=True)
            async with open_state(tmp_path / "state.db") as state, open_networks(chosen, state) as networks:
                return await use(networks)
        finally:
            loop.run_in_executor = original  # type: ignore[method-assign]

    return inside_host(lambda: asyncio.run(main()))


def serve_once(netns_path: str, port: int, reply: bytes) -> threading.Thread:
    ready = threading.Event()

    def run() -> None:
        fd = os.open(netns_path, os.O_RDONLY)
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        os.close(fd)
        with socket.create_server(("", port)) as server:
            server.settimeout(10)
            ready.set()
            with contextlib.suppress(TimeoutError):
                channel, _ = server.accept()
                channel.sendall(reply)
                channel.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    return thread


def fetch(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), 5) as channel:
        return channel.recv(100)


def test_a_published_port_is_reached_and_nothing_is_left(tmp_path: Path) -> None:
    async def use(networks: Networks) -> None:
        for address in ("127.0.0.1", networks.list()[0].gateway):
            sandbox = await attach(networks, ID, mode="bridge", published=[PortBinding("tcp", 80, "", 0)])
            assert sandbox.netns_path
            assert sandbox.endpoint
            assert sandbox.endpoint.mac.startswith("02:42:")
            port = sandbox.ports[0]
            assert port.host_port > 0
            server = serve_once(sandbox.netns_path, 80, b"hello")
            assert fetch(address, port.host_port) == b"hello"
            server.join()
            await sandbox.close()
            await networks.release(ID)
            with pytest.raises(OSError):
                fetch(address, port.host_port)

    with_networks(tmp_path, use)


def test_a_port_that_is_taken_is_refused_in_dockers_words_and_leaves_nothing(tmp_path: Path) -> None:
    async def use(networks: Networks) -> None:
        first = await attach(networks, ID, mode="bridge", published=[PortBinding("tcp", 80, "", 18080)])
        with pytest.raises(PortInUse, match=r"Bind for 127\.0\.0\.1:18080 failed: port is already allocated"):
            await attach(networks, OTHER, mode="bridge", published=[PortBinding("tcp", 80, "127.0.0.1", 18080)])
        with socket.create_server(("127.0.0.1", 18081)), pytest.raises(PortInUse, match="address already in use"):
            await attach(networks, OTHER, mode="bridge", published=[PortBinding("tcp", 80, "", 18081)])
        second = await attach(networks, OTHER, mode="bridge", published=[])
        assert first.endpoint
        assert second.endpoint
        assert first.endpoint.ip != second.endpoint.ip
        for sandbox, container in ((first, ID), (second, OTHER)):
            await sandbox.close()
            await networks.release(container)

    with_networks(tmp_path, use)


def test_addresses_run_out_with_an_error_and_come_back(tmp_path: Path) -> None:
    async def use(networks: Networks) -> None:
        held = []
        for number in range(5):  # a /29 has six, the gateway's aside
            container = f"{number:x}" + "0" * 63
            held.append((container, await attach(networks, container, mode="bridge", published=[])))
        with pytest.raises(NoFreeAddress, match=r"10\.99\.0\.0/29"):
            await attach(networks, ID, mode="bridge", published=[])
        container, sandbox = held[2]
        await sandbox.close()
        await networks.release(container)
        again = await attach(networks, ID, mode="bridge", published=[])
        assert again.endpoint
        assert again.endpoint.ip == "10.99.0.4"
        await again.close()
        await networks.release(ID)
        for container, sandbox in held:
            await sandbox.close()
            await networks.release(container)

    with_networks(tmp_path, use, bridge_subnet="10.99.0.0/29")


def test_none_has_a_loopback_alone_and_host_has_no_namespace(tmp_path: Path) -> None:
    async def use(networks: Networks) -> None:
        alone = await attach(networks, ID, mode="none", published=[])
        assert alone.netns_path
        server = serve_once(alone.netns_path, 80, b"x")

        def connect() -> bytes:
            fd = os.open(alone.netns_path or "", os.O_RDONLY)
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
            os.close(fd)
            return fetch("127.0.0.1", 80)

        answers: list[bytes] = []
        thread = threading.Thread(target=lambda: answers.append(connect()))
        thread.start()
        thread.join()
        server.join()
        assert answers == [b"x"]
        await alone.close()
        await networks.release(ID)
        assert (await attach(networks, ID, mode="host", published=[])).netns_path is None
        await networks.release(ID)
        with pytest.raises(NoSuchNetwork):
            await attach(networks, ID, mode="frontend", published=[])

    with_networks(tmp_path, use)


def test_the_next_daemon_keeps_subnet_and_the_addresses_it_takes_over(tmp_path: Path, container: int) -> None:
    seen: list[str] = []

    async def first(networks: Networks) -> None:
        seen.append(networks.list()[0].subnet)

    async def second(networks: Networks) -> None:
        network = networks.list()[0]
        assert network.subnet == seen[0]
        taken = str(network.gateway).rsplit(".", 1)[0] + ".2"
        await networks.readopt(Joining(OTHER, "other", "", "bridge"), [Endpoint(taken)],
                               [PortBinding("tcp", 80, "0.0.0.0", 18090)], container)
        with pytest.raises(PortInUse):
            await attach(networks, ID, mode="bridge", published=[PortBinding("tcp", 80, "", 18090)])
        sandbox = await attach(networks, ID, mode="bridge", published=[])
        assert sandbox.endpoint
        assert sandbox.endpoint.ip != taken
        await sandbox.close()
        await networks.release(ID)
        await networks.release(OTHER)

    with_networks(tmp_path, first)
    with_networks(tmp_path, second)
