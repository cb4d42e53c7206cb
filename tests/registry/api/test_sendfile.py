"""The kernel's sendfile around the transport, upon asyncio's own loop and upon uvloop."""

import asyncio
import contextlib
import os
import socket
import subprocess
from dataclasses import replace

import pytest

from ocispec.reference import RepositoryName
from registry.api import sendfile
from registry.settings import LimitSettings, TlsSettings

SIZE = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET") -> str:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_connection_goes_on_after_a_file(api, data) -> None:
    digest = await api.blob(data)
    path = f"/v2/{api.repo}/blobs/{digest}"
    async with api.raw() as raw:
        for _ in range(2):
            raw.send(get(path))
            assert (await raw.answer())[2] == data
            raw.send(get(path, "Range: bytes=1000000-2000000"))
            status, headers, body = await raw.answer()
            assert (status, headers["content-range"]) == (206, f"bytes 1000000-2000000/{SIZE}")
            assert body == data[1_000_000:2_000_001]
            raw.send(get(path, method="HEAD"))
            assert (await raw.head())[1]["content-length"] == str(SIZE)
            raw.send(get("/v2/"))
            assert (await raw.answer())[2] == b"{}"


async def test_pipelined_requests_keep_their_order(api, data) -> None:
    digest = await api.blob(data)
    path = f"/v2/{api.repo}/blobs/{digest}"
    async with api.raw() as raw:
        raw.send(get("/v2/") + get(path) + get("/healthz") + get(path, "Range: bytes=0-99999") + get("/v2/"))
        assert (await raw.answer())[2] == b"{}"
        assert (await raw.answer())[2] == data
        assert (await raw.answer())[2] == b'{"status":"ok"}'
        assert (await raw.answer())[2] == data[:100_000]
        assert (await raw.answer())[2] == b"{}"


@pytest.mark.parametrize(("version", "header"), [("1.0", "X: y"), ("1.1", "Connection: close")])
async def test_a_connection_that_is_to_end_ends(api, data, version, header) -> None:
    digest = await api.blob(data)
    async with api.raw() as raw:
        raw.send(get(f"/v2/{api.repo}/blobs/{digest}", header, version=version))
        assert (await raw.head())[0] == 200
        assert await raw.ended() == data


async def test_clients_that_do_not_read_hold_no_thread(api, data) -> None:
    digest = await api.blob(data)
    path = f"/v2/{api.repo}/blobs/{digest}"
    loop = asyncio.get_running_loop()
    lazy = []
    try:
        for _ in range(3 * sendfile.THREADS):
            client = socket.socket()
            client.setblocking(False)
            await loop.sock_connect(client, api.address)
            await loop.sock_sendall(client, get(path).encode())
            lazy.append(client)
        async with asyncio.timeout(10), api.get(path) as answer:
            assert await answer.read() == data
        # And they get everything once they read.
        reader, writer = await asyncio.open_connection(sock=lazy.pop())
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(SIZE) == data
        writer.close()
    finally:
        for client in lazy:
            client.close()


async def test_a_client_that_leaves_in_the_middle(api, data, until) -> None:
    digest = await api.blob(data)
    path = f"/v2/{api.repo}/blobs/{digest}"
    async with api.get(path) as answer:
        await answer.read()
    before = open_files()
    for _ in range(5):
        async with api.raw() as raw:
            raw.send(get(path))
            await raw.head()
            await raw.reader.readexactly(100_000)
    await until(lambda: open_files() <= before)
    async with api.get(path) as answer:
        assert await answer.read() == data


async def test_a_client_that_stalls_is_let_go(serve, settings, data, until) -> None:
    async with serve(replace(settings, limits=LimitSettings(send_timeout=0.4))) as api:
        digest = await api.blob(data)
        before = open_files()
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, api.address)
            await loop.sock_sendall(client, get(f"/v2/{api.repo}/blobs/{digest}").encode())
            await until(lambda: open_files() > before + 1)
            await until(lambda: open_files() <= before + 1, what="the server lets go of the connection")
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while chunk := await loop.sock_recv(client, 1 << 20):
                    received += len(chunk)
            assert received < SIZE


async def test_a_file_that_is_too_short_never_looks_complete(api, data) -> None:
    digest = await api.blob(data)
    info = await api.registry.content.blobs.stat(RepositoryName(api.repo), digest)
    os.truncate(api.registry.content.blobs.local_path(info), SIZE // 2)
    async with api.raw() as raw:
        raw.send(get(f"/v2/{api.repo}/blobs/{digest}"))
        assert (await raw.head())[1]["content-length"] == str(SIZE)
        with contextlib.suppress(ConnectionResetError):
            assert len(await raw.ended()) < SIZE


async def test_shutdown_lets_a_download_finish(serve, settings, data) -> None:
    async with serve(settings) as api:
        digest = await api.blob(data)
        reader, writer = await asyncio.open_connection(*api.address, limit=1 << 16)
        writer.write(get(f"/v2/{api.repo}/blobs/{digest}").encode())
        await reader.readuntil(b"\r\n\r\n")
        reading = asyncio.create_task(reader.readexactly(SIZE))
    assert await reading == data
    writer.close()


async def test_a_shutdown_that_runs_out_of_patience_closes_everything(serve, settings, data, until) -> None:
    before = open_files()
    async with serve(replace(settings, limits=LimitSettings(shutdown_timeout=0.2))) as api:
        digest = await api.blob(data)
        reader, writer = await asyncio.open_connection(*api.address, limit=1 << 16)
        writer.write(get(f"/v2/{api.repo}/blobs/{digest}").encode())
        await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await until(lambda: open_files() <= before + 1)


async def test_with_tls_bytes_are_copied(serve, settings, data, tmp_path, monkeypatch) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "1", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True,
                   capture_output=True)
    monkeypatch.setattr(sendfile, "_slice", lambda *_: pytest.fail("sendfile would send plain bytes"))
    async with serve(replace(settings, tls=TlsSettings(str(certificate), str(key)))) as api:
        digest = await api.blob(data)
        path = f"/v2/{api.repo}/blobs/{digest}"
        for _ in range(2):
            async with api.get(path) as answer:
                assert await answer.read() == data
            async with api.get(path, headers={"Range": "bytes=100000-999999"}) as answer:
                assert (answer.status, await answer.read()) == (206, data[100_000:1_000_000])
            async with api.get("/v2/") as answer:
                assert answer.status == 200
