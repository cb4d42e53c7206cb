"""A client of the Engine API: synchronous, standard library only, quick to import.

HTTP/1.1 is spoken by hand: the library's client reads ahead into a buffer of its own, which a hijacked connection has
no use for, and takes longer to import than a whole request takes.
"""

import json
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

from node.hosts import Host, TlsFiles, UnixHost
from ocispec.errors import InvalidArgument, SeawallError, Unavailable

API_VERSION = "1.51"
CHUNK = 64 * 1024
MAX_HEAD = 64 * 1024


class DaemonError(SeawallError):
    """The daemon's refusal: `status` is HTTP's, `message` the daemon's own sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BodyRefused(Exception):
    """The daemon has answered before all of a body was sent."""


class BrokenAnswer(Unavailable):
    """What came is no HTTP, or ended early (the daemon was stopped)."""


Produce = Callable[[Callable[[bytes], None]], None]
"""Writes a body by the function it is given."""


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""


class Connection:
    """One request on a connection of its own. A context manager; the body is read by one of the methods, once."""

    def __init__(self, host: Host) -> None:
        """Raises DaemonUnreachable."""
        self.socket = host.dial()
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.socket.close()

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Head:
        """Raises DaemonError for a status of 400 and up."""
        lines = [f"{method} {target} HTTP/1.1", "Host: node", *(f"{name}: {text}" for name, text in headers.items())]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        head = self._read_head()
        if head.status >= 400:
            # What HEAD is answered with has a length and no body.
            body = b"" if method == "HEAD" else b"".join(self.chunks(head))
            raise DaemonError(head.status, _message(body, head.status))
        return head

    def give(self, method: str, target: str, headers: Mapping[str, str], produce: "Produce") -> Head:
        """As `ask`, with a body of any length, which `produce` writes. It is told (BodyRefused) when the daemon has
        answered already and wants no more of it."""
        lines = [f"{method} {target} HTTP/1.1", "Host: node", *(f"{name}: {text}" for name, text in headers.items()),
                 "Transfer-Encoding: chunked"]  # fmt: skip
        with suppress(BodyRefused):
            self._write(("\r\n".join(lines) + "\r\n\r\n").encode())
            produce(lambda data: self._write(b"%x\r\n%b\r\n" % (len(data), data)) if data else None)
            self._write(b"0\r\n\r\n")
        head = self._read_head()
        if head.status >= 400:
            raise DaemonError(head.status, _message(b"".join(self.chunks(head)), head.status))
        return head

    def _write(self, data: bytes) -> None:
        if select.select([self.socket], [], [], 0)[0]:
            raise BodyRefused
        try:
            self.socket.sendall(data)
        except ConnectionError as error:
            raise BodyRefused from error

    def chunks(self, head: Head) -> Iterator[bytes]:
        """The body as it arrives. Raises BrokenAnswer when it ends early."""
        if head.status in (204, 304):
            return
        if "chunked" in head.headers.get("transfer-encoding", ""):
            yield from self._chunked()
        elif "content-length" in head.headers:
            left = int(head.headers["content-length"])
            while left:
                data = self._some(left)
                left -= len(data)
                yield data
        else:
            while data := self._take(CHUNK) or self.socket.recv(CHUNK):
                yield data

    def leftover(self) -> bytes:
        """Of a hijacked connection: what came behind the head already."""
        return self._take(len(self._buffer))

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = int(self._line().partition(b";")[0], 16)
            if not size:
                while self._line():
                    pass
                return
            while size:
                data = self._some(size)
                size -= len(data)
                yield data
            self._line()

    def _read_head(self) -> Head:
        try:
            _, status, *_ = self._line().decode("latin-1").split(" ", 2)
            headers = {}
            while line := self._line():
                name, _, text = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = text.strip()
            return Head(int(status), headers)
        except ValueError as error:
            raise BrokenAnswer("the daemon answers with something else than HTTP") from error

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise BrokenAnswer("the daemon answers with something else than HTTP")
            self._buffer += self._receive()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def _some(self, limit: int) -> bytes:
        return self._take(limit) or self._receive(limit)

    def _take(self, limit: int) -> bytes:
        data, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return data

    def _receive(self, limit: int = CHUNK) -> bytes:
        try:
            data = self.socket.recv(min(limit, CHUNK))
        except ConnectionError as error:
            raise BrokenAnswer("the daemon closed the connection: was it stopped?") from error
        if not data:
            raise BrokenAnswer("the daemon closed the connection: was it stopped?")
        return data


@dataclass(frozen=True, slots=True)
class Hijacked:
    """A raw stream: what is read from `socket` comes after `leftover`; `shutdown(SHUT_WR)` is the end of input."""

    connection: Connection
    leftover: bytes
    multiplexed: bool
    """Docker's 8-byte frames rather than the bytes of a terminal."""

    @property
    def socket(self) -> socket.socket:
        return self.connection.socket

    def close(self) -> None:
        self.connection.socket.close()


Query = Mapping[str, Any]


