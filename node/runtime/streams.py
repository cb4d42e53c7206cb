"""Moving bytes between a process's standard streams, its log and the clients attached to it.

All descriptors are non-blocking and in one poller. A client that does not read stops the process's output once
MAX_PENDING bytes wait for it, as a terminal would: nothing is dropped and memory is bounded.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from node.runtime.poller import HANGUP, READ, WRITE, Poller
from node.runtime.wire import STDERR, stream_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from node.runtime.logchoice import Log

CHUNK = 64 * 1024
MAX_PENDING = 1024 * 1024
MAX_STDIN = 256 * 1024
PIPE_SIZE = 256 * 1024


class Client:
    """One attached socket. `wants` are the streams it gets; `feeds` says whether what it sends is stdin."""

    def __init__(self, channel: socket.socket, wants: frozenset[int], *, feeds: bool) -> None:
        self.channel = channel
        self.wants = wants
        self.feeds = feeds
        self.pending = bytearray()
        self.reading = True
        self.ending = False
        self.hung_up = False


class Streams:
    """The standard streams of one process. For a terminal there is one output, the master, which is also stdin."""

    def __init__(self, poller: Poller, log: Log | None, *, tty: bool, stdin_once: bool) -> None:
        self._poller = poller
        self._log = log
        self.tty = tty
        self._stdin_once = stdin_once
        self._outputs: dict[int, int] = {}
        self._stdin = -1
        self._queue = bytearray()
        self._close_stdin = False
        self._clients: list[Client] = []
        self._paused = False

    def connect(self, stdin: int, outputs: dict[int, int]) -> None:
        """Take over the descriptors: `outputs` maps a readable one to its stream, `stdin` -1 stands for none."""
        self._stdin = stdin
        self._outputs = outputs
        for fd in {stdin, *outputs} - {-1}:
            os.set_blocking(fd, False)
            self._watch(fd)

    @property
    def busy(self) -> bool:
        """Whether a client still has bytes to get."""
        return bool(self._clients)

    def attach(self, client: Client, received: bytes = b"") -> None:
        """`received`: what the client has sent already."""
        client.channel.setblocking(False)
        self._clients.append(client)
        if received:
            self._take(client, received)
        self._flush(client)

    def resize(self, rows: int, columns: int) -> None:
        """Raises OSError (ENOTTY) without a terminal."""
        if not self.tty or self._stdin < 0:
            raise OSError(errno.ENOTTY, "the process has no terminal")
        fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def finish(self) -> None:
        """The process is gone: read what its pipes still hold, close them, and let the clients go when they have it.

        No more is read than a pipe holds: a process that an exec left behind may write for ever.
        """
        for fd in list(self._outputs):
            left = 2 * PIPE_SIZE
            while left > 0 and (count := self._read(fd)):
                left -= count
            self._drop_output(fd)
        self._drop_stdin()
        if self._log is not None:
            self._poller.chore = None
            self._log.close()
            self._log = None
        for client in list(self._clients):
            client.ending = True
            self._flush(client)

    # -- output

    def _watch(self, fd: int) -> None:
        reading = fd in self._outputs and not self._paused
        mask = (READ if reading else 0) | (WRITE if fd == self._stdin and self._queue else 0)
        if mask:
            self._poller.watch(fd, mask, self._on_process)
        else:
            self._poller.forget(fd)  # the hang-up of a pipe nobody wants to read from would come without end

    def _on_process(self, fd: int, events: int) -> None:
        if fd == self._stdin and events & (WRITE | HANGUP):
            self._feed()
        if fd in self._outputs and events & (READ | HANGUP):
            self._read(fd)

    def _read(self, fd: int) -> int:
        """One chunk: its size, 0 when there is none now. The end of a stream removes it."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""  # EIO: the last slave of a terminal is closed
        if not data:
            self._drop_output(fd)
            return 0
        stream = self._outputs[fd]
        if self._log is not None:
            self._log.write("stderr" if stream == STDERR else "stdout", data)
            if self._log.busy:
                self._poller.chore = self._log.work
        framed = data if self.tty else stream_frame(stream, data)
        for client in list(self._clients):
            if stream in client.wants:
                client.pending += framed
                self._flush(client)
        return len(data)

    def _drop_output(self, fd: int) -> None:
        if self._outputs.pop(fd, None) is None:
            return
        if fd == self._stdin:
            self._watch(fd)
        else:
            self._poller.forget(fd)
            os.close(fd)

    def _balance(self) -> None:
        """Stop reading while a client has too much to get, until it has had half of it."""
        limit = MAX_PENDING // 2 if self._paused else MAX_PENDING
        paused = any(len(client.pending) > limit for client in self._clients)
        if paused != self._paused:
            self._paused = paused
            for fd in self._outputs:
                self._watch(fd)

    # -- clients

    def _arm(self, client: Client) -> None:
        reading = client.reading and not (client.feeds and len(self._queue) >= MAX_STDIN)
        fd = client.channel.fileno()
        if client.hung_up and not reading:
            # Nothing can be sent any more; what it sent is still to be read once the process takes it.
            self._poller.forget(fd)
            if not client.reading:
                self._drop(client)
            return
        mask = (READ if reading else 0) | (WRITE if client.pending else 0)
        self._poller.watch(fd, mask, lambda _fd, events: self._on_client(client, events))

    def _on_client(self, client: Client, events: int) -> None:
        client.hung_up = client.hung_up or bool(events & HANGUP)
        if events & WRITE and not client.hung_up:
            self._flush(client)
        if client in self._clients and events & READ:
            self._receive(client)
        if client in self._clients:
            self._arm(client)

    def _flush(self, client: Client) -> None:
        try:
            while client.pending:
                sent = client.channel.send(memoryview(client.pending)[:4 * CHUNK])
                del client.pending[:sent]
        except BlockingIOError:
            pass
        except OSError:
            # Gone for good; what it sent before may still be in the socket.
            client.hung_up = True
            client.pending.clear()
        if client.ending and not client.pending:
            self._drop(client)
            return
        self._arm(client)
        self._balance()

    def _receive(self, client: Client) -> None:
        try:
            data = client.channel.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(client, data)
            return
        client.reading = False
        if client.feeds and self._stdin_once and not self.tty:
            self._close_stdin = True
            self._feed()
        if not client.wants:
            self._drop(client)

    def _take(self, client: Client, data: bytes) -> None:
        if client.feeds and self._stdin >= 0 and not self._close_stdin:
            self._queue += data
            self._feed()

    def _drop(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._poller.forget(client.channel.fileno())
        client.channel.close()
        self._balance()

    # -- stdin

    def _feed(self) -> None:
        try:
            while self._queue and self._stdin >= 0:
                with memoryview(self._queue) as view:
                    written = os.write(self._stdin, view[:CHUNK])
                del self._queue[:written]
        except BlockingIOError:
            pass
        except OSError:
            self._queue.clear()
            if not self.tty:
                self._drop_stdin()
        if self._close_stdin and not self._queue and not self.tty:
            self._drop_stdin()
        if self._stdin >= 0:
            self._watch(self._stdin)
        for client in list(self._clients):
            if client.feeds:
                self._arm(client)

    def _drop_stdin(self) -> None:
        if self._stdin < 0:
            return
        self._outputs.pop(self._stdin, None)
        self._poller.forget(self._stdin)
        os.close(self._stdin)
        self._stdin = -1
        self._queue.clear()
