"""The process that keeps a node's namespaces and speaks for it in the host's network.

Requests come on a SOCK_SEQPACKET socket, one JSON message each; only its own user is heard, and root:

    {"op": "namespaces"}  → {"uplink", "single", "isolated"} and a descriptor for each of `namespaces.KINDS`
    {"op": "bind", "family", "kind", "proto", "address", "port"} → {} and a socket, or {"errno"}
    {"op": "socket", "family", "kind", "proto"} → the same, for somebody who connects it
    {"op": "stay"}        → {}: who asks is the daemon; while its connection is open this process has somebody to serve

A request that has a `number` gets it back, so that an answer that comes too late is known for what it is.
Without a daemon it goes on as long as anybody is in the user namespace, and looks every few seconds whether one is.
"""

import array
import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from node.linux import syscalls
from node.rootless import namespaces, uplink
from node.rootless.uplink import NoUplink, Uplink

LOOK = 2.0
"""Seconds between looks at who is left, when no daemon is there."""

CALM = 1.0
"""Seconds before a way out that ended is made again."""

MAX_MESSAGE = 4096
BACKLOG = 128
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1,
            signal.SIGUSR2, signal.SIGTSTP)


def main(descriptor: str, folder: str, wanted: str) -> None:
    listener = socket.socket(fileno=int(descriptor))
    os.set_inheritable(listener.fileno(), False)
    syscalls.set_name("seawall-holder")
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    try:
        holder = Holder(listener, Path(folder), wanted)
    except (namespaces.Forbidden, OSError) as error:
        _refuse(listener, f"a rootless node cannot be made: {error}")
        sys.exit(1)
    holder.serve()


def _refuse(listener: socket.socket, why: str) -> None:
    """Tell who started this process, which is the first to connect."""
    listener.settimeout(10)
    with contextlib.suppress(OSError):
        channel, _ = listener.accept()
        channel.recv(MAX_MESSAGE)
        channel.send(json.dumps({"error": why}).encode())


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Holder:
    """Raises namespaces.Forbidden, OSError when it is made."""

    def __init__(self, listener: socket.socket, folder: Path, wanted: str) -> None:
        self._listener = listener
        self._isolated = ""
        chosen: Uplink | None = None
        try:
            chosen = uplink.choose(wanted)
        except NoUplink as error:
            self._isolated = str(error)
        resolv, self._single = uplink.resolv_conf(chosen), ""
        found = namespaces.left_behind(folder)
        if found is None:
            self._held, self._single = namespaces.make(resolv)
        else:
            self._held = namespaces.again(found, resolv)
        namespaces.note(folder, self._held)
        self._uplink = chosen
        self._carrier: subprocess.Popen[bytes] | None = None
        self._carrier_due = time.monotonic()
        self._daemons: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Until nobody is left."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        waking, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._selector.register(waking, selectors.EVENT_READ)
        number = os.fstat(self._held["user"]).st_ino
        look = time.monotonic() + 5 * LOOK  # who started us is about to come in
        while True:
            self._see_to_carrier()
            if self._daemons:
                look = time.monotonic() + LOOK
            elif time.monotonic() >= look:
                if not self._inhabited(number):
                    break
                look = time.monotonic() + LOOK
            for key, _ in self._selector.select(self._patience(look)):
                if key.fileobj is self._listener:
                    self._on_connection()
                elif key.fd == waking:
                    with contextlib.suppress(BlockingIOError):
                        os.read(waking, 4096)
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._on_message(key.fileobj)
        if self._carrier is not None:
            self._carrier.kill()
            self._carrier.wait()

    def _patience(self, look: float) -> float | None:
        due = [] if self._daemons else [look]
        if self._uplink is not None and self._carrier is None:
            due.append(self._carrier_due)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _inhabited(self, number: int) -> bool:
        carrier = self._carrier.pid if self._carrier is not None else 0
        return any(pid not in (carrier, os.getpid()) for pid in namespaces.inhabitants(number))

    # -- the way out

    def _see_to_carrier(self) -> None:
        if self._uplink is None:
            return
        if self._carrier is not None and self._carrier.poll() is not None:
            _complain(f"{self._uplink.name} ended with {self._carrier.returncode}; it is started again")
            self._carrier, self._carrier_due = None, time.monotonic() + CALM
        if self._carrier is None and time.monotonic() >= self._carrier_due:
            try:
                self._carrier = uplink.start(self._uplink, self._held, sys.stderr.fileno())
            except OSError as error:
                _complain(f"{self._uplink.program}: {error}")
                self._carrier_due = time.monotonic() + CALM

    # -- who asks

    def _on_connection(self) -> None:
        with contextlib.suppress(OSError):
            channel, _ = self._listener.accept()
            _pid, uid, _gid = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (os.getuid(), 0):
                channel.close()
                return
            channel.setblocking(False)
            self._selector.register(channel, selectors.EVENT_READ)

    def _on_message(self, channel: socket.socket) -> None:
        try:
            data = channel.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(channel)
            self._daemons.discard(channel)
            channel.close()
            return
        try:
            request = json.loads(data)
            answer, fds = self._answer(request, channel)
            if "number" in request:
                answer["number"] = request["number"]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            answer, fds = {"error": f"{type(error).__name__}: {error}"}, []
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with contextlib.suppress(OSError):
            channel.sendmsg([json.dumps(answer).encode()], rights)
        if answer.get("made"):
            os.close(fds[0])

    def _answer(self, request: dict[str, Any], channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
        operation = request["op"]
        if operation == "namespaces":
            about = {"uplink": self._uplink.name if self._uplink else "", "single": self._single,
                     "isolated": self._isolated}
            return about, [self._held[kind] for kind in namespaces.KINDS]
        if operation == "stay":
            self._daemons.add(channel)
            return {}, []
        if operation == "bind":
            return self._bind(request)
        if operation == "socket":
            return self._socket(request)
        raise ValueError(f"unknown operation {operation!r}")

    def _socket(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        kind = int(request["kind"])
        if kind not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            return {"errno": errno.ESOCKTNOSUPPORT}, []
        try:
            made = socket.socket(int(request["family"]), kind | socket.SOCK_CLOEXEC, int(request["proto"]))
        except OSError as error:
            return {"errno": error.errno}, []
        return {"made": True}, [made.detach()]

    def _bind(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """A socket of the host's network, listening where its kind can. The caller's to hold."""
        kind = int(request["kind"])
        if kind not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            return {"errno": errno.ESOCKTNOSUPPORT}, []
        try:
            made = socket.socket(int(request["family"]), kind | socket.SOCK_CLOEXEC, int(request["proto"]))
        except OSError as error:
            return {"errno": error.errno}, []
        try:
            if made.family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((str(request["address"]), int(request["port"])))
            if kind == socket.SOCK_STREAM:
                made.listen(BACKLOG)
        except OSError as error:
            made.close()
            return {"errno": error.errno}, []
        return {"made": True}, [made.detach()]
