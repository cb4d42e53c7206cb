"""The settings of access, looked up once and again at a reload."""

import grp
import ssl
from logging import getLogger

from node.access.remote import Remote, server_context
from node.access.rules import Access
from node.settings import AccessSettings, InvalidSettings, RemoteSettings
from ocispec.errors import SeawallError

log = getLogger(__name__)


class Door:
    """Who reaches the API, by which way, with which rights."""

    def __init__(self, settings: AccessSettings) -> None:
        """Raises InvalidSettings, InvalidRules."""
        self._settings = settings
        self.access = Access(settings.rules)
        self.gid = _gid(settings.group) if settings.group else None
        self._context = _context(settings.remote) if settings.remote else None

    @property
    def remote(self) -> Remote | None:
        at = self._settings.remote
        return Remote(at.host, at.port, self._current) if at else None

    def _current(self) -> ssl.SSLContext:
        assert self._context is not None
        return self._context

    def reload(self) -> None:
        """Read rules and certificates again. What cannot be read is logged, and the one before stays in force."""
        try:
            self.access.reload()
            if self._settings.remote:
                self._context = _context(self._settings.remote)
        except SeawallError as error:
            log.warning("reload: %s", error.message)


def _gid(group: str) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidSettings(f"--group: this host has no group {group!r}") from None


def _context(remote: RemoteSettings) -> ssl.SSLContext:
    try:
        return server_context(str(remote.certificate), str(remote.key), str(remote.authority))
    except OSError as error:
        files = f"{remote.certificate}, {remote.key}, {remote.authority}"
        raise InvalidSettings(f"the TLS files cannot be used ({files}): {error.strerror or error}") from error
