"""Moving bytes between a process's standard streams, its log and the clients attached to it.

All descriptors are non-blocking and in one selector. A client that does not read stops the process's output once
MAX_PENDING bytes wait for it, as a terminal would: nothing is dropped and memory is bounded.
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import socket
import struct
import termios
from collections.abc import Callable

from node.runtime.logs import JsonLog
from node.runtime.wire import STDERR, STDOUT, stream_frame

CHUNK = 64 * 1024
MAX_PENDING = 1024 * 1024
MAX_STDIN = 256 * 1024


class Client:
    """One attached socket. `wants` are the streams it gets; `feeds` says whether what it sends is stdin."""

    def __init__(self, channel: socket.socket, wants: frozenset[int], *, feeds: bool) -> None:
        self.channel = channel
        self.wants = wants
        self.feeds = feeds
        self.pending = bytearray()
        self.reading = True
        self.ending = False
        self.mask = 0


class Streams:
    """The standard streams of one process.

    `outputs` maps a readable descriptor to its stream; for a terminal there is one, the master, which is also
    `stdin`. `on_quiet` is called once, when every output has ended.
    """

    def __init__(self, selector: selectors.BaseSelector, log: JsonLog | None, *, tty: bool, stdin_once: bool) -> None:
        self._selector = selector
        self._log = log
        self.tty = tty
        self._stdin_once = stdin_once
        self._outputs: dict[int, int] = {}
        self._stdin = -1
        self._queue = bytearray()
        self._close_stdin = False
        self._stdin_mask = 0
        self._clients: list[Client] = []
        self._paused = False

    def connect(self, stdin: int, outputs: dict[int, int]) -> None:
        """Take over the descriptors (-1: no stdin)."""
        self._stdin = stdin
        self._outputs = outputs
        for fd in {stdin, *outputs} - {-1}:
            os.set_blocking(fd, False)
        for fd in outputs:
            self._selector.register(fd, selectors.EVENT_READ, self._on_output if not self.tty else self._on_master)

    @property
    def busy(self) -> bool:
        """Whether a client still has bytes to get."""
        return bool(self._clients)

    def attach(self, client: Client) -> None:
        client.channel.setblocking(False)
        self._clients.append(client)
        self._arm(client)

    def resize(self, rows: int, columns: int) -> None:
        """Raises OSError (ENOTTY) without a terminal."""
        if not self.tty:
            raise OSError(errno.ENOTTY, "the process has no terminal")
        fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def finish(self) -> None:
        """The process is gone: read what its pipes still hold, close them, and let the clients go when they have all
        of it."""
        for fd in list(self._outputs):
            while fd in self._outputs and self._read(fd):
                pass
            self._drop_output(fd)
        self._drop_stdin()
        if self._log is not None:
            self._log.close()
            self._log = None
        for client in list(self._clients):
            client.ending = True
            self._flush(client)

    def abandon(self) -> None:
        """Close all that is left, whatever it holds."""
        for client in list(self._clients):
            self._drop(client)

    # -- output

    def _on_output(self, fd: int, _mask: int) -> None:
        self._read(fd)

    def _on_master(self, fd: int, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._feed()
        if mask & selectors.EVENT_READ:
            self._read(fd)

    def _read(self, fd: int) -> bool:
        """One chunk; False when there is none now. The end of a stream removes it."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: the last slave of a terminal is closed
        if not data:
            self._drop_output(fd)
            return False
        stream = self._outputs[fd]
        if self._log is not None:
            self._log.write("stderr" if stream == STDERR else "stdout", data)
        framed = data if self.tty else stream_frame(stream, data)
        for client in list(self._clients):
            if stream in client.wants:
                client.pending += framed
                self._flush(client)
        return True

    def _drop_output(self, fd: int) -> None:
        if fd not in self._outputs:
            return
        del self._outputs[fd]
        self._unregister(fd)
        if fd != self._stdin:
            os.close(fd)

    def _pause(self, *, paused: bool) -> None:
        if paused == self._paused:
            return
        self._paused = paused
        for fd in self._outputs:
            if paused:
                self._unregister(fd)
            else:
                self._selector.register(fd, selectors.EVENT_READ, self._on_master if self.tty else self._on_output)
        if not paused and self.tty:
            self._arm_stdin()

    # -- clients

    def _arm(self, client: Client) -> None:
        reading = client.reading and (not client.feeds or len(self._queue) < MAX_STDIN)
        mask = (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if client.pending else 0)
        if mask == client.mask:
            return
        if client.mask:
            self._selector.unregister(client.channel)
        if mask:
            self._selector.register(client.channel, mask, self._on_client(client))
        client.mask = mask

    def _on_client(self, client: Client) -> Callable[[int, int], None]:
        def handle(_fd: int, mask: int) -> None:
            if mask & selectors.EVENT_WRITE:
                self._flush(client)
            if mask & selectors.EVENT_READ and client in self._clients:
                self._receive(client)

        return handle

    def _flush(self, client: Client) -> None:
        try:
            while client.pending:
                sent = client.channel.send(client.pending[:CHUNK * 4])
                del client.pending[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if client.ending and not client.pending:
            self._drop(client)
            return
        self._arm(client)
        self._pause(paused=any(len(other.pending) > MAX_PENDING for other in self._clients))

    def _receive(self, client: Client) -> None:
        try:
            data = client.channel.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if not data:
            # Half a close and a whole one look the same here; a whole one shows when we write to it.
            client.reading = False
            if client.feeds and self._stdin_once and not self.tty:
                self._close_stdin = True
                self._feed()
            if not client.wants:
                self._drop(client)
                return
        elif client.feeds and self._stdin >= 0:
            self._queue += data
            self._feed()
        self._arm(client)

    def _drop(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        if client.mask:
            self._selector.unregister(client.channel)
        client.channel.close()
        self._pause(paused=any(len(other.pending) > MAX_PENDING for other in self._clients))

    # -- stdin

    def _feed(self) -> None:
        try:
            while self._queue and self._stdin >= 0:
                written = os.write(self._stdin, self._queue[:CHUNK])
                del self._queue[:written]
        except BlockingIOError:
            pass
        except OSError:
            self._queue.clear()
            if not self.tty:
                self._drop_stdin()
        if self._close_stdin and not self._queue and not self.tty:
            self._drop_stdin()
        self._arm_stdin()
        for client in self._clients:
            if client.feeds:
                self._arm(client)

    def _arm_stdin(self) -> None:
        if self._stdin < 0 or (self.tty and self._paused):
            return
        wanted = selectors.EVENT_WRITE if self._queue else 0
        if self.tty:
            if self._stdin in self._outputs:
                self._selector.modify(self._stdin, selectors.EVENT_READ | wanted, self._on_master)
        elif wanted != self._stdin_mask:
            if wanted:
                self._selector.register(self._stdin, wanted, lambda _fd, _mask: self._feed())
            else:
                self._unregister(self._stdin)
            self._stdin_mask = wanted

    def _drop_stdin(self) -> None:
        if self._stdin < 0:
            return
        if not self.tty and self._stdin_mask:
            self._unregister(self._stdin)
            self._stdin_mask = 0
        if self.tty:
            self._outputs.pop(self._stdin, None)
            self._unregister(self._stdin)
        os.close(self._stdin)
        self._stdin = -1
        self._queue.clear()

    def _unregister(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            return


STREAMS = {"stdout": STDOUT, "stderr": STDERR}
