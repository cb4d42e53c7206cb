"""The keeper as a process: questions in a network namespace of their own, real resolvers, ends and restarts."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from node.network import listening
from node.network.keeper import Keeper, KeeperGone
from tests.node.network.place import Place, in_namespace

pytestmark = pytest.mark.root
ID = "a" * 64


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    made = Keeper(tmp_path)
    assert await made.open() == {}
    pid = await process(made)
    yield made
    await made.quit()
    await made.close()
    await until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


async def process(keeper: Keeper) -> int:
    return int((await keeper._request({"op": "hello"}))["pid"])


async def until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def names(*called: str, servers: Any = (), dotted_only: bool = False) -> dict[str, Any]:
    return {"places": [{"id": "n", "name": "net", "subnets": ["172.30.0.0/16"], "names": called,
                        "addresses": ["172.30.0.2"], "links": {}}], "servers": list(servers), "dotted_only": dotted_only}


async def serve(keeper: Keeper, place: Place, told: dict[str, Any], container: str = ID) -> int:
    """Gives the end that lives as long as the container."""
    life, held = os.pipe()
    await keeper.begin(container, life)
    datagrams, streams = await asyncio.to_thread(listening.listen, place.fd)
    with datagrams, streams:
        await keeper.listen(container, place.fd, datagrams, streams, told)
    os.close(life)
    return held


async def ask(place: Place, name: str, kind: str = "A", *, tcp: bool = False, timeout: float = 6) -> DNSRecord:
    question = DNSRecord.question(name, kind)

    def send() -> DNSRecord:
        return DNSRecord.parse(question.send(listening.ADDRESS, 53, tcp=tcp, timeout=timeout))

    return await asyncio.to_thread(place.run, send)


async def test_answers_by_both_transports(keeper: Keeper, place: Place) -> None:
    held = await serve(keeper, place, names("web"))
    for tcp in (False, True):
        assert [str(rr.rdata) for rr in (await ask(place, "web", tcp=tcp)).rr] == ["172.30.0.2"]
    # Nobody to ask: said at once.
    began = time.monotonic()
    assert (await ask(place, "example.org")).header.rcode == RCODE.SERVFAIL
    assert time.monotonic() - began < 1
    os.close(held)


async def test_port_53_is_the_containers_own(keeper: Keeper, place: Place) -> None:
    held = await serve(keeper, place, names("web"))
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with place.run(socket.socket, socket.AF_INET, kind) as own:
            own.bind(("0.0.0.0", 53))
    os.close(held)


async def test_listening_again_replaces_the_sockets(keeper: Keeper, place: Place) -> None:
    os.close(await serve(keeper, place, names("old")))
    os.close(await serve(keeper, place, names("old")))
    held = await serve(keeper, place, names("web"))
    assert [str(rr.rdata) for rr in (await ask(place, "web")).rr] == ["172.30.0.2"]
    os.close(held)


async def test_the_end_of_a_container_is_seen_without_a_daemon(keeper: Keeper, place: Place, tmp_path: Path) -> None:
    held = await serve(keeper, place, names("web"))
    other = Place()
    second = await serve(keeper, other, {**names("db"), "places": [{**names("db")["places"][0], "addresses": ["172.30.0.3"]}]}, "b" * 64)
    assert (await ask(other, "web")).rr
    await keeper.close()
    os.close(held)

    async def gone() -> bool:
        return (await ask(other, "web")).header.rcode == RCODE.SERVFAIL

    deadline = time.monotonic() + 5
    while not await gone():
        assert time.monotonic() < deadline
    again = Keeper(tmp_path)
    assert await again.open() == {"b" * 64: []}
    pid = await process(again)
    os.close(second)
    await again.close()
    other.close()
    # With the last container and no daemon it ends by itself.
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_holds_ports(keeper: Keeper) -> None:
    life, held = os.pipe()
    await keeper.begin(ID, life)
    ports = {}
    for number in range(450):  # more than one message takes
        ports[str(number)] = bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
    first = ports["0"].getsockname()
    await keeper.hold(ID, ports)
    for port in ports.values():
        port.close()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(first)
    await keeper.let_go(ID, ["0"])
    with socket.socket() as other:
        other.bind(first)
    os.close(held)
    os.close(life)


async def test_a_killed_keeper_is_told_of(keeper: Keeper, place: Place) -> None:
    held = await serve(keeper, place, names("web"))
    lost = asyncio.Event()

    async def note() -> None:
        lost.set()

    keeper.on_lost = note
    pid = await process(keeper)
    os.kill(pid, signal.SIGTERM)  # politeness does not end it
    assert (await ask(place, "web")).rr
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(lost.wait(), 5)
    os.close(await serve(keeper, place, names("web")))
    os.close(held)


async def test_what_is_malformed_is_refused_and_harms_nobody(keeper: Keeper, place: Place) -> None:
    held = await serve(keeper, place, names("web"))
    for request in ({"op": "nonsense", "id": ID}, {"op": "names", "id": ID, "names": {"places": 5}},
                    {"op": "names", "id": "x", "names": {}}, {"op": "listen", "id": ID}, {"op": "begin", "id": ID + "2"},
                    {"op": "hold", "id": ID, "keys": ["a"]}):
        with pytest.raises(KeeperGone, match="cannot be kept"):
            await keeper._request(request)
    for junk in (b"", b"x", os.urandom(100), os.urandom(12) * 30):
        def send(junk: bytes = junk) -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
                channel.sendto(junk, (listening.ADDRESS, 53))
        await asyncio.to_thread(place.run, send)
    assert (await ask(place, "web")).rr
    os.close(held)


async def test_who_does_not_read_answers_costs_nothing(keeper: Keeper, place: Place) -> None:
    life, held = os.pipe()
    await keeper.begin(ID, life)
    os.close(life)
    datagrams, streams = await asyncio.to_thread(listening.listen, place.fd)
    with datagrams, streams:
        streams.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # or it takes megabytes of answers
        await keeper.listen(ID, place.fd, datagrams, streams, names("web"))
    pid = await process(keeper)
    before = len(os.listdir(f"/proc/{pid}/fd"))
    question = bytes(DNSRecord.question("web").pack())

    def flood() -> list[socket.socket]:
        """Questions until nothing goes out any more, no answer read, and the way of questions closed."""
        deaf = []
        for _ in range(3):
            channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            channel.connect((listening.ADDRESS, 53))
            channel.settimeout(1)
            with contextlib.suppress(OSError):
                while True:
                    channel.sendall((len(question).to_bytes(2) + question) * 1000)
            deaf.append(channel)
        return deaf

    deaf = await asyncio.to_thread(place.run, flood)
    assert len(os.listdir(f"/proc/{pid}/fd")) > before
    await until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before, 20)
    assert (await ask(place, "web")).rr
    for channel in deaf:
        channel.close()
    os.close(held)


# -- forwarding


class Resolver:
    """A resolver on 53 of an address in a namespace: answers A with 192.0.2.9 after `delay`, or with `code`."""

    def __init__(self, where: str, address: str, *, delay: float = 0, code: int = 0, silent: bool = False) -> None:
        self.seen: list[str] = []
        self._delay, self._code, self._silent = delay, code, silent
        self._socket = in_namespace(where, socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._socket.settimeout(0.05)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                data, sender = self._socket.recvfrom(4096)
                question = DNSRecord.parse(data)
                self.seen.append(str(question.q.qname))
                if self._silent:
                    continue
                self._stop.wait(self._delay)
                reply = question.reply()
                reply.header.rcode = self._code
                if not self._code:
                    reply.add_answer(RR(question.q.qname, QTYPE.A, rdata=A("192.0.2.9"), ttl=1))
                wrong = DNSRecord.parse(reply.pack())
                wrong.header.id ^= 1
                self._socket.sendto(wrong.pack(), sender)  # a forger's guess comes first
                self._socket.sendto(reply.pack(), sender)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


@pytest.fixture
def resolvers(place: Place) -> Iterator[Any]:
    made: list[Resolver] = []

    def make(address: str, **how: Any) -> Resolver:
        made.append(Resolver(place.path, address, **how))
        return made[-1]

    yield make
    for resolver in made:
        resolver.stop()


async def test_others_are_asked_from_the_containers_network(keeper: Keeper, place: Place, resolvers: Any) -> None:
    resolver = resolvers("127.0.0.53")
    held = await serve(keeper, place, names("web", servers=[["127.0.0.53", False]]))
    assert [str(rr.rdata) for rr in (await ask(place, "example.org")).rr] == ["192.0.2.9"]
    assert (await ask(place, "web", "MX")).header.rcode == RCODE.NOERROR
    assert resolver.seen == ["example.org."]  # our own names are not told to anybody
    os.close(held)


async def test_the_next_server_answers_for_a_silent_or_failing_one(keeper: Keeper, place: Place, resolvers: Any) -> None:
    resolvers("127.0.0.53", silent=True)
    resolvers("127.0.0.54", code=RCODE.SERVFAIL)
    resolvers("127.0.0.55")
    servers = [[f"127.0.0.{number}", False] for number in (53, 54, 55)]
    held = await serve(keeper, place, names("web", servers=servers))
    began = time.monotonic()
    assert (await ask(place, "example.org")).rr
    assert time.monotonic() - began < 3
    os.close(held)


async def test_failures_are_told_before_the_asker_gives_up(keeper: Keeper, place: Place, resolvers: Any) -> None:
    resolvers("127.0.0.53", silent=True)
    resolvers("127.0.0.54", code=RCODE.NXDOMAIN)
    held = await serve(keeper, place, names("web", servers=[["127.0.0.53", False]]))
    assert (await ask(place, "example.org", timeout=4.9)).header.rcode == RCODE.SERVFAIL
    await keeper.names(ID, names("web", servers=[["127.0.0.54", False]]))
    assert (await ask(place, "example.org")).header.rcode == RCODE.NXDOMAIN
    os.close(held)


async def test_names_without_a_dot_stay_here_when_ndots_is_set(keeper: Keeper, place: Place, resolvers: Any) -> None:
    resolver = resolvers("127.0.0.53")
    held = await serve(keeper, place, names("web", servers=[["127.0.0.53", False]], dotted_only=True))
    assert (await ask(place, "nobody")).header.rcode == RCODE.NXDOMAIN
    assert (await ask(place, "nobody.example")).rr
    assert resolver.seen == ["nobody.example."]
    os.close(held)
