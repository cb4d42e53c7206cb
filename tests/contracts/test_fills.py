"""Two processes that pull through on one database and one folder: one request to the upstream, whichever is asked."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.proxy.fills import FillSettings
from registry.proxy.service import PullThrough, open_pull_through
from registry.proxy.upstreams import Place, Upstreams
from registry.settings import ProxySettings, UpstreamSettings
from storage.blobs.disk import DiskBlobs
from storage.metadata.engine import open_database
from storage.repository.store import ContentStore

DATA = os.urandom(6_000_000)
DIGEST = Digest.of(DATA)


class Source:
    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        response = web.StreamResponse()
        response.content_length = len(DATA)
        await response.prepare(request)
        await response.write(DATA[:4_000_000])
        await self.go.wait()
        await response.write(DATA[4_000_000:])
        await response.write_eof()
        return response


@asynccontextmanager
async def source() -> AsyncIterator[Source]:
    made = Source()
    runner = web.ServerRunner(web.Server(made.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server
    made.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        made.go.set()
        await runner.cleanup()


@asynccontextmanager
async def process(url: str, folder: Path, upstream: str) -> AsyncIterator[tuple[PullThrough, Place]]:
    upstreams = Upstreams.of([UpstreamSettings(name="up.test", url=upstream, allow_private=True)], ProxySettings())
    place = upstreams.place(RepositoryName("up.test/app"))
    assert place
    store = DiskBlobs(folder)
    await store.prepare()
    async with (open_database(url) as database,
                open_pull_through(upstreams, database, ContentStore(database, store), store,
                                  FillSettings(0, 4, folder)) as proxy):
        yield proxy, place


async def test_both_read_what_one_brings(url: str, tmp_path: Path) -> None:
    async with (source() as upstream, process(url, tmp_path / "blobs", upstream.url) as (one, place),
                process(url, tmp_path / "blobs", upstream.url) as (two, _)):
        first, second = one.blob(place, DIGEST), two.blob(place, DIGEST)
        for filling in (first, second):
            assert await filling.wait_begun() == len(DATA)
            got = b""
            async for chunk in filling.read(0, len(DATA)):
                got += chunk
                if len(got) >= 1_500_000:  # before it is whole, in the one that does not bring it too
                    break
            assert got == DATA[: len(got)]
        upstream.go.set()
        for filling in (first, second):
            assert b"".join([chunk async for chunk in filling.read(0, len(DATA))]) == DATA
            assert (await filling.wait_done()).size == len(DATA)
        assert upstream.asked == 1


async def test_the_other_takes_over_from_one_that_ends(url: str, tmp_path: Path) -> None:
    async with source() as upstream, process(url, tmp_path / "blobs", upstream.url) as (two, place):
        async with process(url, tmp_path / "blobs", upstream.url) as (one, _):
            assert await one.blob(place, DIGEST).wait_begun() == len(DATA)
            waiting = two.blob(place, DIGEST)
            assert await waiting.wait_begun() == len(DATA)
            assert upstream.asked == 1
        upstream.go.set()
        assert b"".join([chunk async for chunk in waiting.read(0, len(DATA))]) == DATA
        assert upstream.asked == 2
