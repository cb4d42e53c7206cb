"""Attach and exec as raw streams, by a client that writes its own bytes."""

import asyncio
import json
from unittest import mock

import pytest

from node.api.app import SocketBusy, serve
from tests.conftest import Until
from tests.node.api.conftest import Node
from tests.node.api.fakes import frame


async def make(node: Node, *cmd: str, tty: bool = False) -> str:
    body = {"Image": "busybox", "Cmd": cmd, "OpenStdin": True, "Tty": tty}
    status, created = await node.call("POST", "/containers/create", body)
    assert status == 201
    return str(created["Id"])


def attach(container: str, version: str = "v1.51", upgrade: bool = True, query: str = "") -> bytes:
    lines = [f"POST /{version}/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1{query} HTTP/1.1",
             "Host: node"]  # fmt: skip
    lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_attach_before_start_misses_nothing(node: Node) -> None:
    container = await make(node, "echo", "hello")
    line = await node.dial()
    line.send(attach(container))
    status, headers = await line.head()
    assert status == "HTTP/1.1 101 UPGRADED"
    assert headers["upgrade"] == "tcp"
    assert headers["connection"] == "Upgrade"
    assert headers["content-type"] == "application/vnd.docker.multiplexed-stream"
    assert headers["api-version"] == "1.51"
    await node.call("POST", f"/containers/{container}/start")
    assert await line.rest() == frame(1, b"hello\n", tty=False)
    line.close()


@pytest.mark.parametrize(
    ("version", "tty", "kind"),
    [
        ("v1.41", False, "raw-stream"),
        ("v1.42", False, "multiplexed-stream"),
        ("v1.42", True, "raw-stream"),
        ("v1.51", False, "multiplexed-stream"),
    ],
)
async def test_content_types_by_version(node: Node, version: str, tty: bool, kind: str) -> None:
    container = await make(node, "echo", "x", tty=tty)
    line = await node.dial()
    line.send(attach(container, version))
    _, headers = await line.head()
    assert headers["content-type"] == f"application/vnd.docker.{kind}"
    line.close()


async def test_a_client_that_does_not_upgrade_gets_200(node: Node) -> None:
    container = await make(node, "cat", tty=True)
    line = await node.dial()
    line.send(attach(container, upgrade=False) + b"early")
    status, headers = await line.head()
    assert status == "HTTP/1.1 200 OK"
    assert "upgrade" not in headers
    await node.call("POST", f"/containers/{container}/start")
    assert await line.exactly(5) == b"early"
    line.close()


@pytest.mark.parametrize("upgrade", [True, False])
async def test_bytes_sent_behind_the_head_arrive(node: Node, upgrade: bool) -> None:
    """In one packet with the head, and before the answer: aiohttp's parser would lose or misread them."""
    container = await make(node, "cat", tty=True)
    await node.call("POST", f"/containers/{container}/start")
    line = await node.dial()
    line.send(attach(container, upgrade=upgrade) + b"GET /looks-like HTTP/1.1\r\n\r\n")
    await line.head()
    line.writer.write_eof()
    # The container was started before: the fake attaches to the next start only, so restart it.
    await node.call("POST", f"/containers/{container}/restart")
    assert await line.rest() == b"GET /looks-like HTTP/1.1\r\n\r\n<eof>"
    line.close()


async def test_a_head_in_pieces(node: Node) -> None:
    container = await make(node, "cat", tty=True)
    line = await node.dial()
    for byte in attach(container):
        line.send(bytes((byte,)))
        await asyncio.sleep(0)
    line.send(b"abc")
    assert (await line.head())[0].startswith("HTTP/1.1 101")
    await node.call("POST", f"/containers/{container}/start")
    assert await line.exactly(3) == b"abc"
    line.close()


async def test_half_close_is_end_of_input_and_the_output_still_comes(node: Node) -> None:
    container = await make(node, "cat", tty=True)
    line = await node.dial()
    line.send(attach(container) + b"last words")
    line.writer.write_eof()
    await line.head()
    await node.call("POST", f"/containers/{container}/start")
    assert await line.rest() == b"last words<eof>"


