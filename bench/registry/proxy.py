"""Pull-through: Seawall's against docker-registry's proxy mode and against no proxy at all, in one run, on tmpfs.

    .venv/bin/python bench/registry/proxy.py [--blobs 30] [--mib 256] [--clients 32] [--delay 20] [--rate 40]

The upstream is a docker-registry behind a relay that delays by `--delay` ms each way and passes `--rate` MB/s on each
connection, as one across the internet would. Each way gets blobs that nobody asked for before ("cold"); rounds
alternate between the ways. Needs curl and docker-registry.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from compare import MANIFEST, Server, free_port, running

REPO = "bench/blobs"


async def relay(port: int, target: int, delay: float, rate: float, passed: Synchronized) -> None:
    """Passes connections on to `target`, late and slowly; counts the bytes that come back."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool = False) -> None:
        loop, free = asyncio.get_running_loop(), 0.0
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def out() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        sending = asyncio.create_task(out())
        with contextlib.suppress(ConnectionError):
            while True:
                data = await reader.read(65536)
                if counts:
                    passed.value += len(data)
                free = max(free, loop.time()) + len(data) / rate
                await queue.put((free + delay, data))
                if not data:
                    break
        with contextlib.suppress(ConnectionError):
            await sending

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, back), pump(there, writer, counts=True), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=65536)
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def relayed(target: int, delay: float, rate: float) -> Iterator[tuple[int, Synchronized]]:
    port, passed = free_port(), multiprocessing.Value("Q")
    process = multiprocessing.Process(target=lambda: asyncio.run(relay(port, target, delay, rate, passed)), daemon=True)
    process.start()
    try:
        yield port, passed
    finally:
        process.kill()
        process.join()


def docker_registry(folder: Path, name: str, upstream: str = "") -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    settings = folder / f"{name}.yml"
    proxy = f"proxy: {{remoteurl: '{upstream}'}}" if upstream else ""
    settings.write_text(f"""
version: 0.1
log: {{level: error, accesslog: {{disabled: {"true" if upstream else "false"}}}}}
storage: {{filesystem: {{rootdirectory: {folder / name}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{proxy}
""")
    return running(name, ["docker-registry", "serve", str(settings)], port)


def seawall(folder: Path, upstream: str) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    settings = folder / "seawall.toml"
    settings.write_text(f'[[upstreams]]\nname = "up"\nurl = "{upstream}"\nallow_private = true\n')
    command = [str(Path(sys.executable).with_name("seawall-registry")), "serve", "--config", str(settings),
               "--data", str(folder / "seawall"), "--listen", f"127.0.0.1:{port}"]
    return running("seawall", command, port)


def first_byte(url: str, path: str) -> tuple[float, float]:
    """Milliseconds until the first byte of the body, and until the last."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.connect()
    begun = time.perf_counter()
    connection.request("GET", path, headers={"Accept": MANIFEST})
    answer = connection.getresponse()
    if answer.status != 200 or not answer.read(1):
        sys.exit(f"{url}{path}: {answer.status}")
    first = time.perf_counter()
    while answer.read(1 << 20):
        pass
    last = time.perf_counter()
    connection.close()
    return (first - begun) * 1000, (last - begun) * 1000


def many(url: str, path: str, clients: int) -> float:
    """Seconds until all of them have it."""
    begun = time.perf_counter()
    curls = [subprocess.Popen(["curl", "-sSf", "-o/dev/null", f"{url}{path}"]) for _ in range(clients)]
    if any(curl.wait() for curl in curls):
        sys.exit(f"{url}: download failed")
    return time.perf_counter() - begun


def pushed(server: Server, size: int) -> str:
    return server.push_blob(REPO, os.urandom(min(size, 1 << 20)) * max(1, size >> 20))


def image(server: Server, tag: str) -> None:
    config = b"{}"
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": server.push_blob(REPO, config)}}
    server.request("PUT", f"/v2/{REPO}/manifests/{tag}", json.dumps(document).encode(), Content_Type=MANIFEST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("blobs", 30), ("mib", 256), ("clients", 32), ("delay", 20), ("rate", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seawall-bench-", dir="/dev/shm"))
    times: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        upstream = stack.enter_context(docker_registry(folder, "upstream"))
        port = int(upstream.url.rpartition(":")[2])
        far, passed = stack.enter_context(relayed(port, options.delay / 1000, options.rate * 1e6))
        address = f"http://127.0.0.1:{far}"
        ways = {
            "no proxy": (address, REPO),
            "docker-registry": (stack.enter_context(docker_registry(folder, "peer", address)).url, REPO),
            "seawall": (stack.enter_context(seawall(folder, address)).url, f"up/{REPO}"),
        }
        rows = {name: times.setdefault(name, {}) for name in ways}

        def note(name: str, what: str, value: float) -> None:
            rows[name].setdefault(what, []).append(value)

        for _ in range(options.blobs):
            for name, (url, repo) in ways.items():
                digest = pushed(upstream, 4 << 20)
                first, last = first_byte(url, f"/v2/{repo}/blobs/{digest}")
                note(name, "cold 4 MiB blob, first byte (ms)", first)
                note(name, "cold 4 MiB blob, last byte (ms)", last)
                first, last = first_byte(url, f"/v2/{repo}/blobs/{digest}")
                note(name, "the same blob again, last byte (ms)", last)
        for number in range(options.blobs):
            image(upstream, f"t{number}")
            for name, (url, repo) in ways.items():
                note(name, "new tag (ms)", first_byte(url, f"/v2/{repo}/manifests/t{number}")[1])
                note(name, "the same tag again (ms)", first_byte(url, f"/v2/{repo}/manifests/t{number}")[1])
        for _ in range(3):
            for name, (url, repo) in ways.items():
                digest = pushed(upstream, options.mib << 20)
                note(name, f"{options.mib} MiB for one client (s)", many(url, f"/v2/{repo}/blobs/{digest}", 1))
                digest, before = pushed(upstream, 16 << 20), passed.value
                note(name, f"16 MiB for {options.clients} at once (s)",
                     many(url, f"/v2/{repo}/blobs/{digest}", options.clients))
                note(name, f"16 MiB for {options.clients} at once, from the upstream (MiB)",
                     (passed.value - before) / (1 << 20))
    print(f"| median, {options.delay} ms and {options.rate} MB/s from the upstream | {' | '.join(ways)} |")
    print("|---|" + "---|" * len(ways))
    for what in rows["seawall"]:
        print(f"| {what} | " + " | ".join(f"{statistics.median(rows[name][what]):,.1f}" for name in ways) + " |")


if __name__ == "__main__":
    main()
