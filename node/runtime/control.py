"""A monitor's control socket: who may speak to it, and requests and answers as frames (`wire`)."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

from node.runtime.poller import READ, WRITE, Poller
from node.runtime.wire import frame, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SOCKET = "monitor.sock"
MAX_UNSENT = 4 * 1024 * 1024
"""A client that asks without reading the answers is dropped at this many bytes."""


class Connection:
    """One client. `handle` carries out a request and says False when the connection has become a stream."""

    def __init__(self, control: Control, channel: socket.socket) -> None:
        self._control = control
        self.channel = channel
        self.incoming = bytearray()
        self.outgoing = bytearray()
        channel.setblocking(False)
        self._watch()

    def send(self, message: dict[str, object]) -> None:
        self.outgoing += frame(message)
        self._write()

    def release(self) -> socket.socket:
        """Hand the socket to somebody else; what was received or is unsent stays in `incoming` and `outgoing`."""
        self._control.poller.forget(self.channel.fileno())
        self._control.connections.remove(self)
        return self.channel

    def _watch(self) -> None:
        mask = READ | (WRITE if self.outgoing else 0)
        self._control.poller.watch(self.channel.fileno(), mask, self._on_event)

    def _on_event(self, _fd: int, events: int) -> None:
        if events & WRITE:
            self._write()
        elif self._is_open:
            self._read()

    @property
    def _is_open(self) -> bool:
        return self in self._control.connections

    def _read(self) -> None:
        try:
            data = self.channel.recv(64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._control.drop(self)
            return
        self.incoming += data
        try:
            while self._is_open and (message := take(self.incoming)) is not None:
                if not self._control.handle(self, message):
                    return
        except ValueError:
            self._control.drop(self)

    def _write(self) -> None:
        try:
            while self.outgoing:
                sent = self.channel.send(memoryview(self.outgoing)[:64 * 1024])
                del self.outgoing[:sent]
        except BlockingIOError:
            if len(self.outgoing) > MAX_UNSENT:
                self._control.drop(self)
                return
        except OSError:
            self._control.drop(self)
            return
        if self._is_open:
            self._watch()


class Control:
    """The listening socket and its clients; `lost` is told of each that goes."""

    def __init__(self, poller: Poller, handle: Callable[[Connection, dict[str, object]], bool],
                 lost: Callable[[Connection], None]) -> None:
        self.poller = poller
        self.handle = handle
        self._lost = lost
        self._listener: socket.socket | None = None
        self.connections: list[Connection] = []

    def adopt(self, channel: socket.socket) -> Connection:
        connection = Connection(self, channel)
        self.connections.append(connection)
        return connection

    def drop(self, connection: Connection) -> None:
        if connection in self.connections:
            connection.release().close()
            self._lost(connection)

    def listen(self, folder: int) -> None:
        """On SOCKET in the folder, which replaces an earlier one. Raises OSError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=folder)
        mask = os.umask(0o177)
        try:
            # sun_path holds 107 bytes and a state folder may be deeper: go through the descriptor.
            listener.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.umask(mask)
        listener.listen(64)
        listener.setblocking(False)
        self._listener = listener
        self.poller.watch(listener.fileno(), READ, self._on_client)

    def _on_client(self, _fd: int, _events: int) -> None:
        assert self._listener is not None
        try:
            channel, _ = self._listener.accept()
        except OSError:
            return
        _pid, uid, _gid = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid == os.getuid():
            self.adopt(channel)
        else:
            channel.close()
