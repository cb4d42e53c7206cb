"""The daemon's side of the launcher (node.runtime.launcher): starting it, and asking it for monitors."""

import array
import asyncio
import contextlib
import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from node.containers.monitor import Monitor, MonitorGone, StartFailed, pack, receive
from node.errors import InternalError
from node.snapshots.mounts import RootMount

# No site-packages and no environment: what is on sys.path is this project's folder and the standard library.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from node.runtime.launcher import main; main(*sys.argv[2:])"


_NAMESPACES = struct.Struct("=cII")
"""A request for namespaces (node.runtime.namespaces): first id and how many."""


class LauncherFailed(InternalError):
    """The launcher could not be started or died while it made a container."""


@dataclass(frozen=True, slots=True)
class LogTarget:
    """The files that a container's output goes to."""

    path: Path
    format: str = "json"
    """json (Docker's json-file) or local (node.runtime.locallog)."""

    max_size: int = 0
    """Bytes of one file; 0: no bound."""

    max_files: int = 1
    compress: bool = False
    """Files put aside by rotation are compressed."""

    attrs: str = ""
    """A JSON object that every line of format json carries; empty: none."""

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "format": self.format, "max_size": self.max_size,
                "max_files": self.max_files, "compress": self.compress, "attrs": self.attrs}


@dataclass(frozen=True, slots=True)
class FileAbout:
    size: int
    uid: int
    gid: int
    mode: int


def _mount(root: RootMount) -> dict[str, Any]:
    return {"type": root.type, "source": root.source, "options": list(root.options), "cwd": root.cwd}


@dataclass(frozen=True, slots=True)
class Program:
    """Another OCI runtime's (node.runtime.foreign)."""

    path: str
    arguments: tuple[str, ...] = ()
    """Before every command."""

    hidden: tuple[str, ...] = ()
    """Mount points of the host that it does not see: it would refuse to work where it finds them."""

    def to_json(self) -> dict[str, Any]:
        return {"program": self.path, "arguments": list(self.arguments), "hidden": list(self.hidden)}


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One container to be made. `bundle` holds config.json; `rootfs` is mounted on <bundle>/rootfs by the monitor in
    its own mount namespace; `state_dir` gets monitor.sock and exit.json; `log` None means no log; `fds` go to
    the monitor, which keeps them open for as long as the container lives (sockets that hold published ports)."""

    container_id: str
    bundle: Path
    rootfs: tuple[RootMount, ...]
    state_dir: Path
    log: LogTarget | None
    open_stdin: bool
    stdin_once: bool
    fds: tuple[int, ...] = ()
    images: tuple[tuple[RootMount, Path], ...] = ()
    """Mounted beside the root file system, each on its path."""

    files: tuple[FileAbout, ...] = ()
    """Written to `<state_dir>/files/<number>` on a tmpfs of the monitor's; their contents, one behind the other, are
    the last of `fds`."""

    runtime: Program | None = None
    """Makes the processes; None: ours."""

    def to_json(self) -> dict[str, Any]:
        return {
            "container_id": self.container_id, "bundle": str(self.bundle), "state_dir": str(self.state_dir),
            "rootfs": [_mount(root) for root in self.rootfs],
            "images": [_mount(root) | {"target": str(target)} for root, target in self.images],
            "files": [{"size": f.size, "uid": f.uid, "gid": f.gid, "mode": f.mode} for f in self.files],
            "log": self.log.to_json() if self.log else None, "open_stdin": self.open_stdin,
            "stdin_once": self.stdin_once,
            "runtime": self.runtime.to_json() if self.runtime else None,
        }


class Launcher:
    """An async context manager. The launcher process is started at once, so that the first container is as quick as
    the next, and again if it died; containers do not die with it."""

    def __init__(self, cgroup_driver: str = "cgroupfs") -> None:
        self._cgroup_driver = cgroup_driver
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        async with self._lock:
            await self._ensure()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._stop)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def create(self, request: LaunchRequest) -> Monitor:
        """The monitor of a container that is ready to `start`. Raises StartFailed, LauncherFailed, MonitorGone."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            try:
                async with self._lock:
                    await self._send(pack(request.to_json())[4:], (theirs.fileno(), *request.fds))
            finally:
                theirs.close()
            try:
                answer = await receive(ours)
            except MonitorGone as error:
                raise LauncherFailed(f"container {request.container_id[:12]}: the launcher died") from error
            if answer.get("error"):
                raise StartFailed(str(answer.get("kind", "other")), str(answer["error"]))
        except BaseException:
            ours.close()
            raise
        # The socket of the request is the first connection to the monitor: should we die here, it knows.
        return Monitor(request.state_dir, ours, answer)

    async def make_namespaces(self, first: int, size: int) -> tuple[int, int]:
        """Descriptors of a user namespace whose ids are `size` of the host's from `first` on, and of a network
        namespace that it owns. Raises LauncherFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            with theirs:
                async with self._lock:
                    await self._send(_NAMESPACES.pack(b"n", first, size), (theirs.fileno(),))
            await _readable(ours)
            answer, fds, _, _ = socket.recv_fds(ours, 4096, 2)
        if answer != b"ok" or len(fds) != 2:
            reason = answer.decode(errors="replace") or "the launcher died"
            raise LauncherFailed(f"a container's namespaces cannot be made: {reason}")
        for fd in fds:
            os.set_inheritable(fd, False)
        return fds[0], fds[1]

    async def _send(self, message: bytes, descriptors: Sequence[int]) -> None:
        """A SEQPACKET message is its own frame."""
        fds = array.array("i", descriptors)
        for again in (True, False):
            control = await self._ensure()
            try:
                await _send_all(control, message, fds)
            except OSError as error:
                if not again or error.errno not in (errno.EPIPE, errno.ECONNRESET):
                    raise LauncherFailed(f"the launcher does not answer: {error.strerror}") from error
                await asyncio.to_thread(self._stop)  # it died since the last container
            else:
                return

    async def _ensure(self) -> socket.socket:
        if self._process is not None and self._control is not None and self._process.poll() is None:
            return self._control
        await asyncio.to_thread(self._stop)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = await asyncio.to_thread(_spawn, theirs.fileno(), self._cgroup_driver)
        except OSError as error:
            ours.close()
            raise LauncherFailed(f"the launcher cannot be started: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control = ours
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None


def _spawn(control: int, cgroup_driver: str) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    # realpath: a virtual environment's python is a symlink whose site-packages are not wanted here.
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", _PROGRAM, root, str(control), cgroup_driver]
    # Its own session: a Ctrl-C for the daemon must not reach it or any monitor.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[control], cwd="/",
                            env={"LC_ALL": "C.UTF-8"}, start_new_session=True)


async def _send_all(control: socket.socket, message: bytes, fds: "array.array[int]") -> None:
    while True:
        try:
            control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except BlockingIOError:
            await _writable(control)
        else:
            return


async def _writable(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(channel, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(channel)


async def _readable(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(channel, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(channel)
