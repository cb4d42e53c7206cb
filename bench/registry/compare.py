"""Seawall's registry against Debian's docker-registry, in one run, both on tmpfs.

    .venv/bin/python bench/registry/compare.py [--rounds 3] [--mib 512] [--seconds 4]

Rounds alternate between the two, so that what else the machine does meets both; the median counts. Needs wrk, curl,
docker-registry. Manifest reads: wrk with 32 connections. Upload: POST, one streamed PATCH, PUT, as docker and skopeo
do it. Download: GET of that blob by curl, and by four curls at once.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONNECTIONS = 32
STREAMS = 4


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    process: subprocess.Popen

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str):
        url = path if path.startswith("http") else self.url + path
        wanted = {name.replace("_", "-"): value for name, value in headers.items()}
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

    def push_image(self, repo: str) -> None:
        config, layer = b"{}", os.urandom(1000)
        document = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
                       "digest": self.push_blob(repo, config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": len(layer),
                        "digest": self.push_blob(repo, layer)}],
        }
        self.request("PUT", f"/v2/{repo}/manifests/latest", json.dumps(document).encode(), Content_Type=MANIFEST)


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


def manifests(server: Server, seconds: int) -> float:
    """GETs a second."""
    output = subprocess.run(
        ["wrk", f"-c{CONNECTIONS}", "-t2", f"-d{seconds}", "-H", f"Accept: {MANIFEST}",
         f"{server.url}/v2/bench/image/manifests/latest"], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"{server.name}: {output}")
    return float(next(line.split()[1] for line in output.splitlines() if line.startswith("Requests/sec")))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seawall-bench-", dir="/dev/shm"))
    results: dict[str, dict[str, list[float]]] = {}
    try:
        with seawall(folder) as ours, peer(folder) as theirs:
            for server in (ours, theirs):
                server.push_image("bench/image")
            for number in range(options.rounds):
                # New bytes each round: both skip what they hold.
                file = folder / "blob"
                data = os.urandom(1 << 20) + number.to_bytes(8, "big")
                with file.open("wb") as out:
                    for _ in range(options.mib):
                        out.write(data)
                digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
                size = file.stat().st_size
                for server in (ours, theirs) if number % 2 else (theirs, ours):
                    row = results.setdefault(server.name, {})
                    row.setdefault("manifest GET/s", []).append(manifests(server, options.seconds))
                    row.setdefault("upload MB/s", []).append(upload(server, file, digest))
                    row.setdefault("download GB/s", []).append(download(server, digest, size, 1))
                    row.setdefault(f"download GB/s, {STREAMS} at once", []).append(
                        download(server, digest, size, STREAMS))
    finally:
        shutil.rmtree(folder)
    print("| | seawall | docker-registry | ratio |\n|---|---|---|---|")
    for what, values in results["seawall"].items():
        mine, other = statistics.median(values), statistics.median(results["docker-registry"][what])
        print(f"| {what} | {mine:,.2f} | {other:,.2f} | {mine / other:.2f} |")


if __name__ == "__main__":
    main()
