"""Seawall's registry upon a bucket against Debian's docker-registry upon another, in one run, on one radosgw.

    .venv/bin/python bench/registry/s3.py [--rounds 3] [--mib 256] [--small 64] [--large 8]

Needs radosgw, ceph-mon, ceph-osd, ceph-common, curl, docker-registry. The service keeps everything in memory; each
registry has its own bucket there and metadata on tmpfs. Rounds alternate between the two; the median counts. Upload and
download as in `compare.py`; `--small` blobs of 100 kB are pushed by 8 threads at once (POST, then PUT with the body);
`--large` uploads of `--mib` run at once while the memory of all of a registry's processes (PSS) is asked for: the most
that was seen counts, in MiB, above what it had before.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
from compare import Server, download, free_port, upload  # noqa: E402
from memory import family, pss  # noqa: E402

from tests import s3  # noqa: E402

MIB = 1024 * 1024


@contextlib.contextmanager
def started(name: str, command: list[str], port: int, folder: Path, **environment: str) -> Iterator[Server]:
    with (folder / f"{name}.log").open("wb") as log:
        # Without what this machine tells AWS's own clients (a CA bundle, for one, which docker-registry cannot take).
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**inherited, **environment})
    server = Server(name, f"http://127.0.0.1:{port}", process)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                server.request("GET", "/v2/")
                break
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit(f"{name} does not answer: {(folder / f'{name}.log').read_text()}")
                time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def seawall(folder: Path, service: s3.S3Server) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    settings = {"BUCKET": s3.BUCKET, "ENDPOINT": service.endpoint, "REGION": "us-east-1", "PATH_STYLE": "true",
                "ACCESS_KEY": s3.ACCESS, "SECRET_KEY": s3.SECRET, "SPOOL": str(folder)}
    command = [str(Path(sys.executable).with_name("seawall-registry")), "serve", "--data", str(folder / "seawall"),
               "--listen", f"127.0.0.1:{port}"]
    return started("seawall", command, port, folder,
                   **{f"SEAWALL_REGISTRY_S3_{name}": value for name, value in settings.items()})


def peer(folder: Path, service: s3.S3Server) -> contextlib.AbstractContextManager[Server]:
    port, bucket = free_port(), "docker-registry"
    service.client().create_bucket(Bucket=bucket)
    settings = folder / "peer.yml"
    settings.write_text(f"""
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  s3: {{region: us-east-1, regionendpoint: "{service.endpoint}", bucket: {bucket}, accesskey: {s3.ACCESS},
        secretkey: {s3.SECRET}, secure: false, v4auth: true, rootdirectory: /r}}
  redirect: {{disable: true}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
""")
    return started("docker-registry", ["docker-registry", "serve", str(settings)], port, folder)


def fresh(file: Path, mib: int) -> tuple[str, int]:
    """New content in `file`: both skip what they hold."""
    data = os.urandom(MIB)
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for number in range(mib):
            block = number.to_bytes(8, "big") + data[8:]
            digest.update(block)
            out.write(block)
    return f"sha256:{digest.hexdigest()}", file.stat().st_size


def small(server: Server, count: int) -> float:
    """Blobs a second."""
    blobs = [os.urandom(100_000) for _ in range(count)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda data: server.push_blob("bench/small", data), blobs))
    return count / (time.perf_counter() - begun)


def memory(server: Server, folder: Path, count: int, mib: int) -> float:
    """MiB above what it held before, at the most, while so many are uploaded at once."""
    files = [folder / f"large{number}" for number in range(count)]
    digests = [fresh(file, mib)[0] for file in files]
    watching, most = threading.Event(), 0.0
    before = pss(family(server.process.pid))

    def watch() -> None:
        nonlocal most
        while not watching.wait(0.1):
            most = max(most, pss(family(server.process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(upload, [server] * count, files, digests))
    watching.set()
    watcher.join()
    for file in files:
        file.unlink()
    return most - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--small", type=int, default=64)
    parser.add_argument("--large", type=int, default=8)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seawall-bench-", dir="/dev/shm"))
    results: dict[str, dict[str, list[float]]] = {}
    try:
        with s3.running() as service:
            if not service.faithful:
                sys.exit("needs radosgw: moto's server is slower than either registry")
            with seawall(folder, service) as ours, peer(folder, service) as theirs:
                for number in range(options.rounds):
                    file = folder / "blob"
                    digest, size = fresh(file, options.mib)
                    for server in (ours, theirs) if number % 2 else (theirs, ours):
                        row = results.setdefault(server.name, {})
                        row.setdefault("upload MB/s", []).append(upload(server, file, digest))
                        row.setdefault("download MB/s", []).append(1000 * download(server, digest, size, 1))
                        row.setdefault("blobs of 100 kB/s", []).append(small(server, options.small))
                    file.unlink()
                for server in (ours, theirs):
                    results[server.name][f"MiB more for {options.large} uploads of {options.mib // 4} MiB"] = [
                        memory(server, folder, options.large, options.mib // 4)]
    finally:
        shutil.rmtree(folder)
    print("| | seawall | docker-registry | ratio |\n|---|---|---|---|")
    for what, values in results["seawall"].items():
        mine, other = statistics.median(values), statistics.median(results["docker-registry"][what])
        print(f"| {what} | {mine:,.1f} | {other:,.1f} | {mine / other:.2f} |")


if __name__ == "__main__":
    main()
