"""Clients known by their TLS certificate. TLS has verified it against the configured authority before it gets here."""

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocispec.errors import InvalidArgument
from registry.auth.challenge import LoginRequired
from registry.auth.principal import ClientCertificate, Kind, Principal

FIELDS = {"cn": "", "dns": "DNS:", "uri": "URI:", "email": "EMAIL:"}
MAX_NAME = 250


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """`field` says what of a certificate names its client: `cn`, `dns`, `uri` (SPIFFE) or `email`."""

    field: str = "cn"

    def __post_init__(self) -> None:
        if self.field not in FIELDS:
            raise InvalidArgument(f"a client is named by one of {', '.join(FIELDS)}, not {self.field!r}")

    def principal(self, certificate: ClientCertificate) -> Principal:
        """Raises LoginRequired: a certificate that names nobody, or several, is nobody's."""
        prefix = FIELDS[self.field]
        if not prefix:
            found = [certificate.common_name] if certificate.common_name else []
        else:
            found = [name.removeprefix(prefix) for name in certificate.names if name.startswith(prefix)]
        if len(found) != 1 or not found[0].isprintable() or len(found[0]) > MAX_NAME:
            raise LoginRequired(f"the client certificate has not one {self.field} that could be a name")
        return Principal(found[0], Kind.CERTIFICATE)


def shown(connection: ssl.SSLObject | ssl.SSLSocket | None) -> ClientCertificate | None:
    """What the client of a TLS connection showed, if the server asked for it and it was good."""
    if connection is None:
        return None
    raw, parsed = connection.getpeercert(binary_form=True), connection.getpeercert()
    return read(parsed, raw) if raw and parsed else None


def read(parsed: Mapping[str, Any], raw: bytes) -> ClientCertificate:
    """`parsed` is `ssl.SSLSocket.getpeercert()`'s form."""
    subject: Sequence[Sequence[tuple[str, str]]] = parsed.get("subject", ())
    common = [value for part in subject for name, value in part if name == "commonName"]
    names = tuple(f"{kind.upper()}:{value}"
                  for kind, value in parsed.get("subjectAltName", ()))
    # Several common names are an old trick to be one thing to one reader and another to the next.
    return ClientCertificate(common[0] if len(common) == 1 else "", names, hashlib.sha256(raw).hexdigest())
