"""The way to a registry: its scheme on loopback, and logging in while several requests are under way."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from storage.remote.auth import Credentials
from storage.remote.errors import RemoteUnauthorized, RemoteUnavailable
from storage.remote.transport import RemoteSettings, Request, Transport

LOGIN = "Basic " + base64.b64encode(b"ada:secret").decode()


@pytest.fixture
async def registry() -> AsyncIterator[TestServer]:
    """TLS with a certificate that nobody knows, and Basic."""
    together = asyncio.Event()
    waiting = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal waiting
        if request.headers.get("Authorization") == LOGIN:
            return web.Response(text="{}")
        if request.path != "/v2/":
            # All of them have asked before the first is told how to log in.
            waiting += 1
            if waiting == 4:
                together.set()
            await asyncio.wait_for(together.wait(), 5)
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    yield server
    await server.close()


def transport(server: TestServer, login: Credentials | None) -> Transport:
    return Transport(f"127.0.0.1:{server.port}", insecure=True, credentials=login, settings=RemoteSettings())


async def ask(remote: Transport, path: str) -> int:
    request = Request("GET", await remote.url(path), scope="repository:x:pull")
    async with remote.open(request) as response:
        return response.status


async def test_requests_that_are_refused_together_log_in_each(registry: TestServer) -> None:
    async with transport(registry, Credentials("ada", "secret")) as remote:
        assert await asyncio.gather(*(ask(remote, f"/v2/x/blobs/{n}") for n in range(4))) == [200] * 4


async def test_a_wrong_password_is_refused_and_not_tried_for_ever(registry: TestServer) -> None:
    async with transport(registry, Credentials("ada", "wrong")) as remote:
        answers = await asyncio.gather(*(ask(remote, f"/v2/x/blobs/{n}") for n in range(4)), return_exceptions=True)
    assert all(isinstance(answer, RemoteUnauthorized) for answer in answers), answers


async def test_nobody_there_is_said_as_such(unused_tcp_port: int) -> None:
    remote = Transport(f"127.0.0.1:{unused_tcp_port}", insecure=True, credentials=None, settings=RemoteSettings())
    async with remote:
        with pytest.raises(RemoteUnavailable, match="connection refused"):
            await ask(remote, "/v2/")
