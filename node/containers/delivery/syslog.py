"""Syslog: RFC 3164 and RFC 5424 messages, as Docker forms them, over unix sockets, UDP, TCP and TLS (RFC 5425)."""

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from node.containers.delivery.senders import SECONDS, lines
from node.containers.logformats import Entry
from ocispec.errors import InvalidArgument

FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
LOCALS = {f"local{number}": 16 + number for number in range(8)}
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
SCHEMES = ("udp", "tcp", "tcp+tls", "unix", "unixgram")
LOCAL_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")
DEFAULT_PORT, TLS_PORT = 514, 6514
INFO, ERROR = 6, 3
MAX_DATAGRAM = 60_000


@dataclass(frozen=True, slots=True)
class SyslogTarget:
    """Parsed options. `scheme` empty: the host's own syslog."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    facility: int = 3
    form: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> "SyslogTarget":
        """Raises InvalidArgument."""
        form = options.get("syslog-format", "")
        if form not in FORMATS:
            raise InvalidArgument(f"syslog: invalid syslog format: {form[:50]}")
        scheme, host, port, path = _address(options.get("syslog-address", ""))
        return cls(
            scheme, host, port, path, _facility(options.get("syslog-facility", "")), form,
            options.get("syslog-tls-ca-cert", ""), options.get("syslog-tls-cert", ""),
            options.get("syslog-tls-key", ""), options.get("syslog-tls-skip-verify", "") in ("", "0", "false"),
        )  # fmt: skip


def _address(text: str) -> tuple[str, str, int, str]:
    if not text:
        return "", "", 0, ""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InvalidArgument(f"syslog: invalid address '{text[:100]}'") from None
    if parts.scheme not in SCHEMES:
        raise InvalidArgument(f"syslog: unsupported scheme: '{parts.scheme[:20]}'")
    if parts.scheme.startswith("unix"):
        if not parts.path:
            raise InvalidArgument(f"syslog: the address '{text[:100]}' has no path")
        return parts.scheme, "", 0, parts.path
    if not parts.hostname:
        raise InvalidArgument(f"syslog: the address '{text[:100]}' has no host")
    return parts.scheme, parts.hostname, port or (TLS_PORT if parts.scheme == "tcp+tls" else DEFAULT_PORT), ""


def _facility(text: str) -> int:
    if not text:
        return FACILITIES.index("daemon")
    if text in FACILITIES:
        return FACILITIES.index(text)
    if text in LOCALS:
        return LOCALS[text]
    if text.isascii() and text.isdigit() and int(text[:4]) <= 23:
        return int(text)
    raise InvalidArgument(f"syslog: invalid facility: {text[:50]}")


class SyslogSender:
    def __init__(self, target: SyslogTarget, tag: str) -> None:
        self._target = target
        self._tag = tag
        self._host = socket.gethostname()
        self._socket: socket.socket | None = None

    def send(self, entries: Sequence[Entry]) -> None:
        if self._socket is None:
            self._socket = _connected(self._target)
        stream = self._socket.type == socket.SOCK_STREAM
        pending = bytearray()
        try:
            for entry in entries:
                for line in lines(entry):
                    message = self._message(entry, line)
                    if stream:
                        pending += self._framed(message)
                    else:
                        self._socket.send(message[:MAX_DATAGRAM])
            if pending:
                self._socket.sendall(pending)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _framed(self, message: bytes) -> bytes:
        if self._target.scheme == "tcp+tls" and self._target.form.startswith("rfc5424"):
            return b"%d %s" % (len(message), message)
        return message + b"\n"

    def _message(self, entry: Entry, line: bytes) -> bytes:
        priority = self._target.facility * 8 + (ERROR if entry.stream == 2 else INFO)
        seconds, rest = divmod(entry.time_ns, 10**9)
        form, tag, pid = self._target.form, self._tag, os.getpid()
        if form.startswith("rfc5424"):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            stamp += f".{rest // 1000:06d}Z" if form == "rfc5424micro" else "Z"
            head = f"<{priority}>1 {stamp} {self._host} {tag} {pid} {tag} - "
        else:
            stamp = time.strftime("%b %e %H:%M:%S", time.localtime(seconds))
            host = f"{self._host} " if form == "rfc3164" else ""
            head = f"<{priority}>{stamp} {host}{tag}[{pid}]: "
        return head.encode() + line


def _connected(target: SyslogTarget) -> socket.socket:
    """Raises OSError."""
    if target.scheme == "":
        return _local()
    if target.scheme.startswith("unix"):
        return _unix(target.path, socket.SOCK_DGRAM if target.scheme == "unixgram" else socket.SOCK_STREAM)
    if target.scheme == "udp":
        family, kind, protocol, _, address = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)[0]
        made = socket.socket(family, kind, protocol)
        made.settimeout(SECONDS)
        made.connect(address)
        return made
    plain = socket.create_connection((target.host, target.port), SECONDS)
    if target.scheme == "tcp":
        return plain
    try:
        return _context(target).wrap_socket(plain, server_hostname=target.host)
    except (OSError, ValueError) as error:
        plain.close()
        raise OSError(f"TLS with {target.host}: {error}") from error


def _context(target: SyslogTarget) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=target.ca or None)
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if target.certificate:
        context.load_cert_chain(target.certificate, target.key or None)
    return context


def _local() -> socket.socket:
    for path in LOCAL_SOCKETS:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with contextlib.suppress(OSError):
                return _unix(path, kind)
    raise OSError("the host has no syslog socket")


def _unix(path: str, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind)
    made.settimeout(SECONDS)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made