async def test_a_refused_attach_is_http_and_the_connection_goes_on(node: Node) -> None:
    line = await node.dial()
    line.send(attach("nobody") + b"GET /_ping HTTP/1.1\r\nHost: node\r\n\r\n")
    status, headers = await line.head()
    assert status == "HTTP/1.1 404 Not Found"
    assert json.loads(await line.exactly(int(headers["content-length"]))) == {"message": "No such container: nobody"}
    status, headers = await line.head()
    assert status == "HTTP/1.1 200 OK"
    assert await line.exactly(2) == b"OK"
    line.close()


async def test_a_container_that_never_starts_ends_the_stream(node: Node) -> None:
    container = await make(node, "no-such-program")
    line = await node.dial()
    line.send(attach(container))
    await line.head()
    status, body = await node.call("POST", f"/containers/{container}/start")
    assert (status, body["message"]) == (400, 'exec: "no-such-program": executable file not found in $PATH')
    assert await line.rest() == b""


async def test_detach_keys_of_a_terminal(node: Node) -> None:
    container = await make(node, "cat", tty=True)
    line = await node.dial()
    line.send(attach(container, query="&detachKeys=ctrl-x,x") + b"one\x18two")
    await line.head()
    await node.call("POST", f"/containers/{container}/start")
    assert await line.exactly(7) == b"one\x18two"
    line.send(b"\x18")
    line.send(b"xthree")
    assert await line.rest() in (b"", b"<eof>")
    assert b"three" not in b"".join(node.containers.find(container).output)
    assert node.containers.left == [container]


async def test_detach_keys_mean_nothing_without_a_terminal(node: Node) -> None:
    container = await make(node, "cat")
    line = await node.dial()
    line.send(attach(container) + b"\x10\x11")
    line.writer.write_eof()
    await line.head()
    await node.call("POST", f"/containers/{container}/start")
    assert await line.rest() == frame(1, b"\x10\x11", tty=False) + frame(1, b"<eof>", tty=False)


async def test_wrong_detach_keys(node: Node) -> None:
    container = await make(node, "cat")
    line = await node.dial()
    line.send(attach(container, query="&detachKeys=nonsense"))
    assert (await line.head())[0] == "HTTP/1.1 400 Bad Request"
    line.close()


async def test_who_leaves_before_the_start_gives_its_place_up(node: Node, until: Until) -> None:
    container = await make(node, "echo", "x")
    line = await node.dial()
    line.send(attach(container))
    await line.head()
    place = node.containers.find(container).places[0]
    line.close()
    await until(lambda: place.cancelled)


async def test_who_leaves_a_quiet_container_after_a_half_close_is_noticed(node: Node, until: Until) -> None:
    container = await make(node, "sleep")
    line = await node.dial()
    line.send(attach(container))
    await line.head()
    await node.call("POST", f"/containers/{container}/start")
    line.writer.write_eof()
    await asyncio.sleep(0.1)
    assert len(_connections(node)) >= 1
    line.close()
    await until(lambda: not any(raw for raw in _connections(node)), within=5)


def _connections(node: Node) -> list[bool]:
    """Whether each open connection of the daemon is taken over."""
    import gc

    from node.api.streams import EngineConnection

    return [c._raw is not None for c in gc.get_objects() if type(c) is EngineConnection and c.transport is not None]


async def test_a_slow_reader_does_not_fill_the_daemons_memory(node: Node) -> None:
    container = await make(node, "flood", "2000")
    line = await node.dial()
    line.send(attach(container))
    await line.head()
    await node.call("POST", f"/containers/{container}/start")
    line.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)
    held = node.containers.find(container)
    assert held.container.state.running, "the writer must have been held up by a reader that does not read"
    assert len(held.output) < 100
    line.close()


async def test_exec(node: Node) -> None:
    container = await make(node, "sleep")
    await node.call("POST", f"/containers/{container}/start")
    body = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    status, created = await node.call("POST", f"/containers/{container}/exec", body)
    assert status == 201
    line = await node.dial()
    payload = b'{"Detach": false, "Tty": false}'
    line.send(
        f"POST /v1.51/exec/{created['Id']}/start HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
        f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload + b"in"
    )
    assert (await line.head())[0] == "HTTP/1.1 101 UPGRADED"
    line.writer.write_eof()
    assert await line.rest() == frame(1, b"in", tty=False) + frame(1, b"<eof>", tty=False)
    status, document = await node.call("GET", f"/exec/{created['Id']}/json")
    assert document["ExitCode"] == 0
    assert document["ProcessConfig"]["entrypoint"] == "cat"
    assert document["CanRemove"] is True


