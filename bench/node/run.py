"""`docker run` and `docker exec` against seawalld and Docker, in one run, on tmpfs, by one docker client.

    sudo .venv/bin/python bench/node/run.py --image ../shared/images/fanal-alpine-310.tar.gz

The script re-executes itself in a network and mount namespace of its own, so neither engine touches the host's rules.
Both engines pull the image from one seawall-registry there. Prints medians in milliseconds and ratios (Docker / ours).
"""

import argparse
import contextlib
import gzip
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PORT = 5055
NAME = f"127.0.0.1:{PORT}/bench:latest"
BIN = Path(sys.executable).parent


def in_own_namespaces() -> None:
    if os.environ.get("SEAWALL_BENCH") != "inside":
        os.environ["SEAWALL_BENCH"] = "inside"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.orig_argv[1:]])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@contextlib.contextmanager
def process(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()


def wait_for(path: Path | int) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if isinstance(path, int):
                socket.create_connection(("127.0.0.1", path), 1).close()
                return
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                return
        time.sleep(0.05)
    sys.exit(f"{path} does not answer")


def timed(command: list[str], rounds: int) -> float:
    spans = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        spans.append(time.perf_counter() - begin)
    return statistics.median(spans) * 1000


def measure(client: str, sock: Path, rounds: int) -> dict[str, float]:
    docker = [client, "-H", f"unix://{sock}"]
    subprocess.run([*docker, "pull", "-q", NAME], check=True, stdout=subprocess.DEVNULL)
    out = {}
    for network in ("bridge", "none", "host"):
        run = [*docker, "run", "--rm", "--network", network, NAME, "true"]
        timed(run, 2)
        out[f"run --rm, {network}"] = timed(run, rounds)
    out["run --rm -p"] = timed([*docker, "run", "--rm", "-p", "127.0.0.1:18080:80", NAME, "true"], rounds)
    idle = [*docker, "run", "-d", "--name", "idle", NAME, "sleep", "600"]
    subprocess.run(idle, check=True, stdout=subprocess.DEVNULL)
    out["exec"] = timed([*docker, "exec", "idle", "true"], rounds)
    subprocess.run([*docker, "rm", "-f", "idle"], check=True, stdout=subprocess.DEVNULL)
    return out


def push(image: Path, folder: Path) -> None:
    if image.suffix == ".gz":
        plain = folder / "image.tar"
        with gzip.open(image) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        image = plain
    subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{image}", f"docker://{NAME}"],
                   check=True)


@contextlib.contextmanager
def both_engines(image: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Ours and Docker beside each other, who can both pull `image`: the folder of both, and a socket each."""
    in_own_namespaces()
    root = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="seawall-bench-"))
    ours, theirs = root / "node.sock", root / "docker.sock"
    try:
        with (
            process(str(BIN / "seawall-registry"), "serve", "--data", str(root / "registry"), "--listen",
                    f"127.0.0.1:{PORT}", "--workers", "1", log=root / "registry.log"),
            process(str(BIN / "seawalld"), "--home", str(root / "node"), "--socket", str(ours), log=root / "node.log"),
            process("dockerd", "--data-root", str(root / "data"), "--exec-root", str(root / "exec"), "--pidfile",
                    str(root / "pid"), "-H", f"unix://{theirs}", "--storage-driver", "overlay2", "--log-level", "error",
                    log=root / "docker.log"),
        ):  # fmt: skip
            for place in (PORT, ours, theirs):
                wait_for(place)
            push(image, root)
            yield root, ours, theirs
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, required=True, help="a docker-archive (.tar or .tar.gz)")
    parser.add_argument("--client", default="/usr/bin/docker")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with both_engines(arguments.image) as (_, ours, theirs):
        mine = measure(arguments.client, ours, arguments.rounds)
        peer = measure(arguments.client, theirs, arguments.rounds)
    print(f"{'':20} {'Seawall':>9} {'Docker':>9} {'ratio':>6}")
    for name, value in mine.items():
        print(f"{name:20} {value:7.1f}ms {peer[name]:7.1f}ms {peer[name] / value:5.1f}x")


if __name__ == "__main__":
    main()