class Client:
    """Verbs of HTTP on the daemon of one host. All raise DaemonUnreachable, DaemonError, BrokenAnswer."""

    def __init__(self, host: Host | str, version: str = API_VERSION) -> None:
        """Raises InvalidArgument for an address that is none (`parse_host`)."""
        self.host = parse_host(host) if isinstance(host, str) else host
        self._version = version

    def json(self, method: str, path: str, query: Query | None = None, body: Any = None,
             headers: Mapping[str, str] | None = None) -> Any:
        """The document answered, None when there is none."""
        with Connection(self.host) as connection:
            head = connection.ask(method, self._target(path, query), *_payload(body, headers))
            text = b"".join(connection.chunks(head))
        return json.loads(text) if text.strip() else None

    def status(self, method: str, path: str, query: Query | None = None) -> int:
        """For verbs that answer with a status only: 204, or 304 when there was nothing to do."""
        with Connection(self.host) as connection:
            return connection.ask(method, self._target(path, query), *_payload(None, None)).status

    def lines(self, method: str, path: str, query: Query | None = None,
              headers: Mapping[str, str] | None = None) -> Iterator[Any]:
        """A stream of JSON documents, one a line."""
        rest = b""
        for data in self.stream(method, path, query, headers):
            *whole, rest = (rest + data).split(b"\n")
            yield from (json.loads(line) for line in whole if line.strip())
        if rest.strip():
            yield json.loads(rest)

    def stream(self, method: str, path: str, query: Query | None = None,
               headers: Mapping[str, str] | None = None) -> Iterator[bytes]:
        with Connection(self.host) as connection:
            head = connection.ask(method, self._target(path, query), *_payload(None, headers))
            yield from connection.chunks(head)

    def upload(self, method: str, path: str, query: Query | None, produce: Produce,
               headers: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Send a body of any length, then the JSON documents answered, one a line."""
        with Connection(self.host) as connection:
            sent = {"Content-Type": "application/x-tar", **(headers or {})}
            head = connection.give(method, self._target(path, query), sent, produce)
            rest = b""
            for data in connection.chunks(head):
                *whole, rest = (rest + data).split(b"\n")
                yield from (json.loads(line) for line in whole if line.strip())
            if rest.strip():
                yield json.loads(rest)

    def begin(self, method: str, path: str, query: Query | None = None) -> tuple[Connection, Head]:
        """The head only: the body comes later (`wait` sends it when the container ends). The caller closes."""
        connection = Connection(self.host)
        try:
            return connection, connection.ask(method, self._target(path, query), *_payload(None, None))
        except BaseException:
            connection.socket.close()
            raise

    def hijack(self, path: str, query: Query | None = None, body: Any = None) -> Hijacked:
        """POST and leave HTTP. The caller closes."""
        connection = Connection(self.host)
        try:
            headers, payload = _payload(body, {"Connection": "Upgrade", "Upgrade": "tcp"})
            head = connection.ask("POST", self._target(path, query), headers, payload)
            if head.status not in (101, 200):
                raise BrokenAnswer(f"the daemon does not open a stream but answers {head.status}")
        except BaseException:
            connection.socket.close()
            raise
        multiplexed = head.headers.get("content-type", "").endswith("multiplexed-stream")
        return Hijacked(connection, connection.leftover(), multiplexed)

    def _target(self, path: str, query: Query | None) -> str:
        """A tuple is a parameter that is repeated."""
        given = [(name, value) for name, value in (query or {}).items() if value is not None]
        pairs = [(name, _text(one)) for name, value in given
                 for one in (value if isinstance(value, tuple) else (value,))]
        return f"/v{self._version}{quote(path, safe='/:@')}" + (f"?{urlencode(pairs)}" if pairs else "")


def parse_host(text: str, tls: TlsFiles | None = None) -> Host:
    """A URL, or a bare path of a unix socket. Raises InvalidArgument."""
    if "://" not in text or text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path:
            raise InvalidArgument("the host names no socket: unix:///path/to/node.sock")
        return UnixHost(path)
    url = urlsplit(text)
    try:
        port = url.port
    except ValueError as error:
        raise InvalidArgument(f"{text}: {error}") from error
    if not url.hostname or url.query or url.fragment:
        raise InvalidArgument(f"{text}: want tcp://HOST:PORT or ssh://[USER@]HOST[:PORT][/SOCKET]")
    # Imported when needed: a local command is quicker without.
    from node.farhosts import SshHost, TlsHost

    if url.scheme == "tcp":
        if tls is None:
            raise InvalidArgument(f"{text}: tcp is spoken over TLS only: name --tlscacert, --tlscert and --tlskey")
        return TlsHost(url.hostname, port or 2376, tls)
    if url.scheme == "ssh":
        if url.password:
            raise InvalidArgument(f"{url.scheme}://{url.hostname}: a password in the address is not taken; use a key")
        return SshHost(url.hostname, port, unquote(url.username or ""), unquote(url.path) if url.path != "/" else "")
    raise InvalidArgument(f"{text}: want unix://, tcp:// or ssh://")


def _payload(body: Any, headers: Mapping[str, str] | None) -> tuple[dict[str, str], bytes]:
    if body is None:
        return dict(headers or {}), b""
    return {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else json.dumps(value)


def _message(body: bytes, status: int) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    message = document.get("message") if isinstance(document, dict) else None
    return message if isinstance(message, str) else body.decode(errors="replace").strip() or f"HTTP status {status}"