@pytest.mark.parametrize(("made", "asked"), [(True, False), (False, True)])
async def test_frames_are_the_starts_affair(node: Node, made: bool, asked: bool) -> None:
    container = await make(node, "sleep")
    await node.call("POST", f"/containers/{container}/start")
    body = {"Cmd": ["echo", "hi"], "AttachStdout": True, "Tty": made}
    _, created = await node.call("POST", f"/containers/{container}/exec", body)
    async with node.http.post(f"http://node/exec/{created['Id']}/start", json={"Tty": asked}) as answer:
        assert await answer.read() == (b"hi\n" if asked else frame(1, b"hi\n", tty=False))


async def test_the_keys_of_an_exec_are_shown_as_bytes(node: Node) -> None:
    container = await make(node, "sleep")
    await node.call("POST", f"/containers/{container}/start")
    _, created = await node.call("POST", f"/containers/{container}/exec", {"Cmd": ["a"], "DetachKeys": "ctrl-a,x"})
    _, document = await node.call("GET", f"/exec/{created['Id']}/json")
    assert document["DetachKeys"] == "AXg="


async def test_an_exec_whose_body_comes_later_and_in_pieces(node: Node) -> None:
    container = await make(node, "sleep")
    await node.call("POST", f"/containers/{container}/start")
    body = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}
    _, created = await node.call("POST", f"/containers/{container}/exec", body)
    line = await node.dial()
    line.send(f"POST /v1.51/exec/{created['Id']}/start HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
              f"Content-Type: application/json\r\nContent-Length: 16\r\n\r\n".encode())  # fmt: skip
    for piece in (b'{"Detach', b'":false', b"}in"):
        await asyncio.sleep(0.02)
        line.send(piece)
    assert (await line.head())[0] == "HTTP/1.1 101 UPGRADED"
    assert await line.exactly(10) == frame(1, b"in", tty=False)
    line.close()


