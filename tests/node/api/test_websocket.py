"""Attach over a websocket."""

import aiohttp
import pytest

from node.api.frames import Unframed, framed
from tests.conftest import Until
from tests.node.api.conftest import Node
from tests.node.api.test_streams import make

ALL = "stream=1&stdin=1&stdout=1&stderr=1"


def url(container: str, query: str = ALL, version: str = "v1.51") -> str:
    return f"http://node/{version}/containers/{container}/attach/ws?{query}"


async def messages(line: aiohttp.ClientWebSocketResponse) -> bytes:
    """All that come until the end."""
    parts = []
    async for message in line:
        assert message.type is aiohttp.WSMsgType.BINARY
        parts.append(message.data)
    return b"".join(parts)


async def test_output_comes_without_frames(node: Node) -> None:
    container = await make(node, "echo", "hello")
    async with node.http.ws_connect(url(container)) as line:
        await node.call("POST", f"/containers/{container}/start")
        assert await messages(line) == b"hello\n"
        assert line.close_code == 1000


@pytest.mark.parametrize("tty", [True, False])
async def test_messages_are_input(node: Node, until: Until, tty: bool) -> None:
    container = await make(node, "cat", tty=tty)
    async with node.http.ws_connect(url(container)) as line:
        await line.send_bytes(b"by")
        await line.send_str("tes")
        await node.call("POST", f"/containers/{container}/start")
        got = b""
        while len(got) < 5:
            got += (await line.receive(timeout=5)).data
        assert got == b"bytes"
    await until(lambda: not node.containers.find(container).container.state.running)


async def test_old_clients_get_text(node: Node) -> None:
    container = await make(node, "echo", "hello")
    async with node.http.ws_connect(url(container, version="v1.27")) as line:
        await node.call("POST", f"/containers/{container}/start")
        assert (await line.receive(timeout=5)).data == "hello\n"


async def test_detach_keys(node: Node) -> None:
    container = await make(node, "cat", tty=True)
    async with node.http.ws_connect(url(container, f"{ALL}&detachKeys=ctrl-x")) as line:
        await node.call("POST", f"/containers/{container}/start")
        await line.send_bytes(b"\x18")
        await messages(line)
    assert node.containers.left == [container]


async def test_the_log_comes_first(node: Node) -> None:
    container = await make(node, "echo", "hello")
    await node.call("POST", f"/containers/{container}/start")
    await node.call("POST", f"/containers/{container}/wait")
    async with node.http.ws_connect(url(container, "logs=1&stdout=1")) as line:
        assert await messages(line) == b"hello\n"


async def test_who_leaves_gives_its_place_up(node: Node, until: Until) -> None:
    container = await make(node, "cat")
    async with node.http.ws_connect(url(container)):
        place = node.containers.find(container).places[0]
        assert not place.cancelled
    await until(lambda: place.cancelled)


async def test_what_is_no_websocket_is_refused(node: Node) -> None:
    container = await make(node, "cat")
    assert (await node.call("GET", f"/containers/{container}/attach/ws?{ALL}"))[0] == 400
    assert (await node.call("GET", f"/containers/none/attach/ws?{ALL}"))[0] == 404


def test_frames_in_pieces() -> None:
    data = framed(b"one") + bytes((2, 0, 0, 0, 0, 0, 0, 3)) + b"two" + framed(b"")
    for size in range(1, 9):
        plain = Unframed()
        assert b"".join(plain(data[at : at + size]) for at in range(0, len(data), size)) == b"onetwo"
