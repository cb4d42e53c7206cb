"""Asking the holder: by who starts the node, and by the daemon inside."""

import array
import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

from node.linux import companions
from node.rootless import namespaces

SOCKET = "holder.sock"
COMPLAINTS = "holder.err"
PATIENCE = 30.0
QUICK = 5.0
MAX_MESSAGE = 4096

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from node.rootless.holder import main; main(*sys.argv[2:])"


class HolderGone(Exception):
    """The process that keeps the node's namespaces cannot be started or does not answer; the message says why."""


def ask(channel: socket.socket, request: dict[str, Any], fds: int = 0) -> tuple[dict[str, Any], list[int]]:
    """The answer and its descriptors, which are the caller's. Raises HolderGone."""
    try:
        channel.send(json.dumps(request).encode())
    except OSError as error:
        raise HolderGone(f"the holder of the node's namespaces does not answer: {error}") from error
    return _hear(channel, fds)


def _hear(channel: socket.socket, fds: int) -> tuple[dict[str, Any], list[int]]:
    try:
        data, ancillary, _flags, _address = channel.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(4 * max(fds, 1)),
                                                            socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise HolderGone(f"the holder of the node's namespaces does not answer: {error}") from error
    got = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            got.frombytes(payload[:len(payload) - len(payload) % got.itemsize])
    if not data:
        raise HolderGone("the holder of the node's namespaces ended")
    answer = json.loads(data)
    if answer.get("error"):
        raise HolderGone(str(answer["error"]))
    return answer, list(got)


def find(folder: Path) -> socket.socket | None:
    """None where nobody listens."""
    return companions.connect(folder, SOCKET, PATIENCE)


def find_or_start(folder: Path, wanted: str) -> socket.socket:
    """`wanted`: the way out (node.settings.UPLINKS), heeded by one that is started. Raises HolderGone."""
    try:
        found = companions.connect_or_start(
            folder, SOCKET, COMPLAINTS, lambda listener, told: _spawn(listener, told, folder, wanted), PATIENCE)
    except OSError as error:
        raise HolderGone(f"the holder of the node's namespaces cannot be started: {error}") from error
    if found is None:
        raise HolderGone("the holder of the node's namespaces ended at once")
    return found


def _spawn(listener: int, complaints: int, folder: Path, wanted: str) -> None:
    root = str(Path(__file__).resolve().parents[2])
    # Started by a process that ends at once, so that it is init's child and nobody has to wait for it.
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", _PROGRAM, root, str(listener), str(folder), wanted]
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH") or "/usr/local/bin:/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-c", '"$@" &', "sh", *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=complaints, pass_fds=[listener], cwd="/", env=environment, start_new_session=True, check=True)


class HostSockets:
    """Sockets of the host's network for a daemon that is in another. Blocks for as long as the holder takes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._number = 0
        self._turn = Lock()
        channel.settimeout(QUICK)

    def bind(self, family: int, kind: int, proto: int, address: str, port: int) -> socket.socket:
        """Bound, and listening where its kind can. Raises OSError in the kernel's words."""
        return self._made({"op": "bind", "family": family, "kind": kind, "proto": proto, "address": address,
                           "port": port})

    def new(self, family: int, kind: int, proto: int) -> socket.socket:
        """For connecting. Raises OSError."""
        return self._made({"op": "socket", "family": family, "kind": kind, "proto": proto})

    def _made(self, request: dict[str, Any]) -> socket.socket:
        with self._turn:
            self._number += 1
            try:
                answer, fds = ask(self._channel, {**request, "number": self._number}, 1)
                while answer.get("number") != self._number:
                    # The answer to one that we had given up: whoever took it for ours had another's port.
                    for fd in fds:
                        os.close(fd)
                    answer, fds = _hear(self._channel, 1)
            except HolderGone as error:
                raise OSError(errno.ENOTCONN, str(error)) from error
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return socket.socket(fileno=fds[0])


def namespaces_of(channel: socket.socket) -> tuple[dict[str, Any], dict[str, int]]:
    """What there is to know, and the descriptors. Raises HolderGone."""
    channel.settimeout(PATIENCE)
    about, fds = ask(channel, {"op": "namespaces"}, len(namespaces.KINDS))
    return about, dict(zip(namespaces.KINDS, fds, strict=True))


