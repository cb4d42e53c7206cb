"""TLS on memory buffers, under a protocol that knows nothing of it: halves, changes of protocol, cuts."""

import asyncio
import ssl
from collections.abc import Callable

import pytest
import trustme

from node.api.tls import TlsProtocol


class Echo(asyncio.Protocol):
    """Answers at the end of input, as a container with standard input does."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> bool:
        self.ended = True
        self.transport.write(b"got " + self.got)  # type: ignore[attr-defined]
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Wire(asyncio.Transport):
    """TCP's place: what is written is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Client:
    """The other end, by hand."""

    def __init__(self, authority: trustme.CA, below: TlsProtocol, wire: Wire) -> None:
        context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        authority.issue_cert("client", common_name="ci-1").configure_cert(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="node")
        self.below, self.wire = below, wire

    def swap(self) -> None:
        if self.outgoing.pending:
            self.below.data_received(self.outgoing.read())
        self.incoming.write(bytes(self.wire.sent))
        self.wire.sent.clear()

    def until_done(self, step: Callable[[], object]) -> object:
        for _ in range(20):
            try:
                return step()
            except ssl.SSLWantReadError:
                self.swap()
        raise AssertionError("no end of asking")


@pytest.fixture
async def ends() -> tuple[Client, TlsProtocol, Wire, list[Echo]]:
    authority, made = trustme.CA(), list[Echo]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("node").configure_cert(context)
    authority.configure_trust(context)

    def above() -> Echo:
        made.append(Echo())
        return made[-1]

    below, wire = TlsProtocol(context, above), Wire()
    below.connection_made(wire)
    client = Client(authority, below, wire)
    client.until_done(client.tls.do_handshake)
    client.swap()
    return client, below, wire, made


async def test_the_end_of_input_is_not_the_end_of_output(ends: tuple[Client, TlsProtocol, Wire, list[Echo]]) -> None:
    client, below, wire, (above,) = ends
    client.tls.write(b"words")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    client.swap()
    assert (above.got, above.ended, wire.closed) == (b"words", True, False)
    assert client.until_done(lambda: client.tls.read(100)) == b"got words"
    below.connection_lost(None)
    assert above.lost.is_set()


async def test_another_protocol_takes_over(ends: tuple[Client, TlsProtocol, Wire, list[Echo]]) -> None:
    client, below, _, (first,) = ends
    second = Echo()
    transport = first.transport
    assert isinstance(transport, asyncio.Transport)
    assert transport.get_protocol() is first
    transport.set_protocol(second)
    client.tls.write(b"for the second")
    client.swap()
    assert (first.got, second.got, transport.get_protocol()) == (b"", b"for the second", second)
    below.connection_lost(None)


async def test_a_connection_that_is_cut_is_no_end_of_input(ends: tuple[Client, TlsProtocol, Wire, list[Echo]]) -> None:
    _, below, wire, (above,) = ends
    below.eof_received()
    assert (above.ended, wire.closed) == (False, True)
    below.connection_lost(None)


async def test_what_is_no_tls_is_hung_up_on(ends: tuple[Client, TlsProtocol, Wire, list[Echo]]) -> None:
    _, below, wire, (above,) = ends
    below.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert (above.got, wire.closed) == (b"", True)
    below.connection_lost(None)
