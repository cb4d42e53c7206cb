"""Images that stand in for famous ones, made of what this machine has: other people's suites ask for them by name.

An image is an OCI layout with one layer: busybox with all its names, and whatever a program needs to run (its shared
libraries as ldd lists them).
"""

import hashlib
import io
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1:bin:/bin:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    "postgres:x:70:70::/var/lib/postgresql:/bin/sh\n",
    "etc/group": "root:x:0:\nbin:x:1:\npostgres:x:70:\nnogroup:x:65534:\n",
    "etc/os-release": 'NAME="Handmade"\nID=handmade\n',
}
LEFT_OUT = re.compile(r"/(test|tests|idlelib|ensurepip|lib2to3|tkinter|turtledemo|site-packages|__pycache__|config-[^/]*)(/|$)|\.a$")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Layer:
    """A layer that is being written; paths are relative to the root."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._held: set[str] = set()
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755),
                             ("usr", 0o755), ("usr/bin", 0o755), ("home", 0o755), ("srv", 0o755)):  # fmt: skip
            self.folder(folder, mode)
        self.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
        for name in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
            if name != "busybox":
                self.link(f"bin/{name}", "busybox")
        for path, text in FILES.items():
            self.file(path, text.encode())

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._add(path, tarfile.DIRTYPE, mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._add(path, tarfile.REGTYPE, mode, data=data)

    def link(self, path: str, target: str) -> None:
        self._add(path, tarfile.SYMTYPE, 0o777, target=target)

    def program(self, source: Path, path: str) -> None:
        """With the shared libraries it needs, where it looks for them."""
        self.file(path, source.read_bytes(), 0o755)
        for library in libraries(source):
            self.file(str(library).lstrip("/"), library.read_bytes(), 0o755)

    def tree(self, source: Path, path: str) -> None:
        for item in sorted(source.rglob("*")):
            inside = "/" + str(item.relative_to(source))
            if LEFT_OUT.search(inside) or not item.is_file():
                continue
            self.file(path + inside, item.read_bytes(), 0o755 if item.suffix == ".so" else 0o644)
            if item.suffix == ".so":
                for library in libraries(item):
                    self.file(str(library).lstrip("/"), library.read_bytes(), 0o755)

    def _add(self, path: str, kind: bytes, mode: int, *, data: bytes = b"", target: str = "") -> None:
        if path in self._held:
            return
        self._held.add(path)
        parent = path.rpartition("/")[0]
        if parent and parent not in self._held:
            self.folder(parent)
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.linkname, entry.size = kind, mode, target, len(data)
        self._archive.addfile(entry, io.BytesIO(data) if data else None)


def libraries(program: Path) -> Iterable[Path]:
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", listed)]


@contextmanager
def layer(folder: Path) -> Iterator[Layer]:
    """Written as folder/layer.tar."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "layer.tar", "w") as archive:
        yield Layer(archive)


def finish(folder: Path, config: Mapping[str, Any]) -> None:
    """An OCI layout in the folder, of its layer.tar; the image's only tag is `it`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    tar = (folder / "layer.tar").read_bytes()
    (folder / "layer.tar").unlink()
    held = blob(tar, "application/vnd.oci.image.layer.v1.tar")
    image = {
        "architecture": "amd64", "os": "linux", "created": "2026-11-24T00:00:00Z", "config": {"Env": [PATH], **config},
        "rootfs": {"type": "layers", "diff_ids": [held["digest"]]}, "history": [{"created_by": "made by hand"}],
    }  # fmt: skip
    manifest = blob(json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [held],
        "config": blob(json.dumps(image).encode(), "application/vnd.oci.image.config.v1+json"),
    }).encode(), "application/vnd.oci.image.manifest.v1+json")  # fmt: skip
    named = {**manifest, "annotations": {"org.opencontainers.image.ref.name": "it"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def push(folder: Path, registry: str, names: Iterable[str]) -> None:
    for name in names:
        subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{folder}:it",
                        f"docker://{registry}/{name}"], check=True, capture_output=True, timeout=120)


def python(folder: Path) -> None:
    """This machine's Python, with its standard library."""
    with layer(folder) as made:
        prefix = Path(sys.base_prefix)
        interpreter = prefix / "bin" / f"python3.{sys.version_info.minor}"
        at = str(interpreter.resolve()).lstrip("/")
        made.program(interpreter.resolve(), at)
        for name in ("python", "python3"):
            made.link(f"usr/bin/{name}", f"/{at}")
        library = Path(sysconfig.get_path("stdlib"))
        made.tree(library, str(library.resolve()).lstrip("/"))
    finish(folder, {"Cmd": ["python3"], "Env": [PATH, "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"]})


def registry(folder: Path) -> None:
    """Debian's CNCF distribution where the official image has it."""
    with layer(folder) as made:
        made.program(Path("/usr/bin/docker-registry"), "bin/registry")
        made.file("etc/docker/registry/config.yml", b"""version: 0.1
storage: {cache: {blobdescriptor: inmemory}, filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000", headers: {X-Content-Type-Options: [nosniff]}}
""")
    finish(folder, {"Entrypoint": ["/bin/registry"], "Cmd": ["serve", "/etc/docker/registry/config.yml"],
                    "ExposedPorts": {"5000/tcp": {}}, "Volumes": {"/var/lib/registry": {}}})  # fmt: skip


def hello(folder: Path) -> None:
    with layer(folder) as made:
        made.file("hello", b"#!/bin/sh\necho; echo 'Hello from Docker!'\n", 0o755)
    finish(folder, {"Cmd": ["/hello"]})


def service(folder: Path, ports: Iterable[int]) -> None:
    """A server of any kind: says its name over HTTP at the ports, whatever command it is given."""
    served = list(ports)
    script = ["#!/bin/sh", "hostname >/tmp/index.html", "trap 'exit 0' TERM INT"]
    script += [f"httpd -p {port} -h /tmp" for port in served]
    script += ['echo "ready for connections"', "while :; do sleep 3600 & wait $!; done"]
    with layer(folder) as made:
        made.file("bin/serve", "\n".join(script).encode() + b"\n", 0o755)
        for name in ("mysqladmin", "pg_isready"):  # what health checks of the real ones call
            made.file(f"bin/{name}", b"#!/bin/sh\nexit 0\n", 0o755)
    finish(folder, {"Entrypoint": ["/bin/serve"], "ExposedPorts": {f"{port}/tcp": {} for port in served}})
