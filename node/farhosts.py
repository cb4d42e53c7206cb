"""Nodes on other machines: over TLS, or through ssh. A thread or a process carries the bytes behind a socket pair."""

import select
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass

from node.hosts import DaemonUnreachable, TlsFiles

CHUNK = 64 * 1024
CONNECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TlsHost:
    host: str
    port: int
    files: TlsFiles

    @property
    def address(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def dial(self) -> socket.socket:
        try:
            context = ssl.create_default_context(cafile=str(self.files.authority))
            context.load_cert_chain(str(self.files.certificate), str(self.files.key))
            carrier = Carrier(socket.create_connection((self.host, self.port), CONNECT_SECONDS), context, self.host)
        except OSError as error:
            raise DaemonUnreachable(f"Cannot connect to the Seawall daemon at {self.address}: {error}") from error
        ours, theirs = socket.socketpair()
        threading.Thread(target=carrier.carry, args=(theirs,), daemon=True).start()
        return ours


@dataclass(frozen=True, slots=True)
class SshHost:
    """`seawall system dial-stdio` on the other machine, which finds the node's socket there or is told it."""

    host: str
    port: int | None
    user: str
    path: str

    @property
    def address(self) -> str:
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"ssh://{user}{self.host}{port}{self.path}"

    def dial(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        words = ["ssh", "-o", "ConnectTimeout=30", "-T"]
        words += ["-l", self.user] if self.user else []
        words += ["-p", str(self.port)] if self.port else []
        # "--": a host name that begins with a dash is no option (CVE-2017-1000117 and its kind).
        words += ["--", self.host, "seawall", *(["--host", f"unix://{self.path}"] if self.path else []),
                  "system", "dial-stdio"]  # fmt: skip
        try:
            # A session of its own: Ctrl-C in the terminal is for the container, not for the way to it.
            subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True)
        except OSError as error:
            ours.close()
            raise DaemonUnreachable(f"ssh cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
        return ours


class Carrier:
    """Bytes between a plain socket and TLS, each direction closed on its own (which ssl.SSLSocket cannot do)."""

    def __init__(self, tcp: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """The handshake is done here. Raises OSError."""
        self._tcp = tcp
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        try:
            self._handshake()
        except BaseException:
            tcp.close()
            raise
        tcp.settimeout(None)

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send()
                if not self._receive():
                    raise ConnectionResetError("the connection was closed during the TLS handshake") from None
            else:
                self._send()
                return

    def carry(self, plain: socket.socket) -> None:
        """Until both have ended or one is gone."""
        with plain, self._tcp, suppress(OSError):
            listening, watched = True, [plain, self._tcp]
            self._deliver(plain)
            while watched and listening:
                ready, _, _ = select.select(watched, [], [])
                if self._tcp in ready:
                    listening = self._receive() and self._deliver(plain)
                if plain in ready:
                    data = plain.recv(CHUNK)
                    if data:
                        self._tls.write(data)
                    else:
                        watched.remove(plain)
                        # Answers SSLWantRead while the node has not closed its direction.
                        with suppress(ssl.SSLError):
                            self._tls.unwrap()
                    self._send()

    def _deliver(self, plain: socket.socket) -> bool:
        """False: the node will send no more."""
        while True:
            try:
                data = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                return True
            except ssl.SSLZeroReturnError:
                return False
            if not data:
                return False
            plain.sendall(data)

    def _receive(self) -> bool:
        data = self._tcp.recv(CHUNK)
        self._incoming.write(data)
        return bool(data)

    def _send(self) -> None:
        if self._outgoing.pending:
            self._tcp.sendall(self._outgoing.read())
