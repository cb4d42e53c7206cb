"""A node of its own, and images that are built to break out: whatever runs here runs as an attacker would have it."""

import ctypes
import io
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from node.client import Client, DaemonError
from node.linux.syscall_numbers import numbers
from node.settings import Settings
from tests.conftest import lacking
from tests.e2e.census import family
from tests.e2e.conftest import BIN, sweep_host
from tests.node.runtime.conftest import APPLETS, busybox

PROBE, TRACER = (Path(__file__).with_name(name) for name in ("probe.py", "tracer.py"))
STARTUP_SECONDS = 30
CAP_CHOWN_ALONE = struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)
"""security.capability: cap_chown, permitted and effective."""

Answer = dict[str, tuple[str, str]]


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    """`fields` are those of TarInfo; `xattrs` go into the entry's pax header."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o755
    for key, value in fields.items():
        if key == "xattrs":
            info.pax_headers = {f"SCHILY.xattr.{each}": held.decode("utf-8", "surrogateescape")
                                for each, held in value.items()}
        else:
            setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def folder(tar: tarfile.TarFile, name: str) -> None:
    add(tar, name, type=tarfile.DIRTYPE)


def link(tar: tarfile.TarFile, name: str, target: str) -> None:
    add(tar, name, type=tarfile.SYMTYPE, linkname=target)


def base(tar: tarfile.TarFile) -> None:
    for name in ("bin", "etc", "proc", "sys", "dev", "root", "home", "nodes", "suid", "usr"):
        folder(tar, name)
    add(tar, "tmp", type=tarfile.DIRTYPE, mode=0o1777)
    add(tar, "bin/busybox", busybox().read_bytes())
    for applet in (*APPLETS, "nc", "tar", "find", "cp", "xz", "gzip", "unxz"):
        link(tar, f"bin/{applet}", "busybox")
    add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n", mode=0o644)
    add(tar, "etc/group", b"root:x:0:\nuser:x:1000:\n", mode=0o644)


def prober() -> bytes:
    """An image whose process is the probe; it borrows the host's Python, read-only."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        base(tar)
        for name in ("lib", "lib64"):
            if Path("/", name).is_symlink():
                link(tar, name, str(Path("/", name).readlink()))
            else:
                folder(tar, name)
        for program in (PROBE, TRACER):
            add(tar, program.name, program.read_bytes())
        add(tar, "suid/id", Path("/usr/bin/id").read_bytes(), mode=0o4755)
        add(tar, "suid/cat", Path("/bin/cat").read_bytes(),
            xattrs={"security.capability": CAP_CHOWN_ALONE})
        for name, kind, major, minor in (("kmsg", tarfile.CHRTYPE, 1, 11), ("disk", tarfile.BLKTYPE, *(disk() or (7, 0)))):
            add(tar, f"nodes/{name}", type=kind, devmajor=major, devminor=minor, mode=0o666)
    return out.getvalue()


def disk() -> tuple[int, int] | None:
    """Numbers of a block device that the host's root can read; None where there is none."""
    for line in Path("/proc/partitions").read_text().splitlines()[2:]:
        major, minor, _, name = line.split()
        with suppress(OSError):
            os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
            return int(major), int(minor)
    return None


def borrowed() -> list[str]:
    """Binds by which the host's Python runs in a container."""
    program = Path(sys.base_prefix).resolve()
    places = {"/usr", *(f"/{name}" for name in ("lib", "lib64")
                        if Path("/", name).is_dir() and not Path("/", name).is_symlink())}
    if not program.is_relative_to("/usr"):
        places.add(str(program))
    return [f"{place}:{place}:ro" for place in sorted(places)]


