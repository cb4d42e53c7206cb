"""A real registry under what wants to use it up: idle connections, costly documents, clients that stall."""

import asyncio
import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from ocispec import mediatype
from ocispec.digest import Digest
from ocispec.manifest import MAX_BYTES, MAX_CHILDREN

MIB = 1024 * 1024
CONNECTIONS = 10_000
SHELL = 1024
SPARE = 1000  # descriptors that this process needs for other things


class Program:
    """`seawall-registry serve` with one worker, so that nothing can hide in another."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    @property
    def memory(self) -> int:
        """Bytes that are resident and not a file's."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("RssAnon:")[1].split()[0]) * 1024


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [Path(sys.executable).with_name("seawall-registry"), "serve", "--data", folder,
                   "--listen", "127.0.0.1:0", "--workers", "1"]
        # As a shell would: the registry has to raise its own soft limit.
        process = subprocess.Popen(["prlimit", f"--nofile={SHELL}:", *command], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "listens on" in line
            yield Program(process, "http://" + line.split("://")[1].split(" ")[0])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.fixture
async def client(program: Program) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(program.url) as session, session.get("/v2/") as answer:
        assert answer.status == 200
        yield session


@pytest.fixture
def descriptors() -> Iterator[int]:
    """How many connections this process may open; the limit is raised while the test runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(CONNECTIONS, hard - SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_ten_thousand_idle_connections(program, client, descriptors) -> None:
    """Half never send, half were answered once. Others are served as before, and each costs less than 20 KiB."""
    before = program.memory
    opened: list[asyncio.StreamWriter] = []
    try:
        for number in range(descriptors):
            reader, writer = await asyncio.open_connection(*program.address)
            opened.append(writer)
            if number % 2:
                writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
                await reader.readuntil(b"{}")
        assert program.memory - before < descriptors * 20 * 1024
        for _ in range(20):
            async with asyncio.timeout(5), client.get("/v2/") as answer:
                assert answer.status == 200
    finally:
        for writer in opened:
            writer.transport.abort()
    async with asyncio.timeout(10), client.get("/v2/") as answer:
        assert answer.status == 200


def descriptor(number: int) -> str:
    return f'{{"mediaType":"{mediatype.OCI_MANIFEST}","digest":"{Digest.of(b"%d" % number)}","size":1}}'


def index(count: int) -> bytes:
    children = ",".join(map(descriptor, range(count)))
    return f'{{"schemaVersion":2,"mediaType":"{mediatype.OCI_INDEX}","manifests":[{children}]}}'.encode()


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for first in range(0, len(data), 64 * 1024):
        yield data[first : first + 64 * 1024]


@pytest.mark.parametrize(("count", "announced", "status", "code"), [
    (100_000, True, 413, "SIZE_INVALID"), (100_000, False, 413, "SIZE_INVALID"),
    (MAX_CHILDREN + 1, True, 400, "MANIFEST_INVALID"), (MAX_CHILDREN, True, 400, "MANIFEST_BLOB_UNKNOWN"),
])
async def test_manifests_of_very_many_descriptors(program, client, count, announced, status, code) -> None:
    raw = index(count)
    before, begun = program.memory, time.monotonic()
    async with client.put("/v2/a/manifests/v1", data=io.BytesIO(raw) if announced else in_pieces(raw),
                          headers={"Content-Type": mediatype.OCI_INDEX}) as answer:
        text = await answer.text()
        assert answer.status == status, text
    assert json.loads(text)["errors"][0]["code"] == code
    assert len(text) < 64 * 1024  # what is missing is named, but not all of it
    assert program.memory - before < 100 * MIB
    assert time.monotonic() - begun < 30


COSTLY = {
    "objects": b'{"a":[' + b"{}," * 1_300_000 + b"{}]}", "lists": b'{"a":[' + b"[]," * 1_300_000 + b"[]]}",
    "deep": b'{"a":' * 800_000, "numbers": b'{"a":[' + b"1.5," * 1_000_000 + b"1]}",
    "names": b"{" + b",".join(b'"%06d":0' % number for number in range(380_000)) + b"}",
    "digits": b'{"schemaVersion":' + b"9" * (MAX_BYTES - 100) + b"}", "spaces": b" " * MAX_BYTES,
    "not unicode": b'{"a":"' + b"\xff" * (MAX_BYTES - 100) + b'"}',
}


async def test_costly_documents_do_not_add_up(program, client) -> None:
    """All at once, each twice: refused, in bounded memory, while others are served."""
    done = asyncio.Event()
    most = slowest = 0.0
    before = program.memory

    async def watch() -> None:
        nonlocal most, slowest
        while not done.is_set():
            begun = time.monotonic()
            async with client.get("/v2/") as answer:
                assert answer.status == 200
            slowest = max(slowest, time.monotonic() - begun)
            most = max(most, program.memory - before)
            await asyncio.sleep(0.02)

    async def push(raw: bytes) -> None:
        async with client.put("/v2/a/manifests/v1", data=io.BytesIO(raw),
                              headers={"Content-Type": mediatype.OCI_MANIFEST}) as answer:
            assert answer.status == 400, await answer.text()

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(push(raw) for raw in COSTLY.values() for _ in range(2)))
    done.set()
    await watching
    assert most < 250 * MIB
    assert slowest < 10


async def test_a_body_shorter_than_announced_loses_nothing(program, client) -> None:
    """The connection goes in the middle of a chunk: what arrived is kept, and the upload goes on from there."""
    data = os.urandom(3 * MIB)
    async with client.post("/v2/a/blobs/uploads/") as answer:
        location = answer.headers["Location"]
    _, writer = await asyncio.open_connection(*program.address)
    writer.write(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode())
    writer.write(data[:MIB])
    await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    offset = 0
    async with asyncio.timeout(20):
        while offset != MIB:
            async with client.get(location) as answer:
                offset = int(answer.headers["Range"].split("-")[1]) + 1
            await asyncio.sleep(0.02)
    place = {"Content-Range": f"{offset}-{len(data) - 1}"}
    async with client.put(f"{location}?digest={Digest.of(data)}", data=io.BytesIO(data[offset:]),
                          headers=place) as answer:
        assert answer.status == 201, await answer.text()
    async with client.get(f"/v2/a/blobs/{Digest.of(data)}") as answer:
        assert await answer.read() == data
