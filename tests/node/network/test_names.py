"""Names of containers on networks that users made: real namespaces, bridges and the keeper's process."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dnslib import RCODE, DNSRecord

from node.network.listening import ADDRESS
from node.network.model import EndpointSpec, Joining, NetworkSpec, Resolving, Sandbox
from node.network.store import Networks
from tests.node.network.place import Host, in_namespace, networks_of

pytestmark = pytest.mark.root


class Cast:
    """Containers by number, each with a process in its namespace."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self.sandboxes: dict[str, Sandbox] = {}

    async def start(self, networks: Networks, name: str, *ends: EndpointSpec, **more: Any) -> str:
        container_id = name[0] * 64
        self.sandboxes[name] = await networks.attach(
            Joining(container_id, name, f"{name}-host", ends[0].network, ends, **more))
        return container_id

    def pid(self, name: str) -> int:
        process = in_namespace(str(self.sandboxes[name].netns_path), subprocess.Popen, ["sleep", "60"])
        self._processes.append(process)
        return process.pid

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for sandbox in self.sandboxes.values():
            for fd in sandbox.own:
                os.close(fd)

    async def ask(self, who: str, name: str, kind: str = "A") -> list[str] | int:
        """The answers, or the code of none."""
        def send() -> DNSRecord:
            return DNSRecord.parse(DNSRecord.question(name, kind).send(ADDRESS, 53, timeout=6))

        reply = await asyncio.to_thread(in_namespace, str(self.sandboxes[who].netns_path), send)
        return [str(rr.rdata) for rr in reply.rr] or int(reply.header.rcode)


@pytest.fixture
def cast() -> Iterator[Cast]:
    made = Cast()
    yield made
    made.end()


def ip_of(cast: Cast, name: str, network: str = "") -> str:
    return next(end.ip for end in cast.sandboxes[name].endpoints if network in ("", end.network_name))


def test_containers_find_each_other_by_every_name(host: Host, cast: Cast, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            for name in ("front", "back"):
                await networks.create(NetworkSpec(name))
            await cast.start(networks, "web", EndpointSpec("front", aliases=("www",)))
            await cast.start(networks, "db", EndpointSpec("back"), resolving=Resolving(("127.0.0.99",)))
            both = await cast.start(networks, "api", EndpointSpec("front", aliases=("www",)), EndpointSpec("back"))
            assert await cast.ask("web", "api") == [ip_of(cast, "api", "front")]
            assert await cast.ask("web", "api.front") == [ip_of(cast, "api", "front")]
            assert await cast.ask("web", "a" * 12) == [ip_of(cast, "api", "front")]
            assert sorted(await cast.ask("web", "www") or []) == sorted([ip_of(cast, "web"), ip_of(cast, "api", "front")])  # type: ignore[arg-type]
            assert await cast.ask("api", "db") == [ip_of(cast, "db")]
            assert await cast.ask("db", "web") == RCODE.SERVFAIL  # another network's; nobody else to ask
            address = ".".join(reversed(ip_of(cast, "api", "front").split("."))) + ".in-addr.arpa"
            assert await cast.ask("web", address, "PTR") == ["api.front."]
            await networks.release(both)
            assert await cast.ask("web", "www") == [ip_of(cast, "web")]
            for name in "wd":
                await networks.release(name * 64)
            for name in ("front", "back"):
                await networks.remove(name)

    host.node(main)


def test_names_follow_connect_disconnect_and_rename(host: Host, cast: Cast, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            await networks.create(NetworkSpec("front"))
            await cast.start(networks, "web", EndpointSpec("front"))
            plain = await cast.start(networks, "api", EndpointSpec("bridge"))
            pid = cast.pid("api")
            ends = await networks.connect(plain, EndpointSpec("front", aliases=("late",)), pid)
            late = next(end for end in ends if end.network_name == "front")
            assert await cast.ask("web", "late") == [late.ip]
            assert await cast.ask("api", "web") == [ip_of(cast, "web")]
            await networks.renamed(plain, "api", "api2", pid)
            assert await cast.ask("web", "api2") == [late.ip]
            assert await cast.ask("web", "api") != [late.ip]
            await networks.disconnect(plain, late.network_id, pid)
            assert await cast.ask("web", "late") != [late.ip]
            for name in "wa":
                await networks.release(name * 64)
            await networks.remove("front")

    host.node(main)


def test_names_are_answered_while_no_daemon_is_there_and_after(host: Host, cast: Cast, tmp_path: Path) -> None:
    async def first() -> None:
        async with networks_of(tmp_path) as networks:
            await networks.create(NetworkSpec("front"))
            for name in ("web", "api"):
                await cast.start(networks, name, EndpointSpec("front"))

    async def between() -> None:
        assert await cast.ask("web", "api") == [ip_of(cast, "api")]

    async def second() -> None:
        async with networks_of(tmp_path) as networks:
            for name in ("web", "api"):
                pid, ends = cast.pid(name), cast.sandboxes[name].endpoints
                await networks.readopt(Joining(name[0] * 64, name, f"{name}-host", "front"), ends, (), pid)
            await networks.settle()
            assert await cast.ask("web", "api") == [ip_of(cast, "api")]
            await networks.release("a" * 64)
            assert await cast.ask("web", "api") != [ip_of(cast, "api")]
            await networks.release("w" * 64)
            await networks.remove("front")

    for part in (first, between, second):
        host.node(part)
    assert host.tables() == "" and host.links() == {"lan"}


def test_internal_networks_ask_nobody_outside(host: Host, cast: Cast, tmp_path: Path) -> None:
    async def main() -> None:
        async with networks_of(tmp_path) as networks:
            await networks.create(NetworkSpec("closed", internal=True))
            await cast.start(networks, "web", EndpointSpec("closed"), resolving=Resolving(("192.0.2.2",)))
            assert await cast.ask("web", "web") == [ip_of(cast, "web")]
            assert await cast.ask("web", "example.org") == RCODE.SERVFAIL
            await networks.release("w" * 64)
            await networks.remove("closed")

    host.node(main)