async def test_exec_of_what_is_not_there_is_said_on_the_stream(node: Node) -> None:
    container = await make(node, "sleep")
    await node.call("POST", f"/containers/{container}/start")
    _, created = await node.call("POST", f"/containers/{container}/exec", {"Cmd": ["no-such-program"]})
    line = await node.dial()
    head = f"POST /v1.51/exec/{created['Id']}/start HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
    line.send(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    await line.head()
    assert await line.rest() == frame(1, b'exec: "no-such-program": executable file not found in $PATH\r\n', tty=False)
    assert (await node.call("GET", f"/exec/{created['Id']}/json"))[1]["ExitCode"] == 127
    status, _ = await node.call("POST", f"/exec/{created['Id']}/start", {"Detach": False})
    assert status == 409


async def test_a_detached_exec_of_what_is_not_there_has_a_status(node: Node) -> None:
    container = await make(node, "sleep")
    await node.call("POST", f"/containers/{container}/start")
    _, created = await node.call("POST", f"/containers/{container}/exec", {"Cmd": ["no-such-program"]})
    status, body = await node.call("POST", f"/exec/{created['Id']}/start", {"Detach": True})
    assert (status, body["message"]) == (400, 'exec: "no-such-program": executable file not found in $PATH')


async def test_detached_exec(node: Node) -> None:
    container = await make(node, "sleep")
    await node.call("POST", f"/containers/{container}/start")
    _, created = await node.call("POST", f"/containers/{container}/exec", {"Cmd": ["exit", "3"]})
    assert (await node.call("POST", f"/exec/{created['Id']}/start", {"Detach": True}))[0] == 200
    await node.execs.task
    assert (await node.call("GET", f"/exec/{created['Id']}/json"))[1]["ExitCode"] == 3


async def test_wait_sends_its_headers_first(node: Node) -> None:
    container = await make(node, "exit", "7")
    async with node.http.post(f"http://node/containers/{container}/wait?condition=next-exit") as answer:
        # The headers are here, so nothing the container does from now on is missed.
        assert answer.status == 200
        await node.call("POST", f"/containers/{container}/start")
        assert await answer.json() == {"StatusCode": 7}


async def test_a_waiter_that_leaves_is_forgotten(node: Node, until: Until) -> None:
    container = await make(node, "sleep")
    await node.call("POST", f"/containers/{container}/start")
    line = await node.dial()
    line.send(f"POST /containers/{container}/wait HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\n\r\n".encode())
    await line.head()
    (_, future), *_ = node.containers.find(container).waiters
    line.close()
    await until(future.cancelled)


async def test_stopping_hangs_up_on_attached_clients(node: Node, tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "second.sock"
    from node.api.app import Engine, build
    from node.api.system import Facts
    from tests.node.api.fakes import FakeArchives, FakeCommits, FakeFiles, FakeNetworks

    engine = Engine(node.containers, node.execs, node.images, FakeNetworks(), node.volumes, node.searches, node.bus,
                    Facts("x", "vfs", "2", path.parent), FakeFiles(node.containers),
                    FakeArchives(), FakeCommits(), mock.Mock(), mock.Mock())  # fmt: skip
    container = await make(node, "sleep")
    async with serve(build(engine), path):
        with pytest.raises(SocketBusy):
            async with serve(build(engine), path):
                pass
        assert path.stat().st_mode & 0o777 == 0o660
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(attach(container))
        await reader.readuntil(b"\r\n\r\n")
        waiting, waiter = await asyncio.open_unix_connection(str(path))
        waiter.write(f"POST /containers/{container}/wait?condition=next-exit HTTP/1.1\r\nHost: n\r\n\r\n".encode())
        await waiting.readuntil(b"\r\n\r\n")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 3
    assert await reader.read() == b""
    writer.close()
    waiter.close()
    assert not path.exists()


async def test_a_stale_socket_is_taken_over(node: Node, tmp_path: object) -> None:
    import socket
    from pathlib import Path

    path = Path(str(tmp_path)) / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    from aiohttp import web

    async with serve(web.Application(), path):
        assert path.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n" * 1000,
        b"\x00\xff" * 1000,
        b"GET",
        b"POST /containers/x/attach HTTP/1.1\r\nHost: n\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /containers/x/attach HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n\r\n",
        b"POST /containers/x/attach HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /containers/x/attach HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /containers/x/attach HTTP/1.1\nHost: n\n\nrest",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 300_000,
        b"GET /_ping HTTP/1.1\r\nHost: n\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nPRI * HTTP/2.0\r\n\r\n",
    ],
    ids=range(12),
)
async def test_hostile_bytes_end_their_own_connection_only(
    node: Node, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    line = await node.dial()
    line.send(data)
    line.writer.write_eof()
    answer = await line.rest()
    assert answer == b"" or answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 400 ")), answer[:100]
    assert (await node.call("GET", "/info"))[0] == 200
    assert not [record for record in caplog.records if record.name in ("asyncio", "node.api.dispatch")]


@pytest.mark.parametrize("seed", range(20))
async def test_an_attach_cut_anywhere_says_the_same(node: Node, seed: int) -> None:
    """A refused attach, then a ping, then an attach that is taken over, on one connection, in random pieces."""
    import random

    container = await make(node, "cat", tty=True)
    random_ = random.Random(seed)
    body = b'{"Cmd":["cat"],"AttachStdin":true,"AttachStdout":true}'
    data = (
        attach("nobody")
        + b"GET /_ping HTTP/1.1\r\nHost: n\r\n\r\n"
        + f"POST /containers/{container}/exec HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\n"
          f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        + attach(container) + b"to the container"
    )  # fmt: skip
    line = await node.dial()
    while data:
        size = random_.choice([1, 3, 50, 200, 1000])
        line.send(data[:size])
        data = data[size:]
        if random_.random() < 0.5:
            await asyncio.sleep(0)
    statuses = []
    for _ in range(3):
        status, headers = await line.head()
        statuses.append(status.split(" ")[1])
        await line.exactly(int(headers["content-length"]))
    assert statuses == ["404", "200", "409"]
    assert (await line.head())[0] == "HTTP/1.1 101 UPGRADED"
    await node.call("POST", f"/containers/{container}/start")
    assert await line.exactly(16) == b"to the container"
    line.close()
