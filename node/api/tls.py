"""TLS under the API's connections, with half-closed ones.

asyncio's own TLS ends a connection as soon as the peer says it will send no more. Docker's client does just that at the
end of standard input (`echo x | docker run -i …`) and still wants the output, which TLS allows (RFC 8446, section 6.1).
So TLS is spoken here on memory buffers (ssl.SSLObject), between a TCP transport and the connection above.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

READ = 64 * 1024
HIGH_WATER = 256 * 1024
HANDSHAKE_SECONDS = 10.0


class TlsProtocol(asyncio.Protocol):
    """On the TCP transport. The protocol above is made when the handshake has ended well."""

    def __init__(self, context: ssl.SSLContext, above: Callable[[], asyncio.Protocol]) -> None:
        self._make = above
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._tcp: asyncio.Transport | None = None
        self.above: asyncio.Protocol | None = None
        self._ended = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast("asyncio.Transport", transport)
        self._tcp.set_write_buffer_limits(HIGH_WATER)
        # Who connects and says nothing does not stay.
        self._patience = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._tcp.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if self.above is None and not self._handshake():
                return
            self._deliver()
        except ssl.SSLError:
            # What the peer is owed (an alert) goes out, and no more.
            self._flush()
            assert self._tcp is not None
            self._tcp.close()

    def eof_received(self) -> bool:
        """TCP's end without TLS's is no end of input but a cut."""
        assert self._tcp is not None
        if not self._ended:
            self._tcp.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up_waiting()
        if self.above is not None:
            self.above.connection_lost(exc)

    def pause_writing(self) -> None:
        if self.above is not None:
            self.above.pause_writing()

    def resume_writing(self) -> None:
        if self.above is not None:
            self.above.resume_writing()

    # What the transport above asks.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._tls.write(data)
            self._flush()

    def say_goodbye(self) -> None:
        # Answers SSLWantRead while the peer has not said the same: nobody waits for that.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    @property
    def tls(self) -> ssl.SSLObject:
        return self._tls

    def _handshake(self) -> bool:
        assert self._tcp is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()
        self._give_up_waiting()
        self.above = self._make()
        self.above.connection_made(TlsTransport(self, self._tcp))
        return True

    def _deliver(self) -> None:
        assert self.above is not None
        while not self._ended:
            try:
                data = self._tls.read(READ)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self.above.data_received(data)
            else:
                self._ended = True
                if not self.above.eof_received() and self._tcp is not None:
                    self.say_goodbye()
                    self._tcp.close()
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and self._tcp is not None and not self._tcp.is_closing():
            self._tcp.write(self._outgoing.read())

    def _give_up_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class TlsTransport(asyncio.Transport):
    """What the protocol above writes to."""

    def __init__(self, below: TlsProtocol, tcp: asyncio.Transport) -> None:
        super().__init__()
        self._below = below
        self._tcp = tcp

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._below.tls
        if name == "peercert":
            return self._below.tls.getpeercert()
        return self._tcp.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._tcp.is_closing():
            self._below.write(data)

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._tcp.is_closing()

    def close(self) -> None:
        if not self._tcp.is_closing():
            self._below.say_goodbye()
            self._tcp.close()

    def abort(self) -> None:
        self._tcp.abort()

    def is_reading(self) -> bool:
        return self._tcp.is_reading()

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._tcp.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._below.above = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        above = self._below.above
        assert above is not None, "this transport is made with its protocol"
        return above
