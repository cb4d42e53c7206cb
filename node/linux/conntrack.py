"""The kernel's table of connections (conntrack), as far as ports that change hands need it: forgetting UDP flows.

A flow keeps the translation that its first packet met. Of TCP that is right; of UDP it means that a client which goes
on sending from one port never reaches a container that was published, or came instead of another, after that packet.
"""

import errno
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address

from node.linux.netlink import Channel, attribute, attributes

NETLINK_NETFILTER = 12
CT_GET, CT_DELETE = 0x101, 0x102
CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 12, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_DST = 2
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_FILTER_ORIG_FLAGS = 1
F_PROTO_NUM, F_PROTO_DST_PORT = 1 << 3, 1 << 5
NESTED = 0x8000
_HEADER = struct.pack("=BBH", socket.AF_INET, 0, 0)


@dataclass(frozen=True, slots=True)
class Flow:
    """`key` names it to the kernel: its tuple, zone and id, so that none that came since is meant."""

    protocol: int
    destination: IPv4Address
    port: int
    key: bytes


class Conntrack(Channel):
    """Raises OSError from any method; also where the kernel has no connection tracking."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def forget_udp(self, destinations: Collection[IPv4Address], port: int) -> int:
        """Forget the UDP flows that were sent to this port of one of these addresses; gives how many."""
        flows = [flow for flow in self._flows(port) if flow.destination in destinations]
        for flow in flows:
            try:
                self.ask(CT_DELETE, 0, _HEADER + flow.key, "forget a connection")
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
        return len(flows)

    def _flows(self, port: int) -> list[Flow]:
        # The kernel filters since 5.8. An older one gives everything, so what comes is looked at again.
        ports = attribute(CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])) + attribute(
            CTA_PROTO_DST_PORT, struct.pack("!H", port))
        wanted = attribute(CTA_TUPLE_ORIG | NESTED, attribute(CTA_TUPLE_PROTO | NESTED, ports)) + attribute(
            CTA_FILTER | NESTED, attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", F_PROTO_NUM | F_PROTO_DST_PORT)))
        found = (_flow(entry[4:]) for entry in self.dump(CT_GET, _HEADER + wanted, "list connections"))
        return [flow for flow in found
                if flow is not None and (flow.protocol, flow.port) == (socket.IPPROTO_UDP, port)]


def _flow(entry: bytes) -> Flow | None:
    """None for what has no IPv4 destination or no port."""
    fields = dict(attributes(entry))
    original = fields.get(CTA_TUPLE_ORIG, b"")
    parts = dict(attributes(original))
    address = dict(attributes(parts.get(CTA_TUPLE_IP, b""))).get(CTA_IP_V4_DST, b"")
    protocol = dict(attributes(parts.get(CTA_TUPLE_PROTO, b"")))
    port = protocol.get(CTA_PROTO_DST_PORT, b"")
    if len(address) != 4 or len(port) != 2:
        return None
    key = attribute(CTA_TUPLE_ORIG | NESTED, original) + b"".join(
        attribute(kind, fields[kind]) for kind in (CTA_ZONE, CTA_ID) if kind in fields)
    return Flow(protocol.get(CTA_PROTO_NUM, b"\0")[0], IPv4Address(address), int.from_bytes(port, "big"), key)
