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
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Self

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_DELROUTE = 20, 21, 22, 24, 25
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 1, 2, 4, 0x200, 0x400, 0x300
NLM_F_REPLACE = 0x100
NLMSG_ERROR, NLMSG_DONE = 2, 3
MAX_DATAGRAM = 64 * 1024
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 5, 10, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER, IFLA_VLAN_ID = 1, 2, 1, 1
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 5, 4, 33
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_NODAD = 2
RTA_OIF, RTA_GATEWAY = 4, 5
IFF_UP = 1


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    kind: str
    """`bridge`, `veth`, …; empty for hardware and the loopback."""

    name: str = ""
    master: int = 0
    """Index of the bridge it is a port of; 0: none."""


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

    def add_on(self, parent: int, name: str, kind: str, data: bytes, *, mac: str, netns: int, mtu: int) -> None:
        """`name`, a macvlan or ipvlan on `parent`, in the namespace of that descriptor."""
        info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind) + attribute(IFLA_INFO_DATA, data))
        address = attribute(IFLA_ADDRESS, _mac(mac)) if mac else b""
        size = number(IFLA_MTU, mtu) if mtu else b""
        self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL,
                  _link() + text(IFLA_IFNAME, name) + address + size + number(IFLA_LINK, parent)
                  + number(IFLA_NET_NS_FD, netns) + info, f"add {kind} interface {name}")

    def add_wire(self, name: str, other: str) -> None:
        """A pair that leads nowhere, both ends here and up: a dummy interface for kernels that have none."""
        peer = attribute(VETH_INFO_PEER, _link() + text(IFLA_IFNAME, other))
        info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth") + attribute(IFLA_INFO_DATA, peer))
        self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _link() + text(IFLA_IFNAME, name) + info,
                 f"add interface {name}")
        for end in (name, other):
            self.set_up(self.index(end))

    def add_vlan(self, name: str, parent: int, tag: int) -> None:
        """An 802.1Q interface on `parent`, up."""
        data = attribute(IFLA_INFO_DATA, attribute(IFLA_VLAN_ID, struct.pack("=H", tag)))
        self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _link(up=True) + text(IFLA_IFNAME, name)
                 + number(IFLA_LINK, parent) + attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vlan") + data),
                 f"add VLAN interface {name}")

    def set_mtu(self, index: int, mtu: int) -> None:
        self.ask(RTM_NEWLINK, 0, _link(index) + number(IFLA_MTU, mtu), f"set the MTU of interface {index}")

    def set_hairpin(self, name: str) -> None:
        """Let the bridge send a frame back by the port it came from."""
        self._set_port(name, IFLA_BRPORT_MODE, "to hairpin mode")

    def set_isolated(self, name: str) -> None:
        """Isolated ports of a bridge reach the bridge itself and never each other."""
        self._set_port(name, IFLA_BRPORT_ISOLATED, "apart from its bridge's other ports")

    def _set_port(self, name: str, what: int, words: str) -> None:
        mode = attribute(what, b"\x01")
        info = attribute(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge") + attribute(IFLA_INFO_SLAVE_DATA, mode))
        self.ask(RTM_NEWLINK, 0, _link() + text(IFLA_IFNAME, name) + info, f"set interface {name} {words}")

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
        return _parsed(answer)

    def links(self) -> list[Link]:
        """All interfaces of this namespace."""
        return [_parsed(entry) for entry in self.dump(RTM_GETLINK, _link(), "list interfaces")]

    def add_address(
        self, index: int, address: IPv4Address | IPv6Address, prefix: int, broadcast: IPv4Address | None = None
    ) -> None:
        """An IPv6 address can be used at once: whoever gives it knows that it is nobody else's."""
        self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(index, address, prefix, broadcast),
                 f"add address {address}")

    def addresses(self) -> list[IPv4Address]:
        """All IPv4 addresses of this namespace, the loopback's too."""
        entries = self.dump(RTM_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0), "list addresses")
        found = (dict(attributes(entry[8:])).get(IFA_LOCAL, b"") for entry in entries)
        return [IPv4Address(address) for address in found if len(address) == 4]

    def set_default_route(self, index: int, gateway: IPv4Address | IPv6Address | None, version: int) -> None:
        """By `gateway`, or straight out of the interface; in place of the one there is."""
        self.ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _default(index, gateway, version),
                 f"add route via {gateway}")

    def delete_default_route(self, version: int) -> None:
        """Raises OSError (ESRCH) where there is none."""
        self.ask(RTM_DELROUTE, 0, _default(0, None, version), "delete the default route")


def _parsed(entry: bytes) -> Link:
    index: int = struct.unpack_from("=BxHi", entry)[2]
    fields = dict(attributes(entry[16:]))
    info = dict(attributes(fields.get(IFLA_LINKINFO, b"")))
    (master,) = struct.unpack("=I", fields.get(IFLA_MASTER, b"\0\0\0\0"))
    return Link(index, _words(info.get(IFLA_INFO_KIND, b"")), _words(fields.get(IFLA_IFNAME, b"")), master)


def _words(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")


def _address(
    index: int, address: IPv4Address | IPv6Address, prefix: int, broadcast: IPv4Address | None = None
) -> bytes:
    family, flags = (socket.AF_INET, 0) if address.version == 4 else (socket.AF_INET6, IFA_F_NODAD)
    body = (struct.pack("=BBBBI", family, prefix, flags, 0, index) + attribute(IFA_LOCAL, address.packed)
            + attribute(IFA_ADDRESS, address.packed))
    return body + (attribute(IFA_BROADCAST, broadcast.packed) if broadcast else b"")


def _default(index: int, gateway: IPv4Address | IPv6Address | None, version: int) -> bytes:
    # table main, protocol boot, scope universe (link without a gateway), type unicast
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    scope = 0 if gateway or version == 6 or not index else 253
    if not index:
        scope = 255  # nowhere: of a route to delete it means any
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 3 if index else 0, scope, 1, 0)
    return (body + (attribute(RTA_GATEWAY, gateway.packed) if gateway else b"")
            + (number(RTA_OIF, index) if index else b""))


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
