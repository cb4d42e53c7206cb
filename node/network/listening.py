"""Where a container's DNS questions arrive: 127.0.0.11 in its own network namespace. Everything here blocks.

The sockets are bound to ports that the kernel chooses, and the namespace translates port 53 to them: a DNS server in
the container may have port 53 of every address for itself.
"""

import contextlib
import os
import socket

from node.linux import syscalls
from node.linux.nftables import Nftables
from node.network.namespace import refuse_ours

ADDRESS = "127.0.0.11"
TABLE = "seawall_names"


def listen(netns: int) -> tuple[socket.socket, socket.socket]:
    """Sockets for datagrams and streams, made in the namespace. This thread enters it and comes back. Raises OSError.

    May be done again in the same namespace: the sockets of before are heard no longer.
    """
    refuse_ours(netns)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        try:
            return _listen()
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)


def _listen() -> tuple[socket.socket, socket.socket]:
    with contextlib.ExitStack() as undo:
        datagrams = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        streams = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        for sock in (datagrams, streams):
            sock.bind((ADDRESS, 0))
        streams.listen(64)
        tables = Nftables()
        try:
            tables.run(_rules(datagrams.getsockname()[1], streams.getsockname()[1]))
        finally:
            tables.close()
        undo.pop_all()
    return datagrams, streams


def _rules(udp: int, tcp: int) -> str:
    return f"""table ip {TABLE} {{ }}
delete table ip {TABLE}
table ip {TABLE} {{
  chain asking {{
    type nat hook output priority -100; policy accept;
    ip daddr {ADDRESS} udp dport 53 dnat to {ADDRESS}:{udp}
    ip daddr {ADDRESS} tcp dport 53 dnat to {ADDRESS}:{tcp}
  }}
}}
"""
