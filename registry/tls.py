"""TLS of the listening sockets, and new certificates without a restart.

A context that is in use takes another certificate for the handshakes that are still to come
(SSL_CTX_use_certificate(3)); connections that exist keep theirs and go on. What is read from disk is tried in a context
of its own first: a half-written pair of files must not take the certificate that works.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from registry.settings import InvalidSettings, TlsSettings

log = logging.getLogger(__name__)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption alone. Those of TLS 1.3 are all like that."""


def make_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """None: plain HTTP. Raises InvalidSettings."""
    if not settings.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    _load(context, settings)
    if settings.client_ca:
        _ask(context, settings)
    return context


def _ask(context: ssl.SSLContext, settings: TlsSettings) -> None:
    """Ask clients for certificates. One that is shown and not good ends the handshake; whether one is needed to pull is
    for the policies, unless the setting says that nobody gets in without."""
    try:
        context.load_verify_locations(settings.client_ca)
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"cannot use tls.client_ca: {error}") from error
    context.verify_mode = ssl.CERT_REQUIRED if settings.client_required else ssl.CERT_OPTIONAL


def _load(context: ssl.SSLContext, settings: TlsSettings) -> None:
    try:
        # Without the function OpenSSL would ask for a passphrase on the terminal and wait.
        context.load_cert_chain(settings.certificate, settings.key, password=_no_passphrase)
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"cannot use the TLS certificate: {error}") from error


def _no_passphrase() -> str:
    raise ValueError("the private key is encrypted, and there is nobody to ask for its passphrase")


class Certificates:
    """One worker's context. `reloaded(well)` is told of each reload."""

    def __init__(self, settings: TlsSettings, reloaded: Callable[[bool], None]) -> None:
        """Raises InvalidSettings."""
        self._settings = settings
        self._reloaded = reloaded
        self.context = make_context(settings)
        self._seen = self._files()

    def reload(self) -> bool:
        """Take what the files hold now. Whether it could be used; if not, the certificate stays as it is."""
        if self.context is None:
            return True
        self._seen = self._files()
        try:
            make_context(self._settings)
            _load(self.context, self._settings)
        except InvalidSettings as error:
            log.error("%s; going on with the one before", error.message)  # noqa: TRY400  # the message says it
            self._reloaded(False)
            return False
        log.info("TLS certificate loaded again from %s", self._settings.certificate)
        self._reloaded(True)
        return True

    async def watch(self) -> None:
        """Reload whenever a file changed; until it is cancelled."""
        if self.context is None or not self._settings.reload_every:
            return
        while True:
            await asyncio.sleep(self._settings.reload_every)
            if self._files() != self._seen:
                self.reload()

    def _files(self) -> list[tuple[int, int, int]]:
        """What changes when a file is written or, as by most tools, replaced."""
        return [_stamp(Path(name)) for name in (self._settings.certificate, self._settings.key) if name]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size
