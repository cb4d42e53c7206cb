"""How much memory the registry's processes hold while many large uploads run at once.

    .venv/bin/python bench/registry/memory.py [--uploads 32] [--mib 512] [--workers 2] [--data DIR]

Every upload is its own content, sent as one streamed PATCH without a Content-Length (as docker, crane and skopeo do),
then finished with PUT. All run at the same time; a blob is deleted and its bytes are collected only at the end, so DIR
(default: /dev/shm) wants uploads x mib of room: where there is less, `--held N` lets N of the uploads stay and cancels
the others once all their bytes are there. What counts is the proportional set size (PSS: a page that several processes
share counts once) of all processes of the registry together, asked for ten times a second.
"""

import argparse
import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
PIECE = 256 * 1024
GOAL = 250


def family(parent: int) -> list[int]:
    """The process and its children."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def pss(pids: list[int]) -> float:
    """MiB of all of them together."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


class Upload(threading.Thread):
    def __init__(self, host: str, number: int, mib: int, gate: threading.Barrier, keep: bool) -> None:
        super().__init__()
        self.host, self.number, self.mib, self.gate, self.keep = host, number, mib, gate, keep
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.push()
        except BaseException as error:  # shown by the main thread
            self.error = error

    def push(self) -> None:
        piece = hashlib.sha256(str(self.number).encode()).digest() * (PIECE // 32)
        hasher = hashlib.sha256()
        connection = http.client.HTTPConnection(self.host, timeout=600)
        location = self.ask(connection, "POST", f"/v2/bench/memory{self.number}/blobs/uploads/", 202)
        self.gate.wait()

        def body():
            for _ in range(self.mib * MIB // PIECE):
                hasher.update(piece)
                yield piece

        connection.request("PATCH", location, body=body(), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"})
        location = self.answer(connection, 202)
        if not self.keep:
            self.ask(connection, "DELETE", location, 204)
            return
        self.ask(connection, "PUT", f"{location}?digest=sha256:{hasher.hexdigest()}", 201)

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str, status: int) -> str:
        connection.request(method, path, headers={"Content-Length": "0"})
        return self.answer(connection, status)

    def answer(self, connection: http.client.HTTPConnection, status: int) -> str:
        response = connection.getresponse()
        text = response.read()
        if response.status != status:
            raise RuntimeError(f"{response.status} where {status} was wanted: {text[:300]!r}")
        return response.headers.get("Location", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uploads", type=int, default=32)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--held", type=int, default=1 << 30)
    parser.add_argument("--data", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.data, prefix="seawall-memory-"))
    command = [Path(sys.executable).with_name("seawall-registry"), "serve", "--data", folder,
               "--listen", "127.0.0.1:0", "--workers", str(options.workers)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        host = line.split("://")[1].split(" ")[0]
        time.sleep(1)
        idle = pss(family(process.pid))
        gate = threading.Barrier(options.uploads)
        uploads = [Upload(host, number, options.mib, gate, number < options.held) for number in range(options.uploads)]
        begun = time.monotonic()
        for upload in uploads:
            upload.start()
        most = 0.0
        while any(upload.is_alive() for upload in uploads):
            most = max(most, pss(family(process.pid)))
            time.sleep(0.1)
        took = time.monotonic() - begun
        errors = [upload.error for upload in uploads if upload.error]
        if errors:
            raise errors[0]
        total = options.uploads * options.mib
        print(f"{options.uploads} uploads of {options.mib} MiB, {options.workers} workers, {os.cpu_count()} cores: "
              f"idle {idle:.0f} MiB, most {most:.0f} MiB (goal {GOAL}), after {pss(family(process.pid)):.0f} MiB, "
              f"{total / took:.0f} MiB/s")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
