"""Where a node answers, and a socket to it: unix:///path, tcp://HOST:PORT over TLS, ssh://[USER@]HOST[:PORT][/SOCKET].

Whatever the way, callers get a plain socket that can be closed in one direction.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ocispec.errors import Unavailable


class DaemonUnreachable(Unavailable):
    """Nobody answers there."""


class Host(Protocol):
    @property
    def address(self) -> str:
        """As an URL."""
        ...

    def dial(self) -> socket.socket:
        """A new connection. Raises DaemonUnreachable."""
        ...


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a client; those of Docker's: ca.pem, cert.pem, key.pem in one folder."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def of_folder(cls, folder: Path) -> "TlsFiles":
        return cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


@dataclass(frozen=True, slots=True)
class UnixHost:
    path: str

    @property
    def address(self) -> str:
        return f"unix://{self.path}"

    def dial(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made.connect(self.path)
        except OSError as error:
            made.close()
            reason = "permission denied" if isinstance(error, PermissionError) else "is the node running?"
            raise DaemonUnreachable(f"Cannot connect to the Seawall daemon at {self.address}: {reason}") from error
        return made


def tls_from_environment(environment: Mapping[str, str]) -> TlsFiles | None:
    """Docker's variables: DOCKER_CERT_PATH, or the configuration's folder when DOCKER_TLS_VERIFY is set."""
    if folder := environment.get("DOCKER_CERT_PATH"):
        return TlsFiles.of_folder(Path(folder))
    if environment.get("DOCKER_TLS_VERIFY"):
        home = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "/root")) / ".docker")
        return TlsFiles.of_folder(Path(home))
    return None
