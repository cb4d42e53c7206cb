"""Pull of a generated four-layer image (227 MB, 11,400 files) by Seawall, Docker and podman, in one run, on tmpfs.

    sudo .venv/bin/python bench/node/pull.py [--rounds N] [--ours daemon|library]

All three pull from one docker-registry, round after round in turns, and remove the image in between. Docker runs with
its data on tmpfs and overlay2, podman with --root there and the overlay driver. `--ours daemon` (the default) drives
seawalld by the same docker command as Docker; `library` calls node.images in this process. The script re-executes
itself in a network and mount namespace of its own. Prints medians in seconds and ratios (peer / ours).
"""

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage.remote.client import RemoteRegistry

PORT = 5057
HOST = f"127.0.0.1:{PORT}"
NAME = f"{HOST}/bench/pull:latest"
BIN = Path(sys.executable).parent
LAYERS = ((90_000_000, 3_000), (60_000_000, 4_000), (47_000_000, 2_400), (30_000_000, 2_000))
"""(bytes, files) of each layer."""


def in_own_namespaces() -> None:
    if os.environ.get("SEAWALL_BENCH") != "inside":
        os.environ["SEAWALL_BENCH"] = "inside"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def layer(number: int, size: int, files: int) -> bytes:
    """Many small files and a few large ones, of bytes that gzip brings to about a third; the same in every run."""
    rng = random.Random(number)
    words = [rng.randbytes(rng.randint(6, 16)) for _ in range(2_500)]
    weights = [rng.lognormvariate(0, 1.6) for _ in range(files)]
    scale = size / sum(weights)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        folders: set[str] = set()
        for index, weight in enumerate(weights):
            folder = f"layer{number}/d{index // 200}/e{index % 200 // 20}"
            for path in (f"layer{number}", folder.rpartition("/")[0], folder):
                if path not in folders:
                    folders.add(path)
                    info = tarfile.TarInfo(path)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(info)
            length = int(weight * scale)
            text = b"".join(rng.choices(words, k=length // 9 + 1))
            info = tarfile.TarInfo(f"{folder}/file{index}")
            info.size, info.mode, info.mtime = min(length, len(text)), 0o644, 1_700_000_000
            archive.addfile(info, io.BytesIO(text))
    return out.getvalue()


async def push_image() -> tuple[int, int]:
    """Gives the bytes of the layers, packed and unpacked."""
    path = RepositoryName.parse("bench/pull")
    descriptors, diff_ids, packed, unpacked = [], [], 0, 0
    async with RemoteRegistry(HOST) as remote:
        async def put(data: bytes, media_type: str) -> Descriptor:
            async def read(start: int) -> AsyncIterator[bytes]:
                yield data[start:]
            descriptor = Descriptor(media_type, Digest.of(data), len(data))
            await remote.upload(path, descriptor, read)
            return descriptor

        for number, (size, files) in enumerate(LAYERS):
            tar = layer(number, size, files)
            data = gzip.compress(tar, 6, mtime=0)
            diff_ids.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
            descriptors.append(await put(data, mediatype.DOCKER_LAYER_GZIP))
            packed, unpacked = packed + len(data), unpacked + len(tar)
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                             "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
        document = {"schemaVersion": 2, "mediaType": mediatype.DOCKER_MANIFEST,
                    "config": (await put(config, mediatype.DOCKER_CONFIG)).to_json(),
                    "layers": [descriptor.to_json() for descriptor in descriptors]}
        await remote.put_manifest(path, Tag("latest"), manifests.parse(json.dumps(document).encode()))
    return packed, unpacked


@contextlib.contextmanager
def process(*command: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as running:
        try:
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()


def wait_for(place: Path | int) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if isinstance(place, int):
                socket.create_connection(("127.0.0.1", place), 1).close()
                return
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(place))
                return
        time.sleep(0.05)
    sys.exit(f"{place} does not answer")


def timed(pull: Callable[[], object], remove: Callable[[], object]) -> float:
    begin = time.perf_counter()
    pull()
    span = time.perf_counter() - begin
    remove()
    return span


def quietly(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def by_docker(client: str, sock: Path) -> Callable[[], float]:
    docker = (client, "-H", f"unix://{sock}")
    return lambda: timed(lambda: quietly(*docker, "pull", "-q", NAME), lambda: quietly(*docker, "rmi", NAME))


def by_podman(root: Path) -> Callable[[], float]:
    podman = ("podman", "--root", str(root / "podman"), "--runroot", str(root / "podman-run"), "--storage-driver",
              "overlay", "--storage-opt", "overlay.mountopt=nodev")
    return lambda: timed(lambda: quietly(*podman, "pull", "-q", "--tls-verify=false", NAME),
                         lambda: quietly(*podman, "rmi", NAME))


@contextlib.contextmanager
def by_library(root: Path) -> Iterator[Callable[[], float]]:
    from node.images.opening import open_images
    from node.images.store import Images, ImageSettings
    from node.snapshots.choose import open_snapshotter
    from node.state.database import open_state
    from ocispec.reference import Reference
    from storage.blobs.disk import DiskBlobs
    from storage.gc.leases import Leases
    from storage.gc.sweep import Collector
    from storage.metadata.engine import open_database
    from storage.repository.store import ContentStore

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Images]:
        blobs = DiskBlobs(root / "content")
        await blobs.prepare()
        url = f"sqlite+aiosqlite:///{root}/content.db"
        async with open_database(url) as db, open_state(root / "state.db") as state:
            snapshots = await open_snapshotter(root / "snapshots", "overlay")
            async with open_images(ContentStore(db, blobs), blobs, Leases(db), Collector(db, blobs), snapshots, state,
                                   ImageSettings(workers=os.cpu_count() or 1)) as images:
                yield images

    with asyncio.Runner() as runner:
        scope = opened()
        images = runner.run(scope.__aenter__())
        yield lambda: timed(lambda: runner.run(images.pull(Reference.parse(NAME))),
                            lambda: runner.run(images.remove(NAME)))
        runner.run(scope.__aexit__(None, None, None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", default="/usr/bin/docker")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ours", choices=("daemon", "library"), default="daemon")
    parser.add_argument("--only-ours", action="store_true", help="no peers (for profiling)")
    parser.add_argument("--shared", action="store_true", help="our node shares its layers with others of the machine")
    arguments = parser.parse_args()
    in_own_namespaces()
    root = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="seawall-bench-"))
    settings = root / "registry.yml"
    settings.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {root}/registry\n"
                        f"http:\n  addr: {HOST}\nlog:\n  level: error\n")
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(process("docker-registry", "serve", str(settings), log=root / "registry.log"))
            wait_for(PORT)
            packed, unpacked = asyncio.run(push_image())
            print(f"{len(LAYERS)} layers, {sum(files for _, files in LAYERS)} files, {unpacked / 1e6:.0f} MB, "
                  f"{packed / 1e6:.0f} MB compressed")
            pulls: dict[str, Callable[[], float]] = {}
            if arguments.ours == "library":
                pulls["Seawall"] = stack.enter_context(by_library(root))
            else:
                ours = root / "node.sock"
                stack.enter_context(process(str(BIN / "seawalld"), "--home", str(root / "node"), "--socket", str(ours),
                                            *(("--shared-layers", str(root / "shared")) if arguments.shared else ()),
                                            log=root / "node.log"))
                wait_for(ours)
                pulls["Seawall"] = by_docker(arguments.client, ours)
            if not arguments.only_ours:
                theirs = root / "docker.sock"
                stack.enter_context(process(
                    "dockerd", "--data-root", str(root / "data"), "--exec-root", str(root / "exec"), "--pidfile",
                    str(root / "pid"), "-H", f"unix://{theirs}", "--storage-driver", "overlay2", "--log-level", "error",
                    log=root / "docker.log"))
                wait_for(theirs)
                pulls["Docker"] = by_docker(arguments.client, theirs)
                pulls["podman"] = by_podman(root)
            spans: dict[str, list[float]] = {name: [] for name in pulls}
            if arguments.shared:
                pulls["Seawall"]()  # the first node of the machine pulls as ever
            for _ in range(arguments.rounds):
                for name, pull in pulls.items():
                    spans[name].append(pull())
        ours_median = statistics.median(spans["Seawall"])
        for name, values in spans.items():
            median = statistics.median(values)
            print(f"{name:8} {median:6.2f} s   {median / ours_median:4.1f}x   best {min(values):.2f}  "
                  f"worst {max(values):.2f}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
