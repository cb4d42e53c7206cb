"""rtnetlink(7), as little of it as a container's interface needs: links, addresses, routes.

One message, one answer; an error carries the kernel's own words where it gives some (extended acknowledgements).
A socket belongs to the network namespace in which it was made, so one made inside a container's namespace configures
that namespace from anywhere.
"""

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE = 20, 22, 24
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 1, 2, 4, 0x200, 0x400, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
MAX_DATAGRAM = 64 * 1024
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_MODE = 4, 5, 4
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_GATEWAY = 5
IFF_UP = 1


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    kind: str
    """`bridge`, `veth`, …; empty for hardware and the loopback."""


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes (netlink(7), NLA)."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _link(index: int = 0, *, up: bool = False) -> bytes:
    flags = IFF_UP if up else 0
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


class Channel:
    """A netlink socket of one family. Not for concurrent use. Every method raises OSError with the kernel's errno and
    text."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes, what: str, *, ack: bool = True) -> bytes:
        """One message and its answer, empty for an acknowledgement. `what` begins the text of an error."""
        self._send(kind, flags | (NLM_F_ACK if ack else 0), body)
        return next(self._answers(what), b"")

    def dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        """Everything of a kind. All of it is read before anything is done with it: a socket holds one dump."""
        self._send(kind, NLM_F_DUMP, body)
        return list(self._answers(what))

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)

    def _answers(self, what: str) -> Iterator[bytes]:
        while True:
            data = self._socket.recv(MAX_DATAGRAM)
            position = 0
            while position + 16 <= len(data):
                length, kind, flags, sequence, _pid = struct.unpack_from("=IHHII", data, position)
                message = data[position:position + length]
                position += max((length + 3) & ~3, 16)
                if sequence != self._sequence:
                    continue  # an answer to a request that was given up
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    _check(message, flags, what)
                    return
                yield message[16:]
                if not flags & NLM_F_MULTI:
                    return


class Netlink(Channel):
    """A route socket."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def add_bridge(self, name: str, mac: str) -> None:
        """It is down: what must be set before anything passes can be."""
        info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"))
        self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL,
                  _link() + text(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, _mac(mac)) + info,
                  f"add bridge {name}")

    def add_veth(self, name: str, *, master: int, peer: str, peer_mac: str, peer_netns: int, mtu: int) -> None:
        """A pair: `name` here, up and on the bridge `master`; `peer` in the namespace of that descriptor."""
        there = (_link() + text(IFLA_IFNAME, peer) + attribute(IFLA_ADDRESS, _mac(peer_mac)) + number(IFLA_MTU, mtu)
                 + number(IFLA_NET_NS_FD, peer_netns))
        info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth")
                         + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, there)))
        self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL,
                  _link(up=True) + text(IFLA_IFNAME, name) + number(IFLA_MTU, mtu) + number(IFLA_MASTER, master) + info,
                  f"add interface {name}")

    def set_hairpin(self, name: str) -> None:
        """Let the bridge send a frame back by the port it came from."""
        mode = attribute(IFLA_BRPORT_MODE, b"\x01")
        info = attribute(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge") + attribute(IFLA_INFO_SLAVE_DATA, mode))
        self.ask(RTM_NEWLINK, 0, _link() + text(IFLA_IFNAME, name) + info, f"set interface {name} to hairpin mode")

    def set_up(self, index: int) -> None:
        self.ask(RTM_NEWLINK, 0, _link(index, up=True), f"set interface {index} up")

    def delete(self, name: str) -> None:
        self.ask(RTM_DELLINK, 0, _link() + text(IFLA_IFNAME, name), f"delete interface {name}")

    def index(self, name: str) -> int:
        """Raises OSError (ENODEV)."""
        return self.link(name).index

    def link(self, name: str) -> Link:
        """Raises OSError (ENODEV)."""
        answer = self.ask(RTM_GETLINK, 0, _link() + text(IFLA_IFNAME, name), f"find interface {name}", ack=False)
        index: int = struct.unpack_from("=BxHi", answer)[2]
        info = dict(attributes(dict(attributes(answer[16:])).get(IFLA_LINKINFO, b"")))
        return Link(index, info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"))

    def add_address(self, index: int, address: IPv4Address, prefix: int, broadcast: IPv4Address) -> None:
        body = (struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index) + attribute(IFA_LOCAL, address.packed)
                + attribute(IFA_ADDRESS, address.packed) + attribute(IFA_BROADCAST, broadcast.packed))
        self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"add address {address}")

    def addresses(self) -> list[IPv4Address]:
        """All IPv4 addresses of this namespace, the loopback's too."""
        entries = self.dump(RTM_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0), "list addresses")
        found = (dict(attributes(entry[8:])).get(IFA_LOCAL, b"") for entry in entries)
        return [IPv4Address(address) for address in found if len(address) == 4]

    def add_default_route(self, gateway: IPv4Address) -> None:
        # table main, protocol boot, scope universe, type unicast
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
        self.ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body + attribute(RTA_GATEWAY, gateway.packed),
                  f"add route via {gateway}")


def _check(message: bytes, flags: int, what: str) -> None:
    """Raises what an NLMSG_ERROR or NLMSG_DONE says; both begin with a code, 0 when all is well."""
    code: int = struct.unpack_from("=i", message, 16)[0] if len(message) >= 20 else 0
    if code < 0:
        raise OSError(-code, f"{what}: {_reason(message, len(message), flags) or os.strerror(-code)}")


def _reason(data: bytes, length: int, flags: int) -> str:
    """The kernel's words in an extended acknowledgement; empty when it has none."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    (inner,) = struct.unpack_from("=I", data, 20)
    start = 20 + (16 if flags & NLM_F_CAPPED else (inner + 3) & ~3)
    for kind, payload in attributes(data[start:length]):
        if kind == NLMSGERR_ATTR_MSG:
            return payload.rstrip(b"\0").decode(errors="replace")
    return ""


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and payload of each; the flags in the two upper bits of a kind are left out (NLA_TYPE_MASK)."""
    position = 0
    while position + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, position)
        if size < 4:
            return
        yield kind & 0x3FFF, data[position + 4:position + size]
        position += (size + 3) & ~3


def _mac(value: str) -> bytes:
    return bytes(int(part, 16) for part in value.split(":"))
