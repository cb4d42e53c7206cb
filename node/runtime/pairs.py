"""A user namespace and the network namespace that it owns, made for a container to come.

They cannot be made by the daemon (unshare(2) of a user namespace needs a process without threads): a fork of the
launcher makes them and sends descriptors of both. They hold nobody, and live by their descriptors.
"""

from __future__ import annotations

import os
import struct

from node.runtime import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

REQUEST = b"n"
"""First byte of a request for namespaces, where one for a container has a brace: then the first of the host's ids and
how many, as two unsigned 32-bit numbers."""

_IDS = struct.Struct("=II")
_SOL_SOCKET, _SCM_RIGHTS = 1, 1


def answer(request: bytes, channel: socket.socket) -> None:
    """In a process of its own, which ends. Two descriptors come with b"ok"; anything else is what went wrong."""
    try:
        first, size = _IDS.unpack(request[1:])
        extents = ((0, first, size),)
        user, network = identity.make_with_network(extents, extents, lambda: _let_ping(size))
        channel.sendmsg([b"ok"], [(_SOL_SOCKET, _SCM_RIGHTS, struct.pack("2i", user, network))])
    except (OSError, struct.error) as error:
        channel.send((getattr(error, "strerror", None) or str(error)).encode())
    finally:
        os._exit(0)


def _let_ping(size: int) -> None:
    """Echo requests without CAP_NET_RAW, for every group of the namespace. Only from inside can they be named: the
    kernel takes no number above 2³¹ (ip_sysctl, ping_group_range)."""
    try:
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
            file.write(f"0 {size - 1}")
    except OSError:
        return  # a kernel without IPv4, or a read-only /proc/sys
