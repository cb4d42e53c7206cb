"""Seawall's registry against Debian's docker-registry, in one run, both on tmpfs.

    .venv/bin/python bench/registry/compare.py [--rounds 3] [--mib 512] [--seconds 4]

Rounds alternate between the two and their order, so that what else the machine does meets both; the median counts.
Needs wrk, curl, docker-registry. GETs: wrk with 32 connections; HEADs: 32 connections too. Upload: POST, one streamed
PATCH, PUT, as docker and skopeo do it. Download: GET of that blob by curl, and by four curls at once. Pushes: 64
clients (threads of two processes, kept connections, digests from one hash of the common beginning), each
POST and PUT with the whole blob, as containerd does it.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import multiprocessing
import os
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONNECTIONS = 32
STREAMS = 4
CLIENTS, PROCESSES = 64, 2
PUSHED = 1_000_000


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    process: subprocess.Popen
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str):
        url = path if path.startswith("http") else self.url + path
        wanted = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return urllib.request.urlopen(urllib.request.Request(url, data=body, method=method, headers=wanted))

    def begin(self, repo: str) -> str:
        location = self.request("POST", f"/v2/{repo}/blobs/uploads/", b"").headers["Location"]
        return location if location.startswith("http") else self.url + location

    def push_blob(self, repo: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        location = self.begin(repo)
        self.request("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", data,
                     Content_Type="application/octet-stream")
        return digest

    def push_image(self, repo: str) -> tuple[str, str]:
        """Digests of the manifest and of a layer."""
        config, layer = b"{}", os.urandom(1000)
        document = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
                       "digest": self.push_blob(repo, config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": len(layer),
                        "digest": self.push_blob(repo, layer)}],
        }
        raw = json.dumps(document).encode()
        self.request("PUT", f"/v2/{repo}/manifests/latest", raw, Content_Type=MANIFEST)
        return f"sha256:{hashlib.sha256(raw).hexdigest()}", document["layers"][0]["digest"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(name: str, command: list[str], port: int) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server(name, f"http://127.0.0.1:{port}", process)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                server.request("GET", "/v2/")
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    sys.exit(f"{name} does not start")
                time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def seawall(folder: Path) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    command = [str(Path(sys.executable).with_name("seawall-registry")), "serve", "--data", str(folder / "seawall"),
               "--listen", f"127.0.0.1:{port}"]
    return running("seawall", command, port)


def peer(folder: Path) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    settings = folder / "peer.yml"
    settings.write_text(f"""
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder / "peer"}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
""")
    return running("docker-registry", ["docker-registry", "serve", str(settings)], port)


def gets(server: Server, path: str, seconds: int) -> float:
    """Requests a second, by wrk."""
    output = subprocess.run(
        ["wrk", f"-c{CONNECTIONS}", "-t2", f"-d{seconds}", "-H", f"Accept: {MANIFEST}",
         *(word for name, value in server.headers.items() for word in ("-H", f"{name}: {value}")),
         f"{server.url}{path}"], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"{server.name}: {output}")
    return float(next(line.split()[1] for line in output.splitlines() if line.startswith("Requests/sec")))


def heads(server: Server, path: str, seconds: int) -> float:
    """Requests a second. wrk waits for the body that a HEAD's answer announces, so this is a loop over sockets: about
    5 µs a request, a fifth of what the fastest server needs."""
    address = server.url.removeprefix("http://").split(":")
    lines = [f"HEAD {path} HTTP/1.1", f"Host: {address[0]}", f"Accept: {MANIFEST}",
             *(f"{name}: {value}" for name, value in server.headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode()
    poll = select.epoll()
    with contextlib.ExitStack() as stack:
        sockets = {}
        for _ in range(CONNECTIONS):
            opened = stack.enter_context(socket.create_connection((address[0], int(address[1]))))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets[opened.fileno()] = opened
            poll.register(opened, select.EPOLLIN)
            opened.send(request)
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for number, _ in poll.poll():
                answer = sockets[number].recv(8192)
                if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"\r\n\r\n"):
                    sys.exit(f"{server.name}: {answer[:500]!r}")
                done += 1
                sockets[number].send(request)
        return done / (time.perf_counter() - begun)


def pushes(server: Server, seconds: float) -> float:
    """Blobs of 1 MB a second, by 64 clients."""
    begin = time.time() + 0.5
    counted = multiprocessing.get_context("fork").SimpleQueue()
    workers = [multiprocessing.get_context("fork").Process(
        target=_push_all, args=(server, begin, seconds, counted)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    total = sum(counted.get() for _ in workers)
    for worker in workers:
        worker.join()
    if total < 0:
        sys.exit(f"{server.name}: a push failed")
    return total / seconds


def _push_all(server: Server, begin: float, seconds: float, counted) -> None:
    done, failed = [0] * (CLIENTS // PROCESSES), []
    body = os.urandom(PUSHED - 16)
    hashed = hashlib.sha256(body)

    def client(number: int) -> None:
        try:
            connection = http.client.HTTPConnection(*server.url.removeprefix("http://").split(":"))
            while time.time() < begin:
                time.sleep(0.01)
            while time.time() < begin + seconds:
                tail = os.urandom(16)
                whole = hashed.copy()
                whole.update(tail)
                _push(connection, server, f"bench/push{number % 8}", body + tail, f"sha256:{whole.hexdigest()}")
                done[number] += time.time() < begin + seconds
        except Exception as error:
            failed.append(error)
            print(f"{server.name}: {error!r}", file=sys.stderr)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(done))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted.put(-10**9 if failed else sum(done))


def _push(connection: http.client.HTTPConnection, server: Server, repo: str, data: bytes, digest: str) -> None:
    connection.request("POST", f"/v2/{repo}/blobs/uploads/", b"", dict(server.headers))
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"]
    connection.request("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", data,
                       {"Content-Type": "application/octet-stream", **server.headers})
    answer = connection.getresponse()
    if (answer.read() and answer.status >= 300) or answer.status != 201:
        raise RuntimeError(f"{answer.status}")


def upload(server: Server, file: Path, digest: str) -> float:
    """MB/s from the first request to the committed blob."""
    begun = time.perf_counter()
    location = server.begin("bench/blobs")
    # The peer's PATCH answers with a new location (its state is in it): one curl for each step, as for ours.
    headers = subprocess.run(["curl", "-sSf", "-D-", "-o/dev/null", "-X", "PATCH", "-T", file, "-H", "Expect:", "-H",
                              "Content-Type: application/octet-stream", location],
                             check=True, capture_output=True, text=True).stdout
    location = next(line.split(": ", 1)[1] for line in headers.splitlines() if line.lower().startswith("location:"))
    location = location if location.startswith("http") else server.url + location
    server.request("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", b"")
    return file.stat().st_size / 1e6 / (time.perf_counter() - begun)


def download(server: Server, digest: str, size: int, streams: int) -> float:
    """GB/s."""
    begun = time.perf_counter()
    curls = [subprocess.Popen(["curl", "-sSf", "-o/dev/null", f"{server.url}/v2/bench/blobs/blobs/{digest}"])
             for _ in range(streams)]
    if any(curl.wait() for curl in curls):
        sys.exit(f"{server.name}: download failed")
    return streams * size / 1e9 / (time.perf_counter() - begun)


def measure(server: Server, image: tuple[str, str], file: Path, digest: str,
            seconds: int) -> Iterator[tuple[str, float]]:
    tag, by_digest = "/v2/bench/image/manifests/latest", f"/v2/bench/image/manifests/{image[0]}"
    yield "manifest GET by tag /s", gets(server, tag, seconds)
    yield "manifest GET by digest /s", gets(server, by_digest, seconds)
    yield "manifest HEAD by tag /s", heads(server, tag, seconds)
    yield "manifest HEAD by digest /s", heads(server, by_digest, seconds)
    yield "blob HEAD /s", heads(server, f"/v2/bench/image/blobs/{image[1]}", seconds)
    yield "blob GET of 1 kB /s", gets(server, f"/v2/bench/image/blobs/{image[1]}", seconds)
    yield "upload MB/s", upload(server, file, digest)
    size = file.stat().st_size
    yield "download GB/s", download(server, digest, size, 1)
    yield f"download GB/s, {STREAMS} at once", download(server, digest, size, STREAMS)
    yield f"1 MB blobs pushed by {CLIENTS} clients /s", pushes(server, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seawall-bench-", dir="/dev/shm"))
    results: dict[str, dict[str, list[float]]] = {}
    try:
        with seawall(folder) as ours, peer(folder) as theirs:
            images = {server.name: server.push_image("bench/image") for server in (ours, theirs)}
            for number in range(options.rounds):
                # New bytes each round: both skip what they hold.
                file = folder / "blob"
                data = os.urandom(1 << 20) + number.to_bytes(8, "big")
                with file.open("wb") as out:
                    for _ in range(options.mib):
                        out.write(data)
                digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
                for server in (ours, theirs) if number % 2 else (theirs, ours):
                    for what, value in measure(server, images[server.name], file, digest, options.seconds):
                        results.setdefault(server.name, {}).setdefault(what, []).append(value)
    finally:
        shutil.rmtree(folder)
    print("| | seawall | docker-registry | ratio | of single rounds |\n|---|---|---|---|---|")
    for what, values in results["seawall"].items():
        others = results["docker-registry"][what]
        mine, other = statistics.median(values), statistics.median(others)
        ratios = [one / two for one, two in zip(values, others, strict=True)]
        print(f"| {what} | {mine:,.2f} | {other:,.2f} | {mine / other:.2f} | {min(ratios):.2f}–{max(ratios):.2f} |")


if __name__ == "__main__":
    main()
