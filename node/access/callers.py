"""Who is at the other end of a connection, as the kernel or TLS says: nothing the client could claim."""

import contextlib
import errno
import pwd
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SO_PEERGROUPS = 59
"""The peer's supplementary groups (linux/socket.h); Python has no name for it."""

MOST_GROUPS = 65536
"""NGROUPS_MAX."""

_CREDENTIALS = struct.Struct("i2I")


@dataclass(frozen=True, slots=True)
class Caller:
    """`uid` is None for who came over TLS; then `certificate` is the common name of the client's certificate."""

    uid: int | None = None
    gids: frozenset[int] = frozenset()
    certificate: str = ""

    @property
    def root(self) -> bool:
        return self.uid == 0

    def __str__(self) -> str:
        if self.uid is None:
            return f"certificate {self.certificate}"
        with contextlib.suppress(KeyError):
            return f"user {pwd.getpwuid(self.uid).pw_name}"
        return f"user {self.uid}"


def local(connection: socket.socket, inside: Callable[[int], int] = lambda number: number) -> Caller:
    """The process that connected to a unix socket, as it was then (unix(7), SO_PEERCRED). Raises OSError.

    `inside`: the id that a container sees in place of one of the host's. Who gives a container the socket gives its
    users what ours have: its root is root here, as it would be without a user namespace.
    """
    _pid, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Caller(inside(uid), frozenset(inside(group) for group in {gid, *_groups(connection)}))


def _groups(connection: socket.socket) -> Iterable[int]:
    size = 64
    while True:
        try:
            raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, size * 4)
            return struct.unpack(f"{len(raw) // 4}I", raw)
        except OSError as error:
            if error.errno != errno.ERANGE or size >= MOST_GROUPS:
                raise
            size = MOST_GROUPS


def by_certificate(peer: Mapping[str, Any]) -> Caller:
    """`peer` as SSLObject.getpeercert gives it, verified. Without a common name nobody but a rule for "*" matches."""
    names = [value for part in peer.get("subject", ()) for key, value in part if key == "commonName"]
    return Caller(certificate=names[0] if len(names) == 1 else "")
