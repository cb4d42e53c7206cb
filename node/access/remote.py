"""How other machines are let in: TLS, with a certificate on both sides."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remote:
    """Where to listen. `context` is asked at each connection, so that new certificates count at once."""

    host: str
    port: int
    context: Callable[[], ssl.SSLContext]


def server_context(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    """For clients that show a certificate of that authority, and nobody else. Raises OSError (ssl.SSLError too)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    return context