@dataclass
class Node:
    """A daemon, spoken to by its API."""

    home: Path
    process: "subprocess.Popen[bytes] | None" = None
    abstract: str = ""
    made: list[str] = field(default_factory=list)

    @property
    def address(self) -> Path:
        return self.home / "node.sock"

    @property
    def client(self) -> Client:
        return Client(str(self.address))

    def start(self, *flags: str) -> None:
        with (self.home / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "seawalld"), "--home", str(self.home / "node"), "--socket", str(self.address), *flags],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(Exception):
                self.client.json("GET", "/version")
                return
            time.sleep(0.05)
        pytest.fail(f"the node does not answer:\n{(self.home / 'node.log').read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            for container in self.client.json("GET", "/containers/json", {"all": True}):
                with suppress(DaemonError):
                    self.client.status("DELETE", f"/containers/{container['Id']}", {"force": True, "v": True})
            self.process.terminate()
            self.process.wait(20)
        sweep_host(self.home / "node")

    def load(self, name: str, archive: bytes) -> list[Any]:
        """`docker import`; what was answered."""
        query = {"fromSrc": "-", "repo": name, "tag": "latest"}
        return list(self.client.upload("POST", "/images/create", query, lambda write: write(archive)))

    def create(self, image: str, *command: str, host: Mapping[str, Any] | None = None, **config: Any) -> str:
        body = {"Image": image, "Cmd": list(command), "HostConfig": dict(host or {}), **config}
        made: str = self.client.json("POST", "/containers/create", body=body)["Id"]
        return made

    def begin(self, image: str, *command: str, host: Mapping[str, Any] | None = None, **config: Any) -> str:
        """Created and started."""
        made = self.create(image, *command, host=host, **config)
        try:
            self.client.json("POST", f"/containers/{made}/start")
        except DaemonError:
            self.remove(made)
            raise
        return made

    def run(self, image: str, *command: str, host: Mapping[str, Any] | None = None, **config: Any) -> tuple[int, str]:
        """Its exit code, and what it wrote."""
        made = self.begin(image, *command, host=host, **config)
        try:
            code = self.client.json("POST", f"/containers/{made}/wait")["StatusCode"]
            return code, self.logs(made)
        finally:
            self.remove(made)

    def logs(self, container: str) -> str:
        return self._text(f"/containers/{container}/logs", {"stdout": True, "stderr": True})

    def _text(self, path: str, query: Mapping[str, Any]) -> str:
        return unframed(b"".join(self.client.stream("GET", path, query)))

    def execute(self, container: str, *command: str, **config: Any) -> tuple[int, str]:
        body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, **config}
        made = self.client.json("POST", f"/containers/{container}/exec", body=body)["Id"]
        stream = self.client.hijack(f"/exec/{made}/start", body={"Detach": False, "Tty": False})
        try:
            data = stream.leftover
            while part := stream.socket.recv(65536):
                data += part
        finally:
            stream.close()
        return self.client.json("GET", f"/exec/{made}/json")["ExitCode"], unframed(data)

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.json("GET", f"/containers/{container}/json")
        return found

    def family(self) -> set[int]:
        """The daemon and all that works for it."""
        assert self.process is not None
        return set(family(Settings.make(self.home / "node"), self.process.pid))

    def remove(self, container: str) -> None:
        self.client.status("DELETE", f"/containers/{container}", {"force": True, "v": True})


def unframed(data: bytes) -> str:
    """Docker's frames of stdout and stderr, one text."""
    text, at = bytearray(), 0
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at + 4)
        text += data[at + 8:at + 8 + length]
        at += 8 + length
    return text.decode(errors="replace")


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    if os.geteuid() != 0:
        lacking("needs root on a Linux kernel")
    made = Node(tmp_path_factory.mktemp("escapes"))
    try:
        made.start()
        assert not any("error" in line for line in made.load("prober", prober()))
        yield made
    finally:
        made.stop()


@dataclass
class Prober:
    node: Node
    asked: dict[str, Any]

    def __call__(self, host: Mapping[str, Any], *only: str, pids: Sequence[int] = (), **config: Any) -> Answer:
        """What the probe found in a container of this host configuration."""
        binds = [*borrowed(), *host.get("Binds", ())]
        asked = {**self.asked, "only": list(only), "pids": list(pids), "apart": bool(host.get("Privileged"))}
        python = str(Path(sys.executable).resolve())
        code, said = self.node.run("prober", python, "-I", "-S", "/probe.py", json.dumps(asked),
                                   host={**host, "Binds": binds}, **config)
        assert code == 0, said
        found: Answer = {name: (verdict, detail) for name, (verdict, detail) in json.loads(said.splitlines()[-1]).items()}
        return found


def own_abstract_sockets(pids: set[int]) -> list[str]:
    """Names of sockets without a file that these processes have (proc(5), /proc/net/unix)."""
    held = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                held.add(str(entry.readlink()))
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sorted({words[7] for words in lines
                   if len(words) > 7 and words[7].startswith("@") and f"socket:[{words[6]}]" in held})


@contextmanager
def a_key_of_root(name: str) -> Iterator[None]:
    """In the keyring that all processes of the host's root share (user-keyring(7))."""
    libc, calls = ctypes.CDLL(None, use_errno=True), numbers(platform.machine())
    key = libc.syscall(calls["add_key"], b"user", name.encode(), b"secret", ctypes.c_size_t(6), ctypes.c_int(-4))
    assert key > 0, os.strerror(ctypes.get_errno())
    yield
    libc.syscall(calls["keyctl"], 9, key, ctypes.c_int(-4))


@pytest.fixture(scope="session")
def victim() -> Iterator[int]:
    """A process of the host's root that has nothing to do with any container."""
    process = subprocess.Popen(["sleep", "infinity"], stdin=subprocess.DEVNULL)
    yield process.pid
    assert process.poll() is None, "a container ended a process of the host"
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def probe(node: Node, victim: int) -> Iterator[Prober]:
    name = f"seawall-test-{os.getpid()}"
    with a_key_of_root(name), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen(64)
        yield Prober(node, {"calls": numbers(platform.machine()), "victim": victim, "disk": disk(), "abstract": name, "key": name,
                            "root": [os.stat("/").st_dev, os.stat("/").st_ino]})
